"""The common table in words: what leaks, how much, what would help, at what cost; sentences by intervals."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mipriv.stats import Figure
from tasks.joined.cells import COLUMNS, COUNT, PERCENT, Cell, Column, Row
from tasks.leakage import points
from tasks.page.findings import Finding, listed, named

LEAKS = tuple(column for column in COLUMNS if column.leaks)
NATURAL, MACS, SECONDS = (COLUMNS[i] for i in (0, -2, -1))
CLEARS, UNCLEAR = "clears its floor", "not shown to clear its floor"
PLAIN_DIGITS = 3  # of a change that is not in percent


@dataclass(frozen=True)
class Shown:
    """A cell, spelt: figure, floor, change, and what it is of."""

    text: str
    floor: str
    change: str
    by: str
    units: str
    empty: bool
    says: str
    clear: bool


def shown(cell: Cell, column: Column) -> Shown:
    """How a cell stands on the page."""
    if cell.value is None:
        return Shown(cell.why, "", "", "", "", True, "", False)
    counted = "" if column.unit == COUNT else units(cell.value, column)
    change = "" if cell.change is None else spelt_change(cell.change, column)
    floor, clear = cell.floored(column), clears(cell, column) is True
    return Shown(cell.spelt(column), floor, change, cell.by, counted, False, _says(cell, column), clear)


def units(value: Figure, column: Column) -> str:
    """Of what, and how many trainings."""
    seeds = f"{value.seeds} seed{'' if value.seeds == 1 else 's'}"
    return seeds if column is SECONDS else f"n {value.n}, {seeds}"


def spelt_change(change: Figure, column: Column) -> str:
    """A difference in points, or in the figure's own unit with its sign."""
    if column.unit == PERCENT:
        return points(change)
    # Adding 0.0 turns the -0.0 that rounding leaves into 0.0.
    ends = (round(end, PLAIN_DIGITS) + 0.0 for end in (change.point, change.low, change.high))
    point, low, high = (f"{end:+.{PLAIN_DIGITS}f}" for end in ends)
    return f"{point} [{low}, {high}]"


def told(change: Figure, column: Column) -> int:
    """-1 or 1 where the interval of a change lies below or above zero as it is printed; 0 where it does not.

    A sentence that names a change which the page prints as zero would contradict the figure beside it.
    """
    scale, digits = (100, 1) if column.unit == PERCENT else (1, PLAIN_DIGITS)
    low, high = (round(scale * end, digits) for end in (change.low, change.high))
    return (low > 0) - (high < 0)


def _says(cell: Cell, column: Column) -> str:
    above = clears(cell, column)
    return "" if above is None else CLEARS if above else UNCLEAR


def clears(cell: Cell, column: Column) -> bool | None:
    """Whether the whole interval lies on the leaking side of the floor; None where nothing can."""
    if cell.value is None or cell.floor is None or not column.leaks:
        return None
    return cell.value.low > cell.floor if column.leaks > 0 else cell.value.high < cell.floor


def findings(rows: Sequence[Row], undefended: Sequence[str]) -> list[Finding]:
    """Four questions on one table.

    Args:
        rows: of one data set.
        undefended: names of rows without a defence.
    """
    plain_rows = [row for row in rows if row.name in undefended] or list(rows)
    return [
        Finding("What leaks?", _leaks(rows), tuple(_by_threat(rows))),
        Finding("How much, without a defence?", _how(plain_rows), tuple(_levels(plain_rows))),
        Finding("What would help?", _helps(rows), tuple(_changes(rows))),
        Finding("At what cost?", _cost(rows), tuple(_costs(rows))),
    ]


def _leaks(rows: Sequence[Row]) -> str:
    told = [c for c in LEAKS if any(row.cells[c.name].value for row in rows)]
    shown = [c for c in told if any(clears(row.cells[c.name], c) for row in rows)]
    missing = [c.title for c in LEAKS if c not in told]
    if not told:
        return "Nothing was measured of these victims at this scale."
    said = f"By {len(shown)} of {len(told)} measures something is shown to leak from at least one victim."
    if missing:
        said += f" Nothing was measured under {named(missing)}: the cells say why."
    return said


