"""Membership vulnerability as a power of examples a class and of classes.

log10(TPR - FPR) = b_S log10 S + b_C log10 C + b_0                                                        (1)

at one FPR, by ordinary least squares over cells (S, C), S examples a class and C classes ("Impact of Dataset
Properties on Membership Inference Vulnerability of Deep Transfer Learning", arXiv 2402.06674). The line is an
approximation: for the model of `membership_model` the slope in S is steeper than its limit, -1/2, at
practical S. `shift_law` is the same predictor by the model's exact form.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipriv import stats
from mipriv.analysis.dp_bound import check_size, tpr_bound
from mipriv.analysis.vulnerability_grid import Cell, Excluded, determined, r_squared, regress, usable
from mipriv.errors import InputError
from mipriv.stats import Figure

Array = NDArray[np.float64]

# Above this the exact curve's slope is little over half of -1/2 (-0.28 at an FPR of 0.1): no power law.
SATURATED = 0.9


@dataclass(frozen=True)
class PowerLaw:
    """(1) at one FPR.

    Attributes:
        fpr: f.
        b_s: slope in log10 S.
        b_c: slope in log10 C.
        b_0: log10(TPR - FPR) at S = C = 1.
    """

    fpr: float
    b_s: float
    b_c: float
    b_0: float

    def predict(self, examples: ArrayLike, classes: ArrayLike) -> Array:
        """TPR, at most 1, for S examples a class and C classes, which broadcast.

        Raises:
            InputError: fewer than 1 example a class, or than 2 classes.
        """
        s, c = np.asarray(examples, np.float64), np.asarray(classes, np.float64)
        check_size("power law", float(s.min()), float(c.min()))
        return np.minimum(1.0, self.fpr + 10 ** _line(np.array([self.b_s, self.b_c, self.b_0]), s, c))

    def least_examples(self, epsilon: float, delta: float, classes: int) -> float:
        """The least S at which the predicted TPR is at most what (epsilon, delta) allows; round it up.

        (1) solved for S: log10 S = (log10(bound - f) - b_C log10 C - b_0) / b_S. It says that an attack of
        this kind does not show more than such a mechanism would, on average over examples: it is no
        guarantee.

        Returns:
            From 1; infinite where the bound is the FPR itself.

        Raises:
            InputError: as `tpr_bound`, fewer than 2 classes, or a law by which TPR does not fall with S.
        """
        check_size("least examples", 1, classes)
        if self.b_s >= 0:
            raise InputError(f"least examples: b_S {self.b_s:.4g}; allowed: below 0, as TPR falls with S")
        coefficients = np.array([[self.b_s, self.b_c, self.b_0]])
        return float(10 ** _least(coefficients, tpr_bound(epsilon, delta, self.fpr) - self.fpr, classes)[0])

    def r2(self, cells: Sequence[Cell], saturated: float = SATURATED, seed: int = 0) -> Figure:
        """Share of the variation of log10(TPR - FPR) over cells that the law explains; see `r_squared`.

        Of cells held out it may be below 0. The same cells are excluded as in `fit`.

        Raises:
            InputError: as `usable` and `r_squared`.
        """
        used, _ = usable(cells, self.fpr, saturated)
        predicted = _design(used) @ np.array([self.b_s, self.b_c, self.b_0])
        return r_squared(_margins(used, self.fpr), predicted, used, seed)


class Coefficients(NamedTuple):
    """Of (1), with intervals."""

    b_s: Figure
    b_c: Figure
    b_0: Figure


@dataclass(frozen=True, eq=False)
class Fitted(PowerLaw):
    """A law fitted on cells.

    Attributes:
        coefficients: with intervals by the bootstrap over seeds and (S, C).
        r2_fitted: R2 on the cells fitted, which flatters: the line was chosen for them.
        used: cells fitted.
        excluded: the others.
        replicates: [B, 3], coefficients of the resamples.
    """

    coefficients: Coefficients
    r2_fitted: Figure
    used: tuple[Cell, ...]
    excluded: tuple[Excluded, ...]
    replicates: Array = field(repr=False)

    def predicted(self, examples: int, classes: int) -> Figure:
        """`predict` with the interval of the line; a new cell scatters about it by more."""
        check_size("power law", examples, classes)
        lines = _line(self.replicates.T, np.array(float(examples)), np.array(float(classes)))
        low, high = stats.interval(np.minimum(1.0, self.fpr + 10**lines))
        return self._figure(float(self.predict(examples, classes)), low, high)

    def least(self, epsilon: float, delta: float, classes: int) -> Figure:
        """`least_examples` with its interval, endless where TPR does not surely fall with S."""
        point = self.least_examples(epsilon, delta, classes)
        found = _least(self.replicates, tpr_bound(epsilon, delta, self.fpr) - self.fpr, classes)
        # Ends are values found: between a finite one and infinity nothing is read off.
        tail = (1 - stats.LEVEL) / 2
        low = float(np.quantile(found, tail, method="lower"))
        high = float(np.quantile(found, 1 - tail, method="higher"))
        return self._figure(point, 10**low, 10**high)

    def _figure(self, point: float, low: float, high: float) -> Figure:
        b_s = self.coefficients.b_s
        return Figure(point, low, high, b_s.n, b_s.seeds, b_s.method)


PAPER: dict[float, PowerLaw] = {
    0.1: PowerLaw(0.1, -0.506, 0.090, 0.314),
    0.01: PowerLaw(0.01, -0.555, 0.182, 0.083),
    0.001: PowerLaw(0.001, -0.627, 0.300, -0.173),
}
"""Published coefficients (ViT-B/16, Head), by FPR, with what is known of them.

