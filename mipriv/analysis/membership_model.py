"""The simplified model of membership vulnerability: classifiers by class means, in closed form.

Examples of class c are N(m_c, V), the m_c orthonormal; a classifier keeps S of them, and scores x of class y
by s = <x, kept mean of y>. Keeping x moves the mean of s by <x, x - m> / S, and over draws of the other
examples its variance is x'Vx / S, so that with

    Delta(x) = |<x, x - m>| / sqrt(x'Vx),    delta(x) = Delta(x) / sqrt(S),    z = Phi^-1(1 - f),

the attack that knows both laws has TPR(x) = Phi(delta(x) - z) at an FPR of f (arXiv 2402.06674, whose theorem
is the leading order). Vulnerability is the mean over x, each x with a threshold of its own.

Two designs draw the other examples. `fresh`: from the law, anew for each classifier, as the theory has it.
`half_split`: of a pool of 2S a class S are kept, as every set of shadow models does in practice. Given x, the
2S - 1 others are then drawn without replacement: sums of S of them have variance S s^2 (1 - S / (2S - 1)),
s^2 their sample variance, so that the OUT variance is that of `fresh` times (S - 1) / (2S - 1). Sums of
S - 1 of them have the same one, by which both sides are alike. Hence delta grows by sqrt((2S - 1) / (S - 1)),
above sqrt 2 and tending to it: attacks look stronger on a fixed pool than on examples drawn anew.

What that leaves out is of order 1 / S, and matters in the far tail of a small pool: s^2 varies from pool to
pool, and the mean of a half has lighter tails than a Gaussian (excess kurtosis -6 / (2S - 1)). Simulated TPR
was above the corrected form by 0%, 8% and 25% at f = 0.1, 0.01 and 0.001 for S = 32 and Delta = 6, by 1%, 3%
and 6% for S = 128.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from mipriv.errors import InputError

Array = NDArray[np.float64]
Design = Literal["fresh", "half_split"]


class Family(NamedTuple):
    """A law with location and scale, standardised: its distribution function F and the quantile F^-1."""

    cdf: Callable[[Array], Array]
    quantile: Callable[[Array], Array]


GAUSSIAN = Family(special.ndtr, special.ndtri)
LOGISTIC = Family(special.expit, special.logit)


def location_scale(shift: ArrayLike, fpr: float, family: Family = GAUSSIAN) -> Array:
    """TPR = 1 - F(F^-1(1 - f) - shift): the threshold test of two laws of one family and one scale.

    Args:
        shift: (mean of IN - mean of OUT) / scale, any shape; the test is "large is IN".
        fpr: f.
        family: of which F is.

    Raises:
        InputError: an FPR outside (0, 1).
    """
    _check_fpr(fpr)
    threshold = family.quantile(np.asarray(1 - fpr)) - np.asarray(shift, np.float64)
    return np.asarray(1 - family.cdf(threshold))


def signals(x: ArrayLike, means: ArrayLike, covariance: ArrayLike) -> Array:
    """Delta(x) = |<x, x - m>| / sqrt(x'Vx).

    Args:
        x: [N, D].
        means: [N, D], of each example's class, or [D].
        covariance: [D, D], V.

    Returns:
        [N].

    Raises:
        InputError: shapes that do not fit, or an x along which V has no variance.
    """
    rows, centre, v = (np.asarray(given, np.float64) for given in (x, means, covariance))
    if rows.ndim != 2 or v.shape != 2 * rows.shape[1:] or centre.shape not in (rows.shape, rows.shape[1:]):
        found = f"{list(rows.shape)}, {list(centre.shape)} and {list(v.shape)}"
        raise InputError(f"signals: x, means and covariance of {found}; allowed: [N, D], [N, D] and [D, D]")
    variance = ((rows @ v) * rows).sum(1)
    if (variance <= 0).any():
        raise InputError(f"signals: x'Vx is {variance.min():.3g} for an x; allowed: above 0")
    return np.asarray(np.abs((rows * (rows - centre)).sum(1)) / np.sqrt(variance))


def inflation(examples: float, design: Design = "half_split") -> float:
    """By how much a design's delta exceeds Delta / sqrt(S): 1, or sqrt((2S - 1) / (S - 1)).

    Raises:
        InputError: an unknown design, or fewer examples a class than it needs (1; half-splits 2).
    """
    if design not in get_args(Design):
        raise InputError(f"design: {design!r}; allowed: {', '.join(get_args(Design))}")
    least = 1 if design == "fresh" else 2
    if not least <= examples < math.inf:
        raise InputError(f"design {design}: {examples} examples a class; allowed: from {least}")
    return 1.0 if design == "fresh" else math.sqrt((2 * examples - 1) / (examples - 1))


def exact(
    deltas: ArrayLike,
    examples: Sequence[float],
    fpr: float,
    design: Design = "fresh",
    own_scale: bool = False,
) -> Array:
    """TPR = E_x[Phi(delta(x) - z)] at finite S.

    Args:
        deltas: [N], Delta of the examples averaged over.
        examples: [K], S.
        fpr: f.
        design: how the others are drawn.
        own_scale: IN has S - 1 other examples where OUT has S, so that under `fresh` its scale is
            sqrt((S - 1) / S) of the other: Phi((delta - z) sqrt(S / (S - 1))), exact for Gaussian examples.
            The model neglects it, which raises TPR by 8% at S = 32, f = 0.001 and Delta = 6. No matter under
            `half_split`, where the scales are equal.

    Returns:
        [K].

    Raises:
        InputError: as `inflation`; no examples, a Delta below 0, an FPR outside (0, 1), or one example a
            class with `own_scale`.
    """
    own = own_scale and design == "fresh"
    if own and min(examples, default=2) < 2:
        raise InputError(f"own scale: {min(examples)} examples a class; allowed: from 2")
    z = -special.ndtri(fpr)
    shifts = _shifts(deltas, examples, fpr, design)
    scales = [math.sqrt(s / (s - 1)) if own else 1.0 for s in examples]
    return np.array([special.ndtr((one - z) * k).mean() for one, k in zip(shifts, scales, strict=True)])


def asymptotic(deltas: ArrayLike, examples: Sequence[float], fpr: float, design: Design = "fresh") -> Array:
    """The leading order: TPR - f = E_x[delta(x)] phi(z), the law with slope -1/2. As `exact`.

    log(TPR - f) = -1/2 log S - 1/2 Phi^-1(f)^2 + log(Delta / sqrt(2 pi)) + o(1). It may exceed 1 at small S,
    and is far too low at middling S, where delta is not small: see `local_slope`.
    """
    density = _density(special.ndtri(fpr) if 0 < fpr < 1 else math.nan)
    shifts = _shifts(deltas, examples, fpr, design)
    return np.array([fpr + one.mean() * density for one in shifts])


def local_slope(deltas: ArrayLike, examples: Sequence[float], fpr: float, design: Design = "fresh") -> Array:
    """d log(TPR - f) / d log S of `exact`: -1/2 E[delta phi(z - delta)] / (TPR - f). As `exact`.

    Steeper than -1/2 until delta is small, as phi(z - delta) is above its mean between z - delta and z, and
    flatter where TPR nears 1. That of `half_split` is steeper by the factor 1 + S / ((2S - 1)(S - 1)), as the
    inflation itself falls.
    """
    z = -special.ndtri(fpr) if 0 < fpr < 1 else math.nan
    found = []
    for s, one in zip(examples, _shifts(deltas, examples, fpr, design), strict=True):
        falling = 1 + s / ((2 * s - 1) * (s - 1)) if design == "half_split" else 1.0
        margin = (special.ndtr(one - z) - fpr).mean()
        found.append(-falling / 2 * (one * _density(z - one)).mean() / margin)
    return np.array(found)


def corrected(tpr: ArrayLike, examples: float, fpr: float) -> Array:
    """What TPR measured by half-splits of a pool would be on examples drawn anew; report both.

    Phi(delta / inflation - z), delta = Phi^-1(TPR) + z. Exact for an example's own TPR; for an average over
    examples only where they are alike. A TPR of at most f is left as it is.

    Args:
        tpr: any shape, 0 to 1.
        examples: S of the half kept.
        fpr: f.

    Raises:
        InputError: as `inflation`, or a rate out of range.
    """
    _check_fpr(fpr)
    rates = np.asarray(tpr, np.float64)
    if not ((rates >= 0) & (rates <= 1)).all():
        raise InputError("corrected: a TPR outside 0 to 1; allowed: 0 to 1")
    shift = special.ndtri(rates) - special.ndtri(fpr)
    return np.where(rates > fpr, location_scale(shift / inflation(examples), fpr), rates)


def _shifts(deltas: ArrayLike, examples: Sequence[float], fpr: float, design: Design) -> list[Array]:
    """delta(x) [N] at each S."""
    _check_fpr(fpr)
    values = np.asarray(deltas, np.float64)
    if values.ndim != 1 or not len(values) or not (values >= 0).all():
        raise InputError(f"deltas: shape {list(values.shape)}; allowed: [N >= 1], none below 0")
    return [values * inflation(s, design) / math.sqrt(s) for s in examples]


def _density(at: ArrayLike) -> Array:
    return np.asarray(np.exp(-(np.asarray(at, np.float64) ** 2) / 2) / math.sqrt(2 * math.pi))


def _check_fpr(fpr: float) -> None:
    if not 0 < fpr < 1:
        raise InputError(f"FPR: {fpr}; allowed: between 0 and 1")
