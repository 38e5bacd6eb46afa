"""Figures of membership as tables: examples a class by classes, and laws beside the published ones."""

from collections.abc import Callable
from dataclasses import dataclass

from mipriv.analysis.power_law import PAPER, PAPER_R2
from mipriv.analysis.shift_law import THEORY
from mipriv.stats import Figure
from tasks.leakage import NATURAL
from tasks.memberships import grids, laws
from tasks.memberships.grids import Size
from tasks.page.grid import Grid
from tasks.page.memberships import interval, number, published

ABSENT = "\N{EN DASH}"
Cell = tuple[str, ...]  # a figure, then what stands below it in small letters
Look = Callable[[Size], Cell]


@dataclass(frozen=True)
class Sheet:
    """Cells of a grid: a line S, under each heading a column C.

    Attributes:
        name: of the attack; empty where there is none.
        headings: what each group of columns is.
        lines: by S, cells of the first heading for every C, then of the next.
    """

    name: str
    headings: tuple[str, ...]
    classes: tuple[int, ...]
    lines: dict[int, list[Cell]]


@dataclass(frozen=True)
class Law:
    """A line of the table of laws, spelt: `slopes` are b_S, b_C and b_0."""

    name: str
    rate: str
    slopes: tuple[Cell, ...]
    r2: Cell
    held_out: Cell
    used: str


def attacks(grid: Grid) -> list[Sheet]:
    """TPR at every rate that is resolved anywhere, and AUC, an attack a sheet."""
    return [
        _sheet(
            grid,
            name,
            {
                **{f"TPR at FPR {rate:g}, %": _tpr(grid, name, rate) for rate in grid.told},
                "AUC": lambda size, name=name: _plain(grid.figure(name, size, grids.AUC)),  # type: ignore[misc]
            },
        )
        for name in grid.attacks
    ]


def records(grid: Grid, rate: float) -> list[Sheet]:
    """Quantiles over records of their own TPR, an attack a sheet; of those that have any."""

    def looks(name: str) -> dict[str, Look]:
        return {
            how.capitalize(): lambda size, how=how: _shares(  # type: ignore[misc]
                grid.figure(name, size, grids.RECORD.format(rate, how))
            )
            for how in grids.QUANTILES
        }

    found = [_sheet(grid, name, looks(name)) for name in grid.attacks]
    return [
        sheet for sheet in found if any(cell != (ABSENT,) for line in sheet.lines.values() for cell in line)
    ]


def heads(grid: Grid) -> Sheet:
    """What heads of each cell are worth, and how a record's gradient tells its vulnerability."""
    return _sheet(
        grid,
        "",
        {
            "Natural accuracy, %": lambda size: _shares(grid.heads(size, NATURAL)),
            "Converged, %": lambda size: _shares(grid.heads(size, grids.CONVERGED)),
            "Gradient norm and vulnerability, \N{GREEK SMALL LETTER RHO}": lambda size: _plain(
                grid.heads(size, grids.GRADIENT)
            ),
        },
    )


def fitted(grid: Grid) -> list[Law]:
    """Laws of every attack, by rate, then the published ones; none where no law was fitted."""
    found = []
    for name in grid.attacks:
        for rate in grid.rates:
            slopes = tuple(_three(grid.law(name, rate, slope)) for slope in laws.SLOPES)
            r2, held_out, used = (grid.law(name, rate, one) for one in (laws.R2, laws.HELD_OUT, laws.USED))
            if used is not None:
                share = f"{round(used.point * used.n)} of {used.n}"
                found.append(Law(name, f"{rate:g}", slopes, _two(r2), _two(held_out), share))
        b_c, b_0, r2 = (grid.exact(name, one) for one in (*laws.SLOPES[1:], laws.R2))
        if b_c is not None and b_0 is not None:
            slopes = ((f"{THEORY:g}", "of theory"), _three(b_c), _three(b_0))
            found.append(Law(f"{name}, exact form", "all", slopes, _two(r2), ("",), ""))
    if not found:
        return []
    return found + [
        Law(
            "published",
            f"{rate:g}",
            tuple((f"{slope:.3f}",) for slope in (PAPER[rate].b_s, PAPER[rate].b_c, PAPER[rate].b_0)),
            (f"{PAPER_R2[rate]:.2f}",),
            ("",),
            "",
        )
        for rate in grid.rates
        if rate in PAPER
    ]


def least(grid: Grid) -> list[tuple[str, str, list[Cell]]]:
    """Attack, rate and least examples a class for every epsilon; then the published ones."""
    found: list[tuple[str, str, list[Cell]]] = []
    for name in grid.attacks:
        for rate in grid.rates:
            values = [grid.least(name, rate, epsilon) for epsilon in laws.EPSILONS]
            spelt: list[Cell] = [
                (number(value.point), interval(value)) for value in values if value is not None
            ]
            if spelt:
                found.append((name, f"{rate:g}", spelt))
    if not found:
        return []
    paper = [rate for rate in grid.rates if rate in PAPER]
    return found + [
        ("published", f"{rate:g}", [(published(epsilon, rate),) for epsilon in laws.EPSILONS])
        for rate in paper
    ]


def _sheet(grid: Grid, name: str, looks: dict[str, Look]) -> Sheet:
    lines = {s: [look(Size(s, c)) for look in looks.values() for c in grid.classes] for s in grid.examples}
    return Sheet(name, tuple(looks), tuple(grid.classes), lines)


def _tpr(grid: Grid, name: str, rate: float) -> Look:
    def look(size: Size) -> Cell:
        told, again = (grid.tpr(name, size, rate, anew) for anew in (False, True))
        if told is None or again is None:
            return (ABSENT,)
        return (*_shares(told), f"anew {100 * again.point:.1f}")

    return look


def _shares(value: Figure | None) -> Cell:
    """In percent, its interval below."""
    return (ABSENT,) if value is None else _below(value, 100, 1)


def _plain(value: Figure | None) -> Cell:
    return (ABSENT,) if value is None else _below(value, 1, 2)


def _below(value: Figure, scale: float, digits: int) -> Cell:
    """An interval of one value is not said twice."""
    point, low, high = (f"{scale * end + 0.0:.{digits}f}" for end in (value.point, value.low, value.high))
    return (point,) if value.low == value.high else (point, f"[{low}, {high}]")


def _three(value: Figure | None) -> Cell:
    return ("",) if value is None else _below(value, 1, 3)


def _two(value: Figure | None) -> Cell:
    return ("",) if value is None else _below(value, 1, 2)
