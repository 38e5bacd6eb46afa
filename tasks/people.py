"""Figures by person and training seed, those behind the lines of a table above all: they pair two tables."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

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


def by_person(figures: ArrayLike, people: ArrayLike) -> NDArray[np.float64]:
    """Means [I] of figures [n] over the images of each person who has any; people [n] int, in their order."""
    order = np.unique(people, return_inverse=True)[1]
    counts = np.bincount(order)
    means: NDArray[np.float64] = np.bincount(order, weights=np.asarray(figures, dtype=np.float64)) / counts
    return means


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
