"""Code blocks of the pages that people follow, and what their commands name."""

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
INLINE = re.compile(r"`((?:make|dvc|python -m) [^`\n]+)`")
STARTS = ("make ", "python -m ", "dvc ")


def pages() -> list[Path]:
    """The tutorial, the how-tos, and what they send readers to."""
    docs = ROOT / "docs"
    others = [docs / f"{name}.md" for name in ("tutorial", "flows", "ray", "s3", "mlflow", "published")]
    return [
        *sorted((docs / "howto").glob("*.md")),
        *others,
        docs / "reference" / "commands.md",
        ROOT / "README.md",
    ]


def blocks(page: Path, language: str) -> list[str]:
    """Bodies of the code blocks in a language."""
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [textwrap.dedent(match["body"]) for match in found if match["language"] == language]


def commands(page: Path) -> Iterator[list[str]]:
    """Every command of ours that a page names, in words, comments left out."""
    text = page.read_text(encoding="utf-8")
    lines = [
        line for language in ("sh", "") for block in blocks(page, language) for line in block.splitlines()
    ]
    spelt = [part for span in INLINE.findall(text) for part in span.split(", ")]
    for line in [*lines, *spelt]:
        line = re.sub(r"^(\w+=\S+ )+", "", line.strip())
        if line.startswith(STARTS) and "..." not in line:
            yield shlex.split(line, comments=True)
