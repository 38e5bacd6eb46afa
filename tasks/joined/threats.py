"""What each threat tells of one victim: which attack a cell shows, and its floor.

Several attacks on one victim make one cell, the one that a validation chose: the second judge chooses an
inversion, of which the first judge's figure is shown; an attacker's own validation error chooses a
reconstruction; of membership it is the one that the parameters name first. So the figure that is shown is not
the largest of several that luck has made large.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks import reconstruct
from tasks.inversions import Inversions
from tasks.joined.cells import ABSENT, NOT_RUN, Cell
from tasks.leakage import ATTRIBUTE, ATTRIBUTE_FLOOR, BALANCED, CHOSEN, MSE, SSIM, TOP1, Line, Table
from tasks.memberships.grids import TPR
from tasks.memberships.victims import DIFFERENCE, KIND

BEST = {MSE: min, SSIM: max}  # of floors


@dataclass(frozen=True)
class Reconstructions:
    """Rows of `reconstruct` with how far each attack's validation said it was off, by `ROW/ARM`.

    Attributes:
        wanted: the block.
        errors: validation errors; infinite where an attack has none.
        place: of a row, what its floors stand against in the table.
    """

    wanted: reconstruct.Reconstruct
    errors: Callable[[str], float]
    place: Callable[[reconstruct.Row], str]


def inversion(
    table: Table, every: Inversions, victim: str, own: Collection[str] = (), asked_in: str = "invert"
) -> Cell:
    """Top-1 accuracy by the first judge, of the attack that the last judge finds the strongest.

    Args:
        own: judges of the victim's own architecture, who see it as it sees itself: the last to be asked.
        asked_in: the block of parameters whose rows attack such a victim.
    """
    rows = [name for name, row in every.wanted.rows.items() if row.victim == victim]
    if not rows:
        return Cell(None, f"{NOT_RUN}: no inversion of this victim; add a row to {asked_in}")
    judges = [judge for judge in table.judges if judge not in own] or table.judges
    chosen = max(rows, key=lambda name: table.value(name, "attack", TOP1, judges[-1]).point)
    value = table.value(chosen, "attack", TOP1, judges[0])
    floor = table.value(f"{chosen}, selected only", "floor", TOP1, judges[0]).point
    attack, alike = every.wanted.rows[chosen].attack, " of its own architecture" if judges[0] in own else ""
    by = f"{attack}, judge {judges[0]}{alike}, of {_count(len(rows))}"
    return Cell(value, floor=floor, by=by, source=(chosen, TOP1, judges[0]))


def reconstruction(
    table: Table, attacks: Reconstructions, victim: str, arm: str | None, of: str, figure: str
) -> Cell:
    """Error of what the attack of least validation error recovered, at that layer or the cut."""
    if arm is None:
        return Cell(None, f"{ABSENT}: whole, and no layer to cut it after is named in table")
    rows = {
        f"{name}/{arm}": row
        for name, row in attacks.wanted.rows.items()
        if (row.of, row.victim) == (of, victim) and arm in (row.layers or row.arms or [arm])
    }
    if not rows:
        where = f" after {arm}" if of == "finetune" else ""
        return Cell(None, f"{NOT_RUN}: no reconstruction of this victim{where}; add a row to reconstruct")
    chosen = min(rows, key=attacks.errors)
    against = f"{victim}/{arm}"
    value = table.value(chosen, "reconstruction", figure, "", against)
    where = attacks.place(rows[chosen])
    floors = [line.value.point for line in _floors(table, where, figure)]
    by = f"{rows[chosen].attack}, knows {rows[chosen].knowledge} images, of {_count(len(rows))}"
    return Cell(value, floor=BEST[figure](floors), by=by, source=(chosen, figure, ""))


def _floors(table: Table, where: str, figure: str) -> Iterator[Line]:
    for line in table.lines:
        if (line.kind, line.figure, line.against) == ("reconstruction floor", figure, where):
            yield line


def membership(table: Table, victim: str, rate: float, twin: str | None) -> Cell:
    """TPR at a rate of the attack that the parameters name first, and its change from the undefended twin.

    Args:
        twin: the undefended victim of the same network; a change from another one is left out, since it is
            not what the defence changed.
    """
    own = [line for line in table.lines if (line.subject, line.kind) == (victim, KIND)]
    told = [line for line in own if line.figure == TPR.format(rate)]
    if not told:
        few = f"too few records of this victim to tell an FPR of {rate:g}; raise rate of table"
        none = "no shadows of this victim; add a row to shadow_victims"
        return Cell(None, f"{NOT_RUN}: {few if own else none}")
    line = told[0]
    wanted = (victim, DIFFERENCE, line.figure, line.judge, twin)
    changes = (
        each.value
        for each in table.lines
        if (each.subject, each.kind, each.figure, each.judge, each.against) == wanted
    )
    by = f"{line.judge} at FPR {rate:g}, the first of {_count(len(told))}"
    source = (victim, line.figure, line.judge)
    return Cell(line.value, floor=rate, by=by, source=source, change=next(changes, None))


def attributes(
    table: Table, labels: list[str], victim: str, split: bool, audits: Mapping[str, tuple[str, str]]
) -> Cell:
    """Balanced accuracy of the auditor that validation chose, on the attribute that ought to be hidden.

    Args:
        table: of `evaluate_attributes`.
        labels: attributes that the data set has.
        split: whether the victim sends anything.
        audits: rows of `attributes` by name, with the row of `split` that each audits and the attribute that
            it names first.
    """
    if not labels:
        return Cell(None, f"{ABSENT}: no labels of attributes come with these images")
    if not split:
        return Cell(None, f"{ABSENT}: whole, sends no features to anybody")
    for line in table.lines:
        row, _, arm = line.subject.partition("/")
        audited, hidden = audits.get(row, ("", ""))
        wanted = (ATTRIBUTE, BALANCED, CHOSEN, hidden)
        if f"{audited}/{arm}" == victim and (line.kind, line.figure, line.judge, line.against) == wanted:
            floor = max(_attribute_floors(table, line))
            return Cell(line.value, floor=floor, by=f"the auditor {CHOSEN}, {hidden}")
    return Cell(None, f"{NOT_RUN}: no audit of this victim's features; add a row to attributes")


def _attribute_floors(table: Table, line: Line) -> Iterator[float]:
    wanted = (line.subject, ATTRIBUTE_FLOOR, line.figure, line.against)
    for other in table.lines:
        if (other.subject, other.kind, other.figure, other.against) == wanted:
            yield other.value.point


def errors(
    folder: Path, wanted: Mapping[str, reconstruct.Row], facts: Callable[[Path], Mapping[str, Any]]
) -> Callable[[str], float]:
    """Mean validation error over training seeds of `ROW/ARM`."""

    def of(name: str) -> float:
        row, _, arm = name.partition("/")
        own = [facts(folder / row / arm / f"seed-{seed}")["validation_error"] for seed in wanted[row].seeds]
        return sum(float("inf") if error is None else float(error) for error in own) / len(own)

    return of


def _count(attacks: int) -> str:
    return f"{attacks} attack{'' if attacks == 1 else 's'}"
