"""An attacked grid of shadow heads as pages ask for it: figures of the table by attack, size and rate."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mipriv.analysis.power_law import PowerLaw
from mipriv.analysis.shift_law import THEORY, ShiftLaw
from mipriv.stats import Figure
from tasks import membership, shadows
from tasks.leakage import Table
from tasks.memberships import grids, laws
from tasks.memberships.grids import Size

LOSS = "loss"  # the attack that needs no shadow


@dataclass(frozen=True)
class Grid:
    """A row of `shadows` with every attack on it.

    Attributes:
        name: of the row.
        row: its parameters.
        attacks: plug-in by row of `membership`.
        rates: of false positives that were asked for, the largest first.
    """

    name: str
    row: shadows.Row
    attacks: Mapping[str, str]
    rates: tuple[float, ...]
    table: Table

    @cached_property
    def _figures(self) -> dict[tuple[str, str, str, str], Figure]:
        return {(line.subject, line.kind, line.figure, line.against): line.value for line in self.table.lines}

    @property
    def sizes(self) -> list[Size]:
        """Of its cells, the largest training set first."""
        return [Size(*size) for size in self.row.sizes]

    @property
    def examples(self) -> list[int]:
        """S of its cells, rising."""
        return sorted(self.row.examples)

    @property
    def classes(self) -> list[int]:
        """C of its cells, rising."""
        return sorted(self.row.classes)

    def figure(self, attack: str, size: Size, figure: str) -> Figure | None:
        """Of an attack on a cell; None where the table has none."""
        return self._figures.get((grids.subject(attack, size), grids.KIND, figure, self.name))

    def tpr(self, attack: str, size: Size, rate: float, anew: bool = False) -> Figure | None:
        """True positives at a rate of false ones; `anew`: as on examples drawn anew."""
        figure = grids.CORRECTED if anew else grids.TPR
        return self.figure(attack, size, figure.format(rate))

    def heads(self, size: Size, figure: str) -> Figure | None:
        """Of the heads of a cell."""
        return self._figures.get((f"{self.name}/{size}", grids.CELL, figure, self.name))

    def law(self, attack: str, rate: float, figure: str) -> Figure | None:
        """Of the power law of an attack at a rate."""
        return self._figures.get((attack, laws.LAW, figure, f"fpr {rate:g}"))

    def exact(self, attack: str, figure: str) -> Figure | None:
        """Of the exact form of an attack, which has one for all rates."""
        return self._figures.get((attack, laws.SHIFT, figure, "all rates"))

    def least(self, attack: str, rate: float, epsilon: float) -> Figure | None:
        """Least examples a class for an epsilon, by the power law."""
        return self._figures.get((attack, laws.LEAST, f"epsilon {epsilon:g}", f"fpr {rate:g}"))

    def power_law(self, attack: str, rate: float) -> PowerLaw | None:
        """The law itself, where one was fitted."""
        found = [self.law(attack, rate, slope) for slope in laws.SLOPES]
        points = [one.point for one in found if one is not None]
        return PowerLaw(rate, *points) if len(points) == len(laws.SLOPES) else None

    def shift_law(self, attack: str) -> ShiftLaw | None:
        """The exact form itself, its slope in S that of theory, where one was fitted."""
        b_c, b_0 = (self.exact(attack, slope) for slope in laws.SLOPES[1:])
        return ShiftLaw(THEORY, b_c.point, b_0.point) if b_c is not None and b_0 is not None else None

    @property
    def told(self) -> dict[float, list[Size]]:
        """Cells that resolve a rate, by rate; of those that any cell resolves."""
        found = {
            rate: [size for size in self.sizes if all(self.tpr(name, size, rate) for name in self.attacks)]
            for rate in self.rates
        }
        return {rate: sizes for rate, sizes in found.items() if sizes}

    @cached_property
    def best(self) -> str:
        """The attack of the highest mean TPR at the largest rate resolved, else of the highest AUC."""
        if self.told:
            rate, sizes = next(iter(self.told.items()))
            return max(self.attacks, key=lambda name: self._mean(name, grids.TPR.format(rate), sizes))
        return max(self.attacks, key=lambda name: self._mean(name, grids.AUC, self.sizes))

    def _mean(self, attack: str, figure: str, sizes: list[Size]) -> float:
        found = (self.figure(attack, size, figure) for size in sizes)
        return float(np.mean([0.0 if one is None else one.point for one in found]))


def attacked(table: Table, wanted: membership.Attacks, heads: Mapping[str, shadows.Row]) -> list[Grid]:
    """Rows of `shadows` with their attacks; those that no attack is on are left out."""
    found = []
    for name, row in heads.items():
        attacks = {attack: own.attack for attack, own in wanted.rows.items() if own.of == name}
        if attacks:
            found.append(Grid(name, row, attacks, tuple(sorted(wanted.rates, reverse=True)), table))
    return found


def above(figure: Figure, rate: float) -> int:
    """1 or -1 where a TPR's interval lies above or below the FPR, 0 where it holds the FPR."""
    return (figure.low > rate) - (figure.high < rate)