They are from memory: the paper's text could not be had. Its table of least S at C = 2 and delta = 1e-5,
quoted by third-party notes, is theirs exactly: all twelve entries are these coefficients' results, rounded up
to two digits. That confirms b_S and b_0 + 0.301 b_C; b_C and b_0 by themselves nothing confirms, so that
other C rest on memory.
"""

PAPER_R2: dict[float, float] = {0.1: 0.952, 0.01: 0.946, 0.001: 0.930}
"""On the cells fitted. 0.930 is quoted by third-party notes; the others are from memory, unconfirmed."""

PAPER_R2_HELD_OUT = 0.790
"""On R-50, Head, by third-party notes, which name no FPR."""

PAPER_QUANTILE_SLOPES: dict[float, float] = {0.99: -0.560, 0.999: -0.569, 0.9999: -0.480, 1.0: -0.2695}
"""b_S for quantiles of TPR over examples (1: the maximum), by third-party notes. The least S that they
quote for the maximum at an FPR of 0.1 imply -0.270."""


def fit(cells: Sequence[Cell], fpr: float, saturated: float = SATURATED, seed: int = 0) -> Fitted:
    """(1) by ordinary least squares over the cells with f < TPR < `saturated`.

    Args:
        cells: TPR at `fpr`; of several seeds, each is a row.
        fpr: f.
        saturated: TPR from which a cell is left out.
        seed: of the bootstrap.

    Raises:
        InputError: as `usable`; fewer than 4 different (S, C) left, or S and C that do not vary each by
            itself.
    """
    used, excluded = usable(cells, fpr, saturated)
    design, margins = _design(used), _margins(used, fpr)
    found = regress(design, margins, used, seed)
    coefficients = Coefficients(*found.coefficients)
    b_s, b_c, b_0 = (figure.point for figure in coefficients)
    r2 = r_squared(margins, design @ np.array([b_s, b_c, b_0]), used, seed)
    left = tuple(excluded)
    return Fitted(fpr, b_s, b_c, b_0, coefficients, r2, tuple(used), left, found.replicates)


def held_out(cells: Sequence[Cell], fpr: float, saturated: float = SATURATED, seed: int = 0) -> Figure:
    """R2 of predictions for each (S, C) by a line through all the others: what the law says of new cells.

    Args:
        cells, fpr, saturated: as `fit`.
        seed: of the bootstrap over the cells judged.

    Raises:
        InputError: as `fit`, of any of the lines.
    """
    used, _ = usable(cells, fpr, saturated)
    design, margins = _design(used), _margins(used, fpr)
    sizes = [(cell.examples, cell.classes) for cell in used]
    predicted = np.empty(len(used))
    for size in dict.fromkeys(sizes):
        out = np.array([one == size for one in sizes])
        determined(design[~out], [cell for cell, left in zip(used, out, strict=True) if not left])
        line, *_ = np.linalg.lstsq(design[~out], margins[~out], rcond=None)
        predicted[out] = design[out] @ line
    return r_squared(margins, predicted, used, seed)


def predict(examples: int, classes: int, fpr: float = 0.1, laws: Mapping[float, PowerLaw] = PAPER) -> float:
    """TPR at an FPR for S examples a class and C classes, by the paper's law or your own.

    Raises:
        InputError: an FPR for which there is no law, or as `PowerLaw.predict`.
    """
    return float(_law(laws, fpr).predict(examples, classes))


def least_examples(
    epsilon: float, delta: float, fpr: float, classes: int, laws: Mapping[float, PowerLaw] = PAPER
) -> float:
    """The least examples a class for which TPR is within (epsilon, delta); see `PowerLaw.least_examples`.

    Raises:
        InputError: an FPR for which there is no law, or as there.
    """
    return _law(laws, fpr).least_examples(epsilon, delta, classes)


def _law(laws: Mapping[float, PowerLaw], fpr: float) -> PowerLaw:
    if fpr not in laws:
        raise InputError(f"power law: FPR {fpr}; allowed: {', '.join(f'{one:g}' for one in laws)}")
    return laws[fpr]


def _line(coefficients: Array, s: Array, c: Array) -> Array:
    """(1) for coefficients [3] or [3, B]."""
    b_s, b_c, b_0 = coefficients
    found: Array = b_s * np.log10(s) + b_c * np.log10(c) + b_0
    return found


def _least(coefficients: Array, margin: float, classes: int) -> Array:
    """log10 of the least S for coefficients [B, 3], from 0; infinite where a law does not fall with S."""
    b_s, b_c, b_0 = coefficients.T
    if margin <= 0:
        return np.full(len(coefficients), np.inf)
    excess = b_c * np.log10(classes) + b_0 - np.log10(margin)  # at S = 1, in decades
    falls = np.where(b_s < 0, b_s, -1.0)
    return np.where(excess <= 0, 0.0, np.where(b_s < 0, -excess / falls, np.inf))


def _design(cells: Sequence[Cell]) -> Array:
    return np.array([[np.log10(one.examples), np.log10(one.classes), 1.0] for one in cells]).reshape(-1, 3)


def _margins(cells: Sequence[Cell], fpr: float) -> Array:
    return np.log10(np.array([one.tpr for one in cells]) - fpr)
