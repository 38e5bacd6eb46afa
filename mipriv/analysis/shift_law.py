"""The power law by the model's exact form: one line for every FPR.

TPR = Phi(delta - z),    log10 delta = b_S log10 S + b_C log10 C + b_0,    z = Phi^-1(1 - f)              (1)

(`membership_model`, where b_S = -1/2). Where `power_law` needs a line an FPR, this has one; it bends where
log10(TPR - FPR) does, and neither exceeds a TPR of 1 nor falls below the FPR. It takes all examples for
equally vulnerable: where some are much more so than most, lines for low and high FPRs differ, which fits to
one FPR each show.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from mipriv import stats
from mipriv.analysis.dp_bound import check_size, tpr_bound
from mipriv.analysis.membership_model import location_scale
from mipriv.analysis.vulnerability_grid import Cell, Excluded, r_squared, regress, usable
from mipriv.errors import InputError
from mipriv.stats import Figure

Array = NDArray[np.float64]

# The form holds up to a TPR of 1, but counts of the few members missed then decide delta.
SATURATED = 0.99
THEORY = -0.5
FIELDS = ("b_s", "b_c", "b_0")


@dataclass(frozen=True)
class ShiftLaw:
    """(1).

    Attributes:
        b_s: slope in log10 S.
        b_c: slope in log10 C.
        b_0: log10 delta at S = C = 1.
    """

    b_s: float
    b_c: float
    b_0: float

    def predict(self, examples: ArrayLike, classes: ArrayLike, fpr: float) -> Array:
        """TPR at any FPR for S examples a class and C classes, which broadcast.

        Raises:
            InputError: fewer than 1 example a class or 2 classes, or an FPR outside (0, 1).
        """
        s, c = np.asarray(examples, np.float64), np.asarray(classes, np.float64)
        check_size("shift law", float(s.min()), float(c.min()))
        return location_scale(10 ** (self.b_s * np.log10(s) + self.b_c * np.log10(c) + self.b_0), fpr)

    def least_examples(self, epsilon: float, delta: float, fpr: float, classes: int) -> float:
        """The least S at which the predicted TPR is at most what (epsilon, delta) allows; round it up.

        (1) solved for S, from 1; infinite where the bound is the FPR itself.

        Raises:
            InputError: as `tpr_bound`, fewer than 2 classes, or a law by which TPR does not fall with S.
        """
        check_size("least examples", 1, classes)
        if self.b_s >= 0:
            raise InputError(f"least examples: b_S {self.b_s:.4g}; allowed: below 0, as TPR falls with S")
        shift = special.ndtri(tpr_bound(epsilon, delta, fpr)) - special.ndtri(fpr)
        if shift <= 0:
            return float(np.inf)
        wanted = (np.log10(shift) - self.b_c * np.log10(classes) - self.b_0) / self.b_s
        return float(10 ** max(0.0, wanted))


@dataclass(frozen=True, eq=False)
class FittedShift(ShiftLaw):
    """A law fitted on cells.

    Attributes:
        coefficients: b_S, b_C and b_0 with intervals by the bootstrap over seeds and (S, C); a slope that was
            given has no interval, and is missing here.
        r2_fitted: of log10 delta, on the cells fitted.
        used: cells fitted, by FPR.
        excluded: the others, by FPR.
        replicates: [B, 3], of the resamples.
    """

    coefficients: dict[str, Figure]
    r2_fitted: Figure
    used: dict[float, tuple[Cell, ...]]
    excluded: dict[float, tuple[Excluded, ...]]
    replicates: Array = field(repr=False)

    def predicted(self, examples: int, classes: int, fpr: float) -> Figure:
        """`predict` with the interval of the line; a new cell scatters about it by more."""
        point = float(self.predict(examples, classes, fpr))
        b_s, b_c, b_0 = self.replicates.T
        low, high = stats.interval(
            location_scale(10 ** (b_s * np.log10(examples) + b_c * np.log10(classes) + b_0), fpr)
        )
        b = self.coefficients["b_0"]
        return Figure(point, low, high, b.n, b.seeds, b.method)


def fit(
    cells: Mapping[float, Sequence[Cell]],
    slope: float | None = THEORY,
    saturated: float = SATURATED,
    seed: int = 0,
) -> FittedShift:
    """(1) by least squares of log10(Phi^-1(TPR) + z) over cells of one or more FPRs, f < TPR < `saturated`.

    Args:
        cells: by FPR; each cell is a row, and cells of one (S, C) and seed are resampled together.
        slope: b_S where it is known, as in theory; None: fitted.
        saturated: TPR from which a cell is left out.
        seed: of the bootstrap.

    Raises:
        InputError: as `usable` and `regress`.
    """
    rows: list[Cell] = []
    shifts: list[float] = []
    used, excluded = {}, {}
    for fpr, given in cells.items():
        kept, left = usable(given, fpr, saturated)
        used[fpr], excluded[fpr] = tuple(kept), tuple(left)
        rows += kept
        shifts += [float(special.ndtri(cell.tpr) - special.ndtri(fpr)) for cell in kept]
    table = np.array([[cell.examples, cell.classes] for cell in rows], np.float64).reshape(-1, 2)
    design = np.column_stack([np.log10(table), np.ones(len(rows))])
    logs = np.log10(np.array(shifts))
    free = FIELDS if slope is None else FIELDS[1:]
    known = np.zeros(len(rows)) if slope is None else slope * design[:, 0]
    found = regress(design[:, -len(free) :], logs - known, rows, seed)
    coefficients = dict(zip(free, found.coefficients, strict=True))
    replicates = found.replicates
    if slope is not None:
        replicates = np.column_stack([np.full(len(replicates), slope), replicates])
    b_s = coefficients["b_s"].point if slope is None else slope
    b_c, b_0 = (coefficients[name].point for name in FIELDS[1:])
    r2 = r_squared(logs, design @ np.array([b_s, b_c, b_0]), rows, seed)
    return FittedShift(b_s, b_c, b_0, coefficients, r2, used, excluded, replicates)
