"""What reads well and is not meant: a number with digits too many costs a week, a name with dots climbs."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mipriv.errors import InputError
from tasks.engine import params

NAME = re.compile(r"\w(?:[\w+-]|\.(?!\.))*", re.ASCII)


def check(values: Mapping[str, Any], largest: Mapping[str, float]) -> None:
    """Refuse the first name of a row that is no name of a folder, and the first number above the largest that
    `cost.largest` allows a knob of its name.

    Raises:
        InputError: one line that names the key, what it was, what is allowed and how to allow more.
    """
    for name, block in values.items():
        if name == "cost":
            continue
        for row in block.get("rows", {}) if isinstance(block, Mapping) else ():
            if not NAME.fullmatch(str(row)):
                allowed = "letters, digits, _ - + and single dots: results lie in a folder of this name"
                raise InputError(f"{params.FILE}: {name}.rows: name {row!a}; allowed: {allowed}")
        for where, knob, value in _numbers(block, name):
            if knob in largest and value > largest[knob]:
                allowed = f"at most {largest[knob]:g}, or more where cost.largest.{knob} says so"
                raise InputError(f"{params.FILE}: {where}: {value:g}; allowed: {allowed}")


def _numbers(value: object, where: str) -> Iterator[tuple[str, str, float]]:
    """Every number below a place: where it stands, the name of its knob, and itself."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, f"{where}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, where)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield where, where.rpartition(".")[2], float(value)
