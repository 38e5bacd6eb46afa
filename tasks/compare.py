"""Two common tables side by side, differences paired by training seed and person or record: `make compare`.

What cannot be paired (other people or records, no shared seed, no figures of each) stands without a
difference, and says why.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mipriv.errors import InputError
from mipriv.stats import Figure
from tasks import people, table
from tasks.joined import cells, changes
from tasks.joined.cells import COLUMNS, COUNT, Column, Row
from tasks.memberships import scored
from tasks.memberships.scored import Scored
from tasks.page.joint import spelt_change, told

CELL, GAP = 24, "  "
MEMBERSHIP, UNPAIRED = "membership", "not paired"
SAYS = {-1: "lower", 0: "no change shown", 1: "higher"}


@dataclass(frozen=True)
class Side:
    """One revision's files."""

    rows: dict[str, Row]
    people: dict[people.Key, people.Values]
    scored: dict[str, Scored]
    digests: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Side":
        """From a folder.

        Raises:
            InputError: a file is missing or holds something else.
        """
        try:
            rows = cells.read((folder / table.FILE).read_text(encoding="utf-8"))
            digests = json.loads((folder / table.DIGESTS).read_text(encoding="utf-8"))
        except (OSError, KeyError, ValueError) as error:
            raise InputError(f"{folder}: no common table ({type(error).__name__}: {error})") from error
        # Tables of earlier versions have no scores beside them.
        path = folder / scored.FILE
        scores = {victim: own for (victim, _), own in scored.read(path).items()} if path.exists() else {}
        return cls({row.name: row for row in rows}, people.read(folder / people.FILE), scores, digests)


def lines(a: Side, b: Side, names: Sequence[str]) -> Iterator[str]:
    """The comparison for a terminal: a block a victim, a line a column that either side has a figure in."""
    yield from _head(names)
    for name in [*a.rows, *(name for name in b.rows if name not in a.rows)]:
        yield ""
        absent = [side for side, own in zip(names, (a, b), strict=True) if name not in own.rows]
        if absent:
            yield f"{name}: not a row of {' or '.join(absent)}"
            continue
        same = a.digests["victims"].get(name) == b.digests["victims"].get(name)
        yield f"{name}: {'the same checkpoint' if same else 'another checkpoint'}"
        for column in COLUMNS:
            if line := _line(a, b, name, column):
                yield line
    yield ""
    yield "Percent or as they are, 95% intervals; differences are paired by training seed and person, of"
    yield "membership by training seed and record."


def _head(names: Sequence[str]) -> Iterator[str]:
    titles = ["", *(f"{side}: {name}"[:CELL] for side, name in zip("AB", names, strict=True)), "B minus A"]
    yield GAP.join(title.ljust(width) for title, width in zip(titles, (30, CELL, CELL, 1), strict=True))


def _line(a: Side, b: Side, name: str, column: Column) -> str | None:
    one, other = (side.rows[name].cells[column.name] for side in (a, b))
    if one.value is None and other.value is None:
        return None
    figures = [cell.spelt(column) if cell.value else cell.why.partition(":")[0] for cell in (one, other)]
    parts = [column.title.ljust(28), *(figure.ljust(CELL) for figure in figures)]
    return "  " + GAP.join([*parts, _changed(a, b, name, column)]).rstrip()


def _changed(a: Side, b: Side, name: str, column: Column) -> str:
    """B minus A, or why they do not pair."""
    one, other = (side.rows[name] for side in (a, b))
    if None in (one.cells[column.name].value, other.cells[column.name].value) or column.unit == COUNT:
        return ""
    if a.digests["data"].get(one.data) != b.digests["data"].get(other.data):
        return f"{UNPAIRED}: another data set"
    found = _by_record(a, b, name) if column.name == MEMBERSHIP else _by_person(a, b, name, column)
    if isinstance(found, str):
        return found
    by = one.cells[column.name].by, other.cells[column.name].by
    note = "" if by[0] == by[1] else f" ({by[0]} -> {by[1]})"
    return f"{spelt_change(found, column)} {SAYS[told(found, column)]}{note}"


def _by_person(a: Side, b: Side, name: str, column: Column) -> Figure | str:
    """B minus A, that there is no difference, or why they do not pair."""
    key = (name, column.name, "")
    if key not in a.people or key not in b.people:
        return f"{UNPAIRED}: no figures by person"
    if changes.same(a.people[key], b.people[key]):
        return "the same for every person and training seed"
    return changes.difference(b.people[key], a.people[key]) or f"{UNPAIRED}: no training seed in both"


def _by_record(a: Side, b: Side, name: str) -> Figure | str:
    """The same of scores."""
    if name not in a.scored or name not in b.scored:
        return f"{UNPAIRED}: no scores by record"
    one, other = a.scored[name], b.scored[name]
    if one.same(other):
        return "the same for every record and training seed"
    return scored.difference(other, one) or f"{UNPAIRED}: {scored.unpaired(other, one)}"


def _read(name: str, folder: Path) -> Side:
    """A side; what is wrong with it is said of the revision, whose folder is a passing one."""
    try:
        return Side.read(folder)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: two folders with a table each, and what to call them."""
    parser = argparse.ArgumentParser(prog="python -m tasks.compare", description=__doc__, allow_abbrev=False)
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    parser.add_argument("--names", nargs=2, default=["A", "B"])
    given = parser.parse_args(argv)
    try:
        a, b = (_read(name, own) for name, own in zip(given.names, (given.a, given.b), strict=True))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(*lines(a, b, given.names), sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
