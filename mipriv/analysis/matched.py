"""Attack accuracy at matched natural accuracy: the defences' trade-off curves read at one level.

Two defences at their own strengths differ in what they cost as well as in what they stop; a rank of
them means something at equal natural accuracy only. Figures resample training seeds and identities
(`stats.mean`), natural and attack accuracy of every point with the same weights.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mipriv import stats
from mipriv.errors import InputError

# Means of the same numbers in another order differ by less; accuracies by far more.
DIGITS = 12
METHOD = "pigeonhole bootstrap"


class Point(NamedTuple):
    """A defence at one strength: accuracies, 0 to 1, a training seed and identity.

    Attributes:
        natural: [S, I], of the victim on the identity's test images.
        attack: [S, I], of the attack on that identity.
    """

    natural: NDArray[np.float64]
    attack: NDArray[np.float64]


Curve = Sequence[Point]


def at(curve: Curve, level: float, seed: int = 0) -> stats.Figure | None:
    """Attack accuracy where the defence leaves a natural accuracy of `level`.

    Linear between neighbours in mean natural accuracy. Of points with the same, the one with the lowest
    attack accuracy counts, as a defender who pays the same picks it.

    In every resample the curve is ordered and read anew at the same level. Where the level then lies beyond
    the curve, the curve's end counts: dropping those resamples would keep the ones with the people that are
    easiest to recognise, and the slope beyond an end is unknown. `method` says in how many that was so;
    there the interval holds the attack's spread, but not what the natural accuracy's would add.

    Args:
        curve: points of one defence over strengths, in any order; the undefended victim may be one.
        level: natural accuracy, taken as given.
        seed: of the resampling.

    Returns:
        The figure, or None where the level lies outside the natural accuracies of the curve.

    Raises:
        InputError: no points, shapes that differ, or values that `stats.mean` refuses.
    """
    natural, attack = _stacked(curve)
    point = _read(natural, attack, level)
    if point is None:
        return None
    read, beyond = _replicates(natural, attack, level, seed)
    method = METHOD + _reported(beyond)
    low, high = stats.interval(read)
    identities = natural.shape[2]
    if np.ptp(read) == 0 and point in (0.0, 1.0):  # as in stats.mean
        exact = stats.proportion(round(point) * identities, identities)
        low, high, method = exact.low, exact.high, exact.method
    return stats.Figure(point, low, high, identities, natural.shape[1], method)


def difference(curve_a: Curve, curve_b: Curve, level: float, seed: int = 0) -> stats.Figure | None:
    """Attack accuracy of a less that of b at one natural accuracy, paired by seeds and identities; see `at`.

    Returns:
        The figure, or None where either curve does not reach the level.

    Raises:
        InputError: as `at`, or curves that do not pair.
    """
    a, b = _stacked(curve_a), _stacked(curve_b)
    if a[0].shape[1:] != b[0].shape[1:]:
        found = f"{a[0].shape[1:]} and {b[0].shape[1:]}"
        raise InputError(f"matched difference: seeds and identities {found}; allowed: equal numbers")
    points = _read(*a, level), _read(*b, level)
    if points[0] is None or points[1] is None:
        return None
    (read_a, beyond_a), (read_b, beyond_b) = (_replicates(*side, level, seed) for side in (a, b))
    replicates, identities = read_a - read_b, a[0].shape[2]
    point, method = points[0] - points[1], f"paired {METHOD}{_reported(beyond_a | beyond_b)}"
    low, high = stats.interval(replicates)
    if not replicates.any() and point == 0:  # as in stats.paired_difference
        reach = stats.proportion(0, identities).high
        low, high, method = -reach, reach, "clopper-pearson, either way"
    return stats.Figure(point, low, high, identities, a[0].shape[1], method)


def common_level(curves: Sequence[Curve]) -> float:
    """The highest natural accuracy that all curves reach: the least of their highest.

    A curve that does not go down to it is more accurate at each of its strengths; `at` then returns None.

    Raises:
        InputError: no curves, or as `at`.
    """
    if not curves:
        raise InputError("common level: 0 curves; allowed: at least 1")
    return min(float(_means(_stacked(curve)[0]).max()) for curve in curves)


def gain(none: Point, defended: Point, seed: int = 0) -> stats.Figure | None:
    """Delta = (att_none - att_def) / (acc_none - acc_def): attack accuracy lost a natural accuracy paid.

    The ratio of the papers on TL-DMI and MIDRE. It has no meaning for a defence that costs nothing, and
    changes sign with one that helps: withheld where the cost's interval is not wholly above zero.

    Args:
        none: the undefended victim.
        defended: the same seeds and identities.
        seed: of the resampling.

    Returns:
        The figure, by percentiles of the paired pigeonhole bootstrap, or None.

    Raises:
        InputError: the two do not pair, or as `at`.
    """
    natural, attack = _stacked([none, defended])
    cost = stats.paired_difference(natural[0], natural[1], seed)
    if cost.low <= 0:
        return None
    paid, lost = (_resampled(side[:1] - side[1:], seed)[:, 0] for side in (natural, attack))
    # The few resamples in which nothing is paid lie beyond every finite gain, on the side of what was lost.
    ratios = np.copysign(np.inf, lost)
    np.divide(lost, paid, out=ratios, where=paid > 0)
    low, high = stats.interval(ratios)
    if not np.isfinite([low, high]).all():
        return None
    point = float((attack[0] - attack[1]).mean()) / cost.point
    return stats.Figure(point, low, high, cost.n, cost.seeds, f"paired {METHOD}")


def excess(own: Point, curve: Curve, seed: int = 0) -> stats.Figure | None:
    """How much more than a curve a point has at the point's own natural accuracy: a / curve(natural) - 1.

    For errors, of which a defender wants much: `attack` may be any figure above 0, and of points with the
    same natural accuracy the one with the lowest counts. In every resample the accuracy too is read anew:
    the point and the curve are harder or easier together.

    Args:
        own: the point.
        curve: points of the same seeds and identities.
        seed: of the resampling.

    Returns:
        The relative difference, or None where the point's accuracy lies outside those of the curve. `method`
        says in how many resamples it did, where the curve's end counts.

    Raises:
        InputError: as `at`, the two do not pair, or a mean that is not above 0.
    """
    natural, figures = _stacked([own, *curve])
    if (figures.mean((1, 2)) <= 0).any():
        raise InputError("matched excess: a mean is not above 0; allowed: figures above 0")
    base = _read(natural[1:], figures[1:], float(_means(natural)[0]))
    if base is None:
        return None
    x, y = _resampled(natural, seed), _resampled(figures, seed)
    read = np.array([_interpolated(n[1:], f[1:], n[0]) for n, f in zip(x, y, strict=True)])
    level, rest = x[:, 0].round(DIGITS), x[:, 1:].round(DIGITS)
    beyond = (level < rest.min(1)) | (level > rest.max(1))
    low, high = stats.interval(y[:, 0] / read - 1)
    point, method = float(_means(figures)[0]) / base - 1, f"paired {METHOD}{_reported(beyond)}"
    return stats.Figure(point, low, high, natural.shape[2], natural.shape[1], method)


def _read(natural: NDArray[np.float64], attack: NDArray[np.float64], level: float) -> float | None:
    """Of arrays [P, S, I], the curve of their means at the level; None where it does not reach."""
    x, y = _means(natural), _means(attack)
    if not x.min().round(DIGITS) <= round(level, DIGITS) <= x.max().round(DIGITS):
        return None
    return _interpolated(x, y, level)


def _replicates(
    natural: NDArray[np.float64], attack: NDArray[np.float64], level: float, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The curve at the level in each resample, and whether the level lay beyond it: [RESAMPLES] each."""
    x, y = _resampled(natural, seed), _resampled(attack, seed)
    read = np.array([_interpolated(*row, level) for row in zip(x, y, strict=True)])
    x, level = x.round(DIGITS), round(level, DIGITS)
    return read, (level < x.min(1)) | (level > x.max(1))


