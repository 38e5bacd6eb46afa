"""Finished pages as parts of one: their main content, with anchors that meet no other page's."""

import re
from pathlib import Path

from mipriv.errors import InputError

MAIN = re.compile(r"<main>(.*)</main>", re.DOTALL)
ANCHORS = re.compile(r'(?<=\s)(id="|href="#|aria-labelledby="|for=")([\w-]+)"')


def part(path: Path, name: str) -> str:
    """What stands in a page's `main`; its anchors begin with `name`.

    Raises:
        InputError: no such file, or no page of this project.
    """
    try:
        found = MAIN.search(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if found is None:
        raise InputError(f"{path}: holds no <main>; allowed: a page that a stage of this project left")
    return ANCHORS.sub(lambda m: f'{m[1]}{name}-{m[2]}"', found[1])
