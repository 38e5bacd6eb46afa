"""MkDocs hook: links from a page to a file of the project outside `docs/`, such as ``../scales/grid.yaml``.

They work where the pages are read as files. In the site such a file is carried along below ``project/``; one
that is not there stays a broken link, which ends a strict build.
"""

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

LINK = re.compile(r"(?<=\]\()(\.\./[^)\s#]+)")
CARRIED = "project"


def target(page: str, link: str, config: Any) -> Path | None:
    """The project's file that a link of a page below `docs` means, where it leaves `docs`."""
    docs, root = Path(config.docs_dir), Path(config.config_file_path).parent
    path = Path(os.path.normpath(docs / posixpath.dirname(page) / link))
    leaves = not path.is_relative_to(docs) and path.is_relative_to(root)
    return path.relative_to(root) if leaves and path.is_file() else None


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Carry what is linked."""
    root = Path(config.config_file_path).parent
    for page in files.documentation_pages():
        for link in LINK.findall(page.content_string):
            path = target(page.src_uri, link, config)
            name = path and carried(path)
            if path and name and files.get_file_from_path(name) is None:
                text = (root / path).read_text(encoding="utf-8")
                files.append(File.generated(config, name, content=text))
    return files


def carried(path: Path) -> str:
    """Where a file of the project lies in the site: as text, that browsers show."""
    return f"{CARRIED}/{path.as_posix()}.txt"


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Let the links lead there."""

    def replaced(match: re.Match[str]) -> str:
        path = target(page.file.src_uri, match[0], config)
        if path is None:
            return match[0]
        return posixpath.relpath(carried(path), posixpath.dirname(page.file.src_uri) or ".")

    return LINK.sub(replaced, markdown)
