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
from tasks.leakage import MSE, SSIM, TOP1, Line, Table
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


def inversion(table: Table, every: Inversions, victim: str, own: Collection[str] = ()) -> Cell:
    """Top-1 accuracy by the first judge, of the attack that the last judge finds the strongest.

    Args:
        own: judges of the victim's own architecture, who see it as it sees itself: the last to be asked.
    """
    rows = [name for name, row in every.wanted.rows.items() if row.victim == victim]
    if not rows:
        return Cell(None, f"{NOT_RUN}: no inversion of it is asked for")
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
        return Cell(None, f"{ABSENT}: no layer is named to cut it after")
    rows = {
        f"{name}/{arm}": row
        for name, row in attacks.wanted.rows.items()
        if (row.of, row.victim) == (of, victim) and arm in (row.layers or row.arms or [arm])
    }
    if not rows:
        where = f" after {arm}" if of == "finetune" else ""
        return Cell(None, f"{NOT_RUN}: no reconstruction of it{where} is asked for")
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


def membership(table: Table, victim: str, rate: float) -> Cell:
    """TPR at a rate of the attack that the parameters name first, and its change from the undefended one."""
    own = [line for line in table.lines if (line.subject, line.kind) == (victim, KIND)]
    told = [line for line in own if line.figure == TPR.format(rate)]
    if not told:
        why = f"its records do not resolve an FPR of {rate:g}" if own else "it has no shadow models"
        return Cell(None, f"{NOT_RUN}: {why}")
    line = told[0]
    wanted = (victim, DIFFERENCE, line.figure, line.judge)
    changes = (
        each.value for each in table.lines if (each.subject, each.kind, each.figure, each.judge) == wanted
    )
    by = f"{line.judge} at FPR {rate:g}, the first of {_count(len(told))}"
    return Cell(line.value, floor=rate, by=by, change=next(changes, None))


def attributes(table: Table | None, labels: list[str], victim: str, audits: Mapping[str, str]) -> Cell:
    """Balanced accuracy of the auditor that validation chose, on the attribute that it tells best.

    Args:
        table: of `evaluate_attributes`, where there is one.
        labels: attributes that the data set has.
        audits: rows of `attributes` by name, with the row of `split` that each audits.
    """
    if not labels:
        return Cell(None, f"{ABSENT}: no labels")
    found: dict[tuple[str, str], tuple[Line, float]] = {}
    for line in table.lines if table else ():
        row, _, arm = line.subject.partition("/")
        own = f"{audits.get(row)}/{arm}" == victim
        if own and (line.kind, line.figure, line.judge) == ("attribute", "balanced accuracy", "chosen"):
            floors = [
                other.value.point
                for other in (table.lines if table else ())
                if (other.subject, other.kind, other.figure, other.against)
                == (line.subject, "attribute floor", line.figure, line.against)
            ]
            found[line.subject, line.against] = (line, max(floors, default=0.5))
    if not found:
        return Cell(None, f"{NOT_RUN}: no audit of its features is asked for")
    line, floor = max(found.values(), key=lambda one: one[0].value.point - one[1])
    return Cell(line.value, floor=floor, by=f"chosen auditor, {line.against}", source=None)


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
