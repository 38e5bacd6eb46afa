"""Rates of true positives at a rate of false positives, of scores whose targets and records are resampled.

With ties whole the threshold is the score of the first false positive too many, and what counts as positive
is above it. So a resample needs the sorted scores only as far down as that.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipriv import stats

RESAMPLES = 1_000  # each walks through sorted scores: with stats.RESAMPLES a table would take minutes
MARGIN = 1_000  # scores below where a threshold is expected

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Counts = NDArray[np.integer[Any]]


def allowed(others: Array | Counts | int, rate: float) -> Counts:
    """False positives that a rate allows among so many non-members."""
    found: Counts = np.floor(np.asarray(others) * rate + 1e-9).astype(np.int64)
    return found


def threshold(others: Array, rate: float) -> tuple[float, float]:
    """Above which no more of the scores [n] of non-members lie than `rate`; and the share that does."""
    most = int(allowed(len(others), rate))
    if most >= len(others):
        return -math.inf, 1.0
    value = float(np.partition(others, len(others) - 1 - most)[len(others) - 1 - most])
    return value, float((others > value).mean())


def per_record(values: Array, inside: Mask, outside: Mask, rate: float) -> tuple[Array, Array]:
    """TPR and FPR [N] of each record by a threshold of its own; see `pooled`. NaN of none."""
    falling = -np.sort(np.where(outside, -values, np.inf), axis=0)
    ends = np.concatenate([falling, np.full((1, falling.shape[1]), -np.inf)])
    cut = np.take_along_axis(ends, allowed(outside.sum(0), rate)[None], 0)
    with np.errstate(invalid="ignore"):
        tpr, fpr = ((kind & (values > cut)).sum(0) / kind.sum(0) for kind in (inside, outside))
    return tpr, fpr


def drawn(shape: tuple[int, int], seed: int, resamples: int, cells: int) -> Iterator[tuple[Counts, Counts]]:
    """How often targets [b, T] and records [b, N] are in each resample, some resamples at a time."""
    random = np.random.Generator(np.random.PCG64(seed))
    by_target, by_record = (stats.counts(units, resamples, random).astype(np.int32) for units in shape)
    step = max(1, stats.CELLS // max(1, cells))
    for first in range(0, resamples, step):
        yield by_target[first : first + step], by_record[first : first + step]


def pooled(
    values: Array, inside: Mask, outside: Mask, rate: float, seed: int, resamples: int | None = None
) -> Array:
    """TPR by one threshold for all, in each resample: [resamples].

    Args:
        values: [T, N] scores.
        inside: [T, N], which of them are of members.
        outside: [T, N], which are of others.
        rate: of false positives.
        seed: of the resampling.
        resamples: how many; None: `RESAMPLES`.

    Returns:
        NaN where a resample has no member or no other.
    """
    own, others = _Falling(values, inside), _Falling(values, outside)
    reach = min(len(others.values), math.ceil(3 * rate * len(others.values)) + MARGIN)
    found, shape = [], (values.shape[0], values.shape[1])
    for by_target, by_record in drawn(shape, seed, resamples or RESAMPLES, 2 * reach):
        total = others.weight(by_target, by_record)
        first = others.first_beyond(allowed(total, rate), by_target, by_record, reach)
        cut = np.append(others.values, -np.inf)[first]
        hits = own.above(cut, by_target, by_record)
        with np.errstate(invalid="ignore"):
            share = hits / own.weight(by_target, by_record)
        found.append(np.where(total > 0, share, np.nan))
    return np.concatenate(found)


class _Falling:
    """Scores of one kind, from the highest."""

    def __init__(self, values: Array, kind: Mask) -> None:
        self._kind = kind.astype(np.float64)
        targets, records = np.nonzero(kind)
        order = np.argsort(values[kind])[::-1]  # equal scores in any order: a cut counts none of them or all
        self._targets, self._records = targets[order], records[order]
        self.values: Array = values[kind][order]

    def weight(self, by_target: Counts, by_record: Counts) -> Array:
        """All of them in each resample, [b]."""
        total: Array = ((by_target @ self._kind) * by_record).sum(1)
        return total

    def first_beyond(self, most: Counts, by_target: Counts, by_record: Counts, reach: int) -> Counts:
        """Place [b] of the first that is one more than `most` [b]; their number where there is none."""
        while True:
            first: Counts = (self._running(by_target, by_record, reach) <= most[:, None]).sum(1)
            if reach == len(self.values) or (first < reach).all():
                return first
            reach = len(self.values)

    def above(self, cut: Array, by_target: Counts, by_record: Counts) -> Counts:
        """How many are above the cut [b], in each resample."""
        places = len(self.values) - np.searchsorted(self.values[::-1], cut, "right")
        running = self._running(by_target, by_record, int(places.max()))
        running = np.concatenate([np.zeros((len(cut), 1), running.dtype), running], 1)
        hits: Counts = np.take_along_axis(running, places[:, None], 1)[:, 0]
        return hits

    def _running(self, by_target: Counts, by_record: Counts, reach: int) -> Counts:
        weights = by_target[:, self._targets[:reach]] * by_record[:, self._records[:reach]]
        return np.cumsum(weights, 1, out=weights)  # narrow integers: numpy would widen them
