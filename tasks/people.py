"""Figures by person and training seed behind the lines of a table: what pairs two tables, later."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipriv.errors import InputError

FILE = "people.json"
DECIMALS = 6
Key = tuple[str, str, str]  # subject, figure, judge


@dataclass(frozen=True)
class Values:
    """`values` [S, I] of training `seeds` [S]; people stand in the order of the data set."""

    seeds: list[int]
    values: NDArray[np.float64]

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {"seeds": self.seeds, "values": np.round(self.values, DECIMALS).tolist()}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> "Values":
        """From JSON."""
        return cls(list(value["seeds"]), np.asarray(value["values"], dtype=np.float64))


def write(path: Path, found: Mapping[Key, Values]) -> None:
    """One JSON object; keys are the three names with tabs between them."""
    text = json.dumps({"\t".join(key): value.plain() for key, value in found.items()}, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> dict[Key, Values]:
    """What `write` wrote.

    Raises:
        InputError: no such file, or other content.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: no figures by person ({type(error).__name__}: {error})") from error


def parse(text: str) -> dict[Key, Values]:
    """The content of such a file."""
    found: dict[Key, Values] = {}
    for key, value in json.loads(text).items():
        subject, figure, judge = key.split("\t")
        found[subject, figure, judge] = Values.of(value)
    return found
