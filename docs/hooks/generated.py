"""MkDocs hook: a line ``<!-- made: NAME ARGUMENT -->`` of a page becomes what code and parameters say.

A generator is a function of `GENERATORS`: the argument to lines of Markdown. Pages thus hold no list of
plug-ins, stages, keys, scales, commands or claims that could fall behind.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]  # `mkdocs` alone knows neither

import made_claims  # noqa: E402
import made_parameters  # noqa: E402
import made_project  # noqa: E402
import made_reference  # noqa: E402

MARK = re.compile(r"^<!-- made: (\w+) ?(.*?) -->$", re.MULTILINE)
GENERATORS: dict[str, Callable[[str], str]] = {
    "claims": lambda _: made_claims.published(ROOT),
    "commands": lambda _: made_project.commands(ROOT),
    "guides": lambda _: made_project.guides(ROOT),
    "modules": lambda package: made_reference.modules(ROOT, package),
    "others": lambda _: made_reference.others(ROOT),
    "parameters": lambda _: made_parameters.blocks(ROOT),
    "plugins": made_reference.plugins,
    "scales": lambda _: made_project.scales(ROOT),
    "stages": lambda _: made_project.stages(ROOT),
    "table": made_reference.table,
}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in every mark of a page.

    Raises:
        PluginError: a mark that no generator has.
    """

    def filled(match: re.Match[str]) -> str:
        if match[1] not in GENERATORS:
            raise PluginError(f"{page.file.src_uri}: {match[0]}; allowed: {', '.join(GENERATORS)}")
        return GENERATORS[match[1]](match[2])

    return MARK.sub(filled, markdown)
