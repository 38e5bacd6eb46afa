"""Points with 95% intervals. Every figure that is shown passes through here.

Reconstructions of one identity are not independent, nor are victims of one training seed, so what
is resampled is identities and seeds. Images are resampled only for a quantile over images, where the caller
names no identities.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mipriv.errors import InputError

LEVEL = 0.95
RESAMPLES = 4_000
CELLS = 4_000_000  # counts held at once


@dataclass(frozen=True)
class Figure:
    """A point, its 95% interval, and what it was computed from.

    Attributes:
        point: the estimate.
        low: lower end.
        high: upper end.
        n: independent units (identities, or images for a proportion).
        seeds: training seeds averaged over.
        method: how the interval was found.
    """

    point: float
    low: float
    high: float
    n: int
    seeds: int
    method: str


def proportion(successes: int, trials: int) -> Figure:
    """Clopper and Pearson's exact binomial interval (Biometrika 1934).

    Raises:
        InputError: no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise InputError(
            f"proportion: {successes} of {trials}; allowed: 0 <= successes <= trials, trials > 0"
        )
    tail = (1 - LEVEL) / 2
    # Quantiles of beta distributions; scipy.stats takes longer to import than most statistics here take.
    low = special.betaincinv(successes, trials - successes + 1, tail) if successes else 0.0
    high = special.betainccinv(successes + 1, trials - successes, tail) if successes < trials else 1.0
    return Figure(successes / trials, float(low), float(high), trials, 1, "clopper-pearson")


def mean(values: NDArray[np.float64], seed: int = 0) -> Figure:
    """Mean over seeds and identities, by the pigeonhole bootstrap (Owen, Annals of Applied Statistics 2007).

    Identities and, where there are several, seeds are resampled independently and their weights
    multiplied, which is conservative for crossed random effects. The interval is the percentile one.

    Args:
        values: [S, I], a figure a training seed and identity.
        seed: of the resampling.

    Raises:
        InputError: fewer than 2 identities, another shape, or a value that is not finite.
    """
    values = _checked(values)
    point = float(values.mean())
    low, high = _bootstrap(values, seed)
    method = "pigeonhole bootstrap"
    # Where every unit agrees (all hits, or none) resampling sees no spread: the exact interval over
    # identities, which are the independent trials, says what could still hold.
    if np.ptp(values) == 0 and values.flat[0] in (0.0, 1.0):
        exact = proportion(round(point * values.shape[1]), values.shape[1])
        low, high, method = exact.low, exact.high, exact.method
    return Figure(point, low, high, values.shape[1], values.shape[0], method)


def paired_difference(a: NDArray[np.float64], b: NDArray[np.float64], seed: int = 0) -> Figure:
    """Mean of a - b over the same seeds and identities: both [S, I]; see `mean`.

    Raises:
        InputError: the two do not pair.
    """
    if a.shape != b.shape:
        raise InputError(f"paired difference: shapes {a.shape} and {b.shape}; allowed: equal shapes")
    values = _checked(np.asarray(a) - np.asarray(b))
    point = float(values.mean())
    low, high = _bootstrap(values, seed)
    method = "paired pigeonhole bootstrap"
    if not values.any():
        reach = proportion(0, values.shape[1]).high
        low, high, method = -reach, reach, "clopper-pearson, either way"
    return Figure(point, low, high, values.shape[1], values.shape[0], method)


def gain(a: NDArray[np.float64], b: NDArray[np.float64], seed: int = 0) -> Figure:
    """Relative change of the mean, mean(a) / mean(b) - 1, over the same seeds and identities.

    Each resample draws the same seeds and identities for both means; see `mean`. The ratio is that of the
    means, not the mean of ratios, in which an identity that b hardly counts would weigh most.

    Args:
        a: [S, I].
        b: [S, I], positive on average.
        seed: of the resampling.

    Returns:
        A share: 0.25 for a quarter more.

    Raises:
        InputError: the two do not pair, or the mean of b is not above 0 in every resample.
    """
    if np.shape(a) != np.shape(b):
        raise InputError(f"gain: shapes {np.shape(a)} and {np.shape(b)}; allowed: equal shapes")
    above, below = _checked(a, "gain"), _checked(b, "gain")
    base, bases = float(below.mean()), _resampled(below, seed)
    if min(base, bases.min()) <= 0:
        raise InputError(
            f"gain: over a mean of {base:.6g}, {bases.min():.6g} in a resample; allowed: above 0"
        )
    low, high = interval(_resampled(above, seed) / bases - 1)
    point = float(above.mean()) / base - 1
    return Figure(point, low, high, above.shape[1], above.shape[0], "paired pigeonhole bootstrap")


