"""Tables for a terminal, and where to look further: the common one is what `make run` ends with.

`python -m tasks.show out/evaluate/leakage.csv --report out/report/report.html` shows that of inversions.
"""

import argparse
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from mipriv.errors import InputError
from tasks.joined import cells
from tasks.leakage import NATURAL, TOP1, Table, percent, points, read

JUDGES = 2  # columns for more do not fit; the report has all
NAME, CELL, GAP = 32, 20, "  "  # characters; with two judges 120 in all


def lines(table: Table) -> Iterator[str]:
    """The table, in lines of at most 120 characters.

    Each attack with its accuracy by each of the first judges and its difference to the undefended twin; then
    floors and ceiling; then the victims.
    """
    judges = table.judges[:JUDGES]
    rule = "-" * (NAME + 2 * len(judges) * (CELL + len(GAP)))
    titles = (title for judge in judges for title in (judge, "vs. undefended"))
    yield from _wrapped(["attack accuracy, top 1", *titles])
    yield rule
    for row in table.subjects("attack"):
        yield from _wrapped([row, *_attack(table, row, judges)])
    for kind in ("floor", "ceiling"):
        yield rule
        for row in table.subjects(kind):
            figures = (percent(table.value(row, kind, TOP1, judge)) for judge in judges)
            yield from _wrapped([row, *(cell for figure in figures for cell in (figure, ""))])
    yield ""
    yield from _wrapped(["victim", "natural accuracy"])
    yield "-" * (NAME + CELL + len(GAP))
    for row in table.subjects("victim"):
        yield from _wrapped([row, percent(table.value(row, "victim", NATURAL))])
    yield ""
    yield from _notes(table)


def common(path: Path) -> Iterator[str]:
    """The table of all threats, a block a victim: each figure with its interval, floor and what it is of.

    Raises:
        InputError: the file is no such table.
    """
    try:
        rows = cells.read(path.read_text(encoding="utf-8"))
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: no common table ({type(error).__name__}: {error})") from error
    for row in rows:
        yield f"{row.name}  ({row.data}, {row.checkpoint})"
        for column in cells.COLUMNS:
            cell = row.cells[column.name]
            floor = f"floor {cell.floored(column)}" if cell.floor is not None else ""
            shown = f"  {column.title:<30}{cell.spelt(column):<24}{floor:<14}{cell.by}"
            yield from textwrap.wrap(shown, 120, subsequent_indent=" " * 32)
        yield ""
    yield (
        "Shares in percent, 95% intervals. The report says how to read each column."
        if rows
        else ("No victim is in the common table at this scale.")
    )


def _attack(table: Table, row: str, judges: Sequence[str]) -> Iterator[str]:
    twin = table.twin(row)
    for judge in judges:
        yield percent(table.value(row, "attack", TOP1, judge))
        yield "-" if twin is None else points(table.value(row, "difference", TOP1, judge, twin))


def _notes(table: Table) -> Iterator[str]:
    people = sorted({table.value(row, "attack", TOP1, table.judges[0]).n for row in table.subjects("attack")})
    counted = " or ".join(map(str, people))
    yield f"Percent (differences: percentage points) with 95% intervals, over {counted} people."
    if len(table.judges) > JUDGES:
        yield f"The report has {len(table.judges) - JUDGES} more of the judges."


def _wrapped(cells: Sequence[str]) -> Iterator[str]:
    """A row in columns; what is too long for its column goes on below."""
    widths = [NAME, *(CELL for _ in cells[1:])]
    parts = [textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, widths, strict=True)]
    for i in range(max(map(len, parts))):
        cut = [part[i] if i < len(part) else "" for part in parts]
        yield GAP.join(text.ljust(width) for text, width in zip(cut, widths, strict=True)).rstrip()


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: the table, and the report to point to."""
    parser = argparse.ArgumentParser(prog="python -m tasks.show", description=__doc__, allow_abbrev=False)
    parser.add_argument("leakage", type=Path, nargs="?", help="the table of inversions")
    parser.add_argument("--table", type=Path, help="the common table")
    parser.add_argument("--report", type=Path, required=True)
    given = parser.parse_args(argv)
    try:
        if given.table is not None:
            print(*common(given.table), sep="\n")
        if given.leakage is not None:
            print(*lines(read(given.leakage)), sep="\n")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"\nreport   {given.report.absolute()}")
    print("records  make ui   # the MLflow browser, on loopback")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
