"""A cell of the common table: a figure with interval, floor and n, or the line that says why not."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mipriv.stats import Figure
from tasks.leakage import percent, plain
from tasks.tables import write_csv

ABSENT, NOT_RUN = "not applicable", "not run at this scale"
PERCENT, PLAIN, COUNT, TIME = "percent", "plain", "count", "seconds"
FIELDS = ("low", "high", "floor", "n", "seeds", "by", "change", "change_low", "change_high")


@dataclass(frozen=True)
class Cell:
    """Of one victim in one column.

    Attributes:
        value: the figure, or None.
        why: where there is none, `not applicable: ...` or `not run at this scale: ...`.
        floor: what needs no attack, in the figure's unit; None where nothing leaks by that column.
        by: attack and judge that the figure is of.
        source: subject, figure and judge of its line in the table that it was taken from.
        change: against the undefended twin under the same attack, paired by person and training seed.
    """

    value: Figure | None
    why: str = ""
    floor: float | None = None
    by: str = ""
    source: tuple[str, str, str] | None = None
    change: Figure | None = None

    def flat(self, column: str) -> dict[str, Any]:
        """As fields of a line: `inversion`, `inversion_low`, ...; an empty cell has the first alone."""
        if self.value is None:
            return {column: self.why, **{f"{column}_{name}": "" for name in FIELDS}}
        own: dict[str, Any] = {
            "low": self.value.low,
            "high": self.value.high,
            "n": self.value.n,
            "seeds": self.value.seeds,
        }
        own |= {"floor": "" if self.floor is None else self.floor, "by": self.by}
        ends = ("", "", "") if (c := self.change) is None else (c.point, c.low, c.high)
        own |= dict(zip(FIELDS[-3:], ends, strict=True))
        return {column: self.value.point, **{f"{column}_{name}": own[name] for name in FIELDS}}

    def spelt(self, column: "Column") -> str:
        """`34.2 [20.0, 48.8]`, or why there is nothing."""
        if self.value is None:
            return self.why
        if column.unit == COUNT:
            return f"{self.value.point:,.0f}"
        if column.unit == TIME:
            return _time(self.value)
        return percent(self.value) if column.unit == PERCENT else plain(self.value)

    def floored(self, column: "Column") -> str:
        """The floor, spelt; empty where there is none."""
        if self.floor is None:
            return ""
        return f"{100 * self.floor:.1f}" if column.unit == PERCENT else f"{self.floor:.3f}"


def _time(value: Figure) -> str:
    """`6.2`, or `12.4 [11.9, 13.0]` where seeds differ."""
    ends = f" [{value.low:.1f}, {value.high:.1f}]" if value.low < value.high else ""
    return f"{value.point:.1f}{ends}"


@dataclass(frozen=True)
class Column:
    """A column: `name` in files, `title`, `unit`, and in which direction it `leaks` (0: it does not)."""

    name: str
    title: str
    unit: str
    leaks: int


COLUMNS = (
    Column("natural_accuracy", "natural accuracy", PERCENT, 0),
    Column("inversion", "inversion, top 1", PERCENT, 1),
    Column("reconstruction_mse", "reconstruction, MSE", PLAIN, -1),
    Column("reconstruction_ssim", "reconstruction, SSIM", PLAIN, 1),
    Column("membership", "membership, TPR", PERCENT, 1),
    Column("attributes", "attributes, balanced accuracy", PERCENT, 1),
    Column("client_macs", "client, MACs an image", COUNT, 0),
    Column("training_seconds", "training, seconds", TIME, 0),
)


@dataclass(frozen=True)
class Row:
    """A victim: name, data set, checkpoint in words, digests by training seed, and cells by column."""

    name: str
    data: str
    checkpoint: str
    digests: Mapping[int, str]
    cells: Mapping[str, Cell]

    def flat(self) -> dict[str, Any]:
        """One line."""
        known = " ".join(f"{seed}:{digest[:16]}" for seed, digest in self.digests.items())
        found: dict[str, Any] = {"victim": self.name, "data": self.data, "checkpoint": self.checkpoint}
        found["sha256"] = known
        for column in COLUMNS:
            found |= self.cells[column.name].flat(column.name)
        return found


def header() -> list[str]:
    """Names of all fields of a line."""
    return list(Row("", "", "", {}, {column.name: Cell(None) for column in COLUMNS}).flat())


def cell(line: Mapping[str, str], column: str) -> Cell:
    """The cell that `Cell.flat` wrote, as a CSV reader gives it."""
    if not line[f"{column}_n"]:
        return Cell(None, line[column])
    point, low, high = (float(line[name]) for name in (column, f"{column}_low", f"{column}_high"))
    value = Figure(point, low, high, int(line[f"{column}_n"]), int(line[f"{column}_seeds"]), "")
    floor, change = line[f"{column}_floor"], None
    if line[f"{column}_change"]:
        ends = [float(line[f"{column}_{name}"]) for name in FIELDS[-3:]]
        change = Figure(ends[0], ends[1], ends[2], value.n, value.seeds, "")
    return Cell(value, "", float(floor) if floor else None, line[f"{column}_by"], change=change)


def read(text: str) -> list[Row]:
    """The rows that `write` wrote, given the file's content; digests are left to their own file.

    Raises:
        KeyError, ValueError: another table's content.
    """
    lines = csv.DictReader(io.StringIO(text), strict=True)
    return [
        Row(
            line["victim"],
            line["data"],
            line["checkpoint"],
            {},
            {column.name: cell(line, column.name) for column in COLUMNS},
        )
        for line in lines
    ]


def points(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Points alone by victim and column, as `dvc metrics` shows them."""
    return {
        row.name: {
            name: round(own.value.point, 4) for name, own in row.cells.items() if own.value is not None
        }
        for row in rows
    }


def write(path: Path, rows: Sequence[Row]) -> None:
    """The table; of a scale without victims its columns alone."""
    if rows:
        write_csv(path, [row.flat() for row in rows])
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(",".join(header()) + "\n", encoding="utf-8")