def quantile(
    values: NDArray[np.float64], q: float, groups: NDArray[np.int64] | None = None, seed: int = 0
) -> Figure:
    """A quantile over seeds and columns together, by the pigeonhole bootstrap of `mean`.

    Between two values it is read off linearly (type 7 of Hyndman and Fan, American Statistician 1996),
    in every resample as in the sample.

    Args:
        values: [S, I], a figure a training seed and column: an image, or an identity.
        q: 0.5 for the median.
        groups: [I], whose columns are drawn together: the identity on each image. None: every column
            by itself.
        seed: of the resampling.

    Raises:
        InputError: see `mean`; or q outside [0, 1], other than a group a column, or a single group.
    """
    values = _checked(values, "quantile")
    owner = np.arange(values.shape[1]) if groups is None else np.asarray(groups)
    if owner.shape != values.shape[1:] or len(np.unique(owner)) < 2:
        raise InputError(
            f"quantile: groups of shape {owner.shape} for {values.shape[1]} columns; allowed: one a column, "
            "at least 2 different"
        )
    if not 0 <= q <= 1:
        raise InputError(f"quantile: q: {q}; allowed: from 0 to 1")
    names, owner = np.unique(owner, return_inverse=True)
    by_seed, by_group = _draws((len(values), len(names)), seed)
    # A resample holds values[s, i] as often as its seed is drawn times its group: it need not be written out.
    s, i = np.unravel_index(values.argsort(None), values.shape)
    chunk = max(1, CELLS // values.size)
    found = [
        _nth(values[s, i], by_seed[b : b + chunk, s] * by_group[b : b + chunk, owner[i]], q)
        for b in range(0, RESAMPLES, chunk)
    ]
    low, high = interval(np.concatenate(found))
    point = float(np.quantile(values, q))
    return Figure(point, low, high, len(names), len(values), "pigeonhole bootstrap")


def of_rows(
    values: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
    seed: int = 0,
) -> list[Figure]:
    """A statistic of the mean row, by the bootstrap over rows (Efron, Annals of Statistics 1979).

    Rows are resampled whole, so that columns stay together and a ratio of them has an interval too.

    Args:
        values: [n, m], a row an independent unit.
        statistic: mean rows [b, m] to figures [b, k], row by row; None: the mean row itself.
        seed: of the resampling.

    Returns:
        k figures with percentile intervals.

    Raises:
        InputError: fewer than 2 rows, another shape, or a value that is not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2 or not np.isfinite(values).all():
        raise InputError(
            f"rows: values of shape {values.shape}; allowed: [rows >= 2, columns], finite numbers"
        )
    n = len(values)
    random = np.random.Generator(np.random.PCG64(seed))
    means = np.concatenate(
        [values.mean(0)[None], random.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n @ values]
    )
    found = means if statistic is None else statistic(means)
    low, high = np.quantile(found[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    ends = zip(found[0].tolist(), low.tolist(), high.tolist(), strict=True)
    return [Figure(*figure, n, 1, "bootstrap of rows") for figure in ends]


def interval(replicates: NDArray[np.float64]) -> tuple[float, float]:
    """The percentile interval of resampled figures [B]."""
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def counts(units: int, resamples: int, random: np.random.Generator) -> NDArray[np.int64]:
    """How often each of `units` is drawn in each resample with replacement: [resamples, units]."""
    return random.multinomial(units, np.full(units, 1 / units), resamples)


def weights(shape: tuple[int, ...], seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of the pigeonhole bootstrap of values [S, I]: [RESAMPLES, S] and [RESAMPLES, I], rows summing to one.

    A single seed is not resampled. One shape and `seed` always give the same, by which figures pair.
    """
    by_seed, by_identity = (drawn / units for drawn, units in zip(_draws(shape, seed), shape, strict=True))
    return by_seed, by_identity


@functools.lru_cache(maxsize=2)  # ten thousand draws of a thousand take half a second, for arms by the dozen
def _draws(shape: tuple[int, ...], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How often each seed and each identity is drawn: [RESAMPLES, S] and [RESAMPLES, I]."""
    random = np.random.Generator(np.random.PCG64(seed))
    by_seed, by_identity = (counts(units, RESAMPLES, random) for units in shape)
    return by_seed, by_identity


def _resampled(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Means [RESAMPLES] of values [S, I]."""
    means: NDArray[np.float64] = np.einsum("bs,bi,si->b", *weights(values.shape, seed), values, optimize=True)
    return means


def _bootstrap(values: NDArray[np.float64], seed: int) -> tuple[float, float]:
    return interval(_resampled(values, seed))


def _nth(values: NDArray[np.float64], times: NDArray[np.int64], q: float) -> NDArray[np.float64]:
    """Quantiles [b] of samples that hold each of values [m], which rise, so many `times` [b, m]."""
    reached = times.cumsum(1)
    rank = q * (reached[:, -1] - 1)
    floor, ceiling = np.floor(rank), np.ceil(rank)
    below, above = (values[(reached <= end[:, None]).sum(1)] for end in (floor, ceiling))
    found: NDArray[np.float64] = below + (rank - floor) * (above - below)
    return found


def _checked(values: NDArray[np.float64], what: str = "mean") -> NDArray[np.float64]:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2:
        raise InputError(f"{what}: values of shape {values.shape}; allowed: [seeds >= 1, identities >= 2]")
    if not np.isfinite(values).all():
        raise InputError(f"{what}: a value is not finite; allowed: finite numbers")
    return values