def _interpolated(x: NDArray[np.float64], y: NDArray[np.float64], level: float) -> float:
    """Linear between points x, y [P] and constant beyond them; of points of one x the lowest y."""
    x = x.round(DIGITS)
    order = np.lexsort((y, x))
    x, first = np.unique(x[order], return_index=True)
    return float(np.interp(round(level, DIGITS), x, y[order][first]))


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([point.mean() for point in values])


def _resampled(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Means of values [P, S, I] under the weights of the bootstrap: [RESAMPLES, P]."""
    by_seed, by_identity = stats.weights(values.shape[1:], seed)
    return np.asarray(np.einsum("bs,bi,psi->bp", by_seed, by_identity, values, optimize=True))


def _reported(beyond: NDArray[np.bool_]) -> str:
    return f", at the curve's end in {beyond.mean():.1%} of resamples" if beyond.any() else ""


def _stacked(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Natural and attack accuracies of all points: [P, S, I] each."""
    shapes = sorted({np.shape(values) for point in curve for values in point})
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][0] < 1 or shapes[0][1] < 2:
        allowed = "one shape [seeds >= 1, identities >= 2] for all points"
        raise InputError(f"curve: {len(curve)} points of shapes {shapes}; allowed: {allowed}")
    natural, attack = (np.array([point[i] for point in curve], dtype=np.float64) for i in (0, 1))
    if not (np.isfinite(natural).all() and np.isfinite(attack).all()):
        raise InputError("curve: a value is not finite; allowed: finite numbers")
    return natural, attack