def _by_threat(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    for column in LEAKS:
        known = {row.name: clears(row.cells[column.name], column) for row in rows}
        above = [name for name, yes in known.items() if yes]
        below = [name for name, yes in known.items() if yes is False]
        parts = [f"{CLEARS} on {named(above)}"] if above else []
        parts += [f"{UNCLEAR} on {named(below)}"] if below else []
        if parts:
            yield column.title, "; ".join(parts) + "."


def _how(rows: Sequence[Row]) -> str:
    return f"Of {named([row.name for row in rows])}, figures with 95% intervals beside what needs no attack:"


def _levels(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    for row in rows:
        parts = [
            f"{c.title}: {_spelt(row.cells[c.name], c)}, floor {row.cells[c.name].floored(c)}{_sign(c)}"
            for c in LEAKS
            if row.cells[c.name].value is not None
        ]
        if parts:
            yield row.name, "; ".join(parts) + "."


def _spelt(cell: Cell, column: Column) -> str:
    """`34.2% [20.0, 48.8]`."""
    point, space, ends = cell.spelt(column).partition(" ")
    return f"{point}{_sign(column)}{space}{ends}"


def _sign(column: Column) -> str:
    return "%" if column.unit == PERCENT else ""


def _helps(rows: Sequence[Row]) -> str:
    less: list[str] = []
    more: list[str] = []
    for row in rows:
        signs = [(c.title, c.leaks * told(change, c)) for c, change in _changed(row, LEAKS)]
        for found, side in ((less, -1), (more, 1)):
            titles = [title for title, way in signs if way == side]
            found += [f"{named([row.name])} ({'; '.join(titles)})"] if titles else []
    if not any(list(_changed(row, LEAKS)) for row in rows):
        return "No defended victim has an undefended twin under the same attack."
    said = (
        f"Shown to leak less than the undefended twin, under the same attack: {listed(less)}."
        if less
        else "No defence is shown to lower any of these figures."
    )
    return said + (f" Shown to leak more: {listed(more)}." if more else "")


def _changes(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    for row in rows:
        parts = [
            f"{c.title}: {spelt_change(change, c)}{_unit(c)}{'' if told(change, c) else ' (no change shown)'}"
            for c, change in _changed(row, LEAKS)
        ]
        if parts:
            yield row.name, "; ".join(parts) + "."


def _changed(row: Row, columns: Sequence[Column]) -> Iterator[tuple[Column, Figure]]:
    for column in columns:
        change = row.cells[column.name].change
        if change is not None:
            yield column, change


def _cost(rows: Sequence[Row]) -> str:
    worse = [row.name for row in rows if any(told(change, c) < 0 for c, change in _changed(row, [NATURAL]))]
    alike = [row.name for row in rows if any(told(change, c) == 0 for c, change in _changed(row, [NATURAL]))]
    parts = [f"Natural accuracy is shown to fall for {named(worse)}."] if worse else []
    parts += [f"No change of natural accuracy is shown for {named(alike)}."] if alike else []
    return " ".join(parts) or "No defended victim has an undefended twin to be compared with."


def _costs(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    for row in rows:
        parts = [f"natural accuracy {_spelt(row.cells[NATURAL.name], NATURAL)}"]
        parts += [
            f"{spelt_change(change, c)}{_unit(c)} against undefended"
            for c, change in _changed(row, [NATURAL])
        ]
        if (macs := row.cells[MACS.name]).value is not None:
            parts.append(f"{macs.spelt(MACS)} multiply-accumulates an image at the client")
        if (spent := row.cells[SECONDS.name]).value is not None:
            parts.append(f"{spent.spelt(SECONDS)} seconds of training")
        yield row.name, "; ".join(parts) + "."


def _unit(column: Column) -> str:
    return " points" if column.unit == PERCENT else ""
