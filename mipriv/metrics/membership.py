"""How well scores tell members from others, and which records they tell.

Scores are [T, N] of T targets and N records, higher for members; one that is NaN is left out. Rates are taken
with ties whole: a threshold counts as positive every score above it, and no part of a group of equal ones.

A rate of false positives that would rest on fewer than 10 of them, over distinct records that are not
members, is refused: what many models say of one record are not independent trials.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mipriv import stats
from mipriv.errors import InputError
from mipriv.metrics import thresholds
from mipriv.metrics.thresholds import Array, Counts, Mask
from mipriv.stats import Figure

EXPECTED = 10  # false positives
ROUNDING = 1e-13  # of a standard deviation, to the largest value


@dataclass(frozen=True)
class Detection:
    """True positives at a rate of false positives.

    Attributes:
        rate: of false positives, as asked for.
        achieved: the largest rate that the scores reach without exceeding it.
        tpr: with its interval.
        distinct: records that are not members of every target.
        left_out: scores that were NaN.
        again: TPR in each resample of `pooled`; of the others, empty.
    """

    rate: float
    achieved: float
    tpr: Figure
    distinct: int
    left_out: int
    again: tuple[float, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Curve:
    """A receiver operating characteristic, from (0, 0) to (1, 1), a point a distinct score.

    Attributes:
        fpr: [k], rising.
        tpr: [k], rising.
        left_out: scores that were NaN.
    """

    fpr: Array
    tpr: Array
    left_out: int


def unresolved(distinct: int, rate: float) -> str | None:
    """Why a rate of false positives cannot be told from so many distinct non-members; None: it can."""
    if distinct * rate >= EXPECTED - 1e-9:
        return None
    expected = f"{distinct * rate:.3g} false positives expected of {distinct} distinct non-members"
    return f"FPR {rate:g}: {expected}; allowed: {EXPECTED} or more"


def roc(scores: Tensor, members: Tensor) -> Curve:
    """The curve of all scores together, of one target or of several, both of any equal shape.

    Raises:
        InputError: shapes that differ, or no member or no other with a score.
    """
    values, inside, kept = _checked(scores, members)
    values, inside = values[kept], inside[kept]
    order = np.argsort(-values, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(values[order])), len(order) - 1)
    hits = inside[order].cumsum()[ends]
    false = ends + 1 - hits
    fpr, tpr = (np.concatenate([[0.0], part / part[-1]]) for part in (false, hits))
    return Curve(fpr, tpr, int((~kept).sum()))


def auc(scores: Tensor, members: Tensor) -> float:
    """Probability that a member's score is above another's, ties half (Mann and Whitney 1947); see `roc`."""
    values, inside, kept = _checked(scores, members)
    others, own = np.sort(values[kept & ~inside]), values[kept & inside]
    below = np.searchsorted(others, own).sum() + np.searchsorted(others, own, "right").sum()
    return float(below / 2 / len(others) / len(own))


def area(scores: Tensor, members: Tensor, seed: int = 0, resamples: int = thresholds.RESAMPLES) -> Figure:
    """`auc` of one target, with an interval over its records (Efron and Tibshirani 1993, section 6.4).

    Members and others are resampled apart, as many of each as there are, which is as they were collected.

    Args:
        scores: [N].
        members: [N] bool.
        seed: of the resampling.
        resamples: how many.

    Raises:
        InputError: see `roc`.
    """
    values, inside, kept = _checked(scores, members)
    levels = np.unique(values[kept], return_inverse=True)[1]
    random = np.random.Generator(np.random.PCG64(seed))
    own, others = (_levels(levels[side], levels.max() + 1) for side in (inside[kept], ~inside[kept]))
    again = np.array(
        [
            _above(random.multinomial(n, p), random.multinomial(m, q))
            for (n, p), (m, q) in [(own, others)] * resamples
        ]
    )
    low, high = stats.interval(again)
    point = auc(scores, members)
    return Figure(point, min(low, point), max(high, point), own[0] + others[0], 1, "bootstrap of records")


def _levels(levels: Counts, count: int) -> tuple[int, Array]:
    """How many there are, and the share of each level."""
    held = np.bincount(levels, minlength=count)
    return len(levels), held / len(levels)


def _above(own: Counts, others: Counts) -> float:
    """`auc` of counts a level, from the lowest."""
    below = np.cumsum(others) - others / 2
    return float(own @ below / own.sum() / others.sum())


def per_target(scores: Tensor, members: Tensor, rate: float) -> list[Detection]:
    """Each target by its own threshold, with Clopper and Pearson's interval over its members.

    Args:
        scores: [T, N].
        members: [T, N] bool.
        rate: of false positives.

    Raises:
        InputError: see `roc`, of any target; a rate that is not between 0 and 1, or `unresolved`.
    """
    found = []
    for row, own in zip(*_rows(scores, members), strict=True):
        values, inside, kept = _checked(row, own)
        others, hits = values[kept & ~inside], values[kept & inside]
        _resolved(len(others), rate)
        threshold, achieved = thresholds.threshold(others, rate)
        tpr = stats.proportion(int((hits > threshold).sum()), len(hits))
        found.append(Detection(rate, achieved, tpr, len(others), int((~kept).sum())))
    return found


def pooled(
    scores: Tensor, members: Tensor, rate: float, seed: int = 0, resamples: int | None = None
) -> Detection:
    """All targets by one threshold, with an interval over targets and records together.

    The pigeonhole bootstrap (see `stats.mean`) draws targets and records independently, the threshold anew in
    each resample; a single target is not resampled. Scores are taken as they are: in leave-one-out they are
    not computed again from the references drawn. Where no resample differs, the interval is Clopper and
    Pearson's over distinct records.

    Args:
        scores: [T, N].
        members: [T, N] bool.
        rate: of false positives.
        seed: of the resampling.
        resamples: how many; None: `thresholds.RESAMPLES`.

    Raises:
        InputError: see `per_target`.
    """
    values, inside, kept = _checked(*_rows(scores, members))
    outside = kept & ~inside
    inside = kept & inside
    distinct = int(outside.any(0).sum())
    _resolved(distinct, rate)
    threshold, achieved = thresholds.threshold(values[outside], rate)
    point = float((values[inside] > threshold).mean())
    again = thresholds.pooled(values, inside, outside, rate, seed, resamples)
    tpr = _figure(point, again, int(inside.any(0).sum()), len(values))
    return Detection(rate, achieved, tpr, distinct, int((~kept).sum()), tuple(again.tolist()))


def together(found: Sequence[Detection]) -> Figure:
    """Mean TPR over designs (seeds, of pools and halves) that `pooled` has measured at one rate.

    Each design is resampled by itself; designs are not resampled, and count in `seeds`. n is the least number
    of distinct members of one.

    Raises:
        InputError: none, of different rates or numbers of resamples.
    """
    kinds = {(one.rate, len(one.again)) for one in found}
    if len(kinds) != 1:
        raise InputError(f"designs: {len(found)} of {len(kinds)} kinds; allowed: one or more, of one kind")
    point = float(np.mean([one.tpr.point for one in found]))
    again = np.mean([one.again for one in found], axis=0)
    records = min(one.tpr.n for one in found)
    figure = _figure(point, again, records, len(found))
    return figure if len(found) > 1 else dataclasses.replace(found[0].tpr, seeds=1)


def exact(scores: Tensor, members: Tensor, rate: float) -> Detection:
    """As `pooled`, with Clopper and Pearson's interval over all pairs of target and record.

    What is published for concatenated scores. Too narrow: pairs of one record, or one target, are no
    independent trials.
    """
    values, inside, kept = _checked(*_rows(scores, members))
    distinct = int((kept & ~inside).any(0).sum())
    _resolved(distinct, rate)
    threshold, achieved = thresholds.threshold(values[kept & ~inside], rate)
    hits = values[kept & inside] > threshold
    tpr = stats.proportion(int(hits.sum()), len(hits))
    return Detection(rate, achieved, tpr, distinct, int((~kept).sum()))


def per_record(scores: Tensor, members: Tensor, rate: float) -> Tensor:
    """TPR of each record over targets, by a threshold of its own: [N] float64.

    NaN where no target has the record, or so few lack it (fewer than 1 / rate) that their highest score would
    be the threshold whatever the rate.

    Args:
        scores: [T, N].
        members: [T, N] bool.
        rate: of false positives, a record.

    Raises:
        InputError: shapes that differ, or a rate that is not between 0 and 1.
    """
    _between(rate)
    values, inside, kept = _arrays(*_rows(scores, members))
    return torch.from_numpy(_each(values, kept & inside, kept & ~inside, rate)[0])


def calibrated(scores: Tensor, members: Tensor, rate: float, seed: int = 0) -> Detection:
    """Mean of `per_record` over the records that have one, with an interval over records (see `stats.mean`).

    Unlike with one threshold, every record meets the same rate of false positives. Targets are not
    resampled: a target drawn twice repeats its score in a record's tail, which moves the thresholds of few
    targets so much that the interval would miss the point. What few targets leave uncertain of a record
    is in the spread between records.

    Raises:
        InputError: see `per_target`; or no record with a figure.
    """
    values, inside, kept = _checked(*_rows(scores, members))
    _between(rate)
    outside = kept & ~inside
    own, false = _each(values, kept & inside, outside, rate)
    some = ~np.isnan(own)
    if not some.any():
        most = int(outside.sum(0).max())
        raise InputError(f"FPR {rate:g} a record: {most} targets lack one; allowed: {1 / rate:g} or more")
    _resolved(int(some.sum()), rate)
    tpr = dataclasses.replace(stats.mean(own[some][None], seed), seeds=len(values))
    return Detection(rate, float(false[some].mean()), tpr, int(some.sum()), int((~kept).sum()))


def separation(statistic: Tensor, members: Tensor) -> Tensor:
    """How far training on a record moves what models say of it: (mu_in - mu_out) / sigma, [N] float64.

    Sigma is the standard deviation within both sides together, unbiased. For two normal laws that differ by
    their means alone, TPR = Phi(this - Phi^-1(1 - FPR)). NaN where a side has no model, both together fewer
    than three, or no spread.

    Args:
        statistic: [M, N], before any reference is looked at: log odds, which `Loss` returns.
        members: [M, N] bool.

    Raises:
        InputError: shapes that differ.
    """
    values, inside, kept = _arrays(*_rows(statistic, members))
    held = np.where(kept, values, 0)
    sides = (kept & inside, kept & ~inside)
    count = np.stack([side.sum(0) for side in sides])
    with np.errstate(invalid="ignore", divide="ignore"):
        means = [(held * side).sum(0) / of for side, of in zip(sides, count, strict=True)]
        apart = [np.where(side, held - mean, 0) for side, mean in zip(sides, means, strict=True)]
        sigma = np.sqrt(sum(np.square(part).sum(0) for part in apart) / (count.sum(0) - 2))
        found = (means[0] - means[1]) / sigma
    enough = (count.min(0) > 0) & (count.sum(0) > 2) & (sigma > ROUNDING * np.abs(held).max(0))
    return torch.from_numpy(np.where(enough, found, np.nan))


def _each(values: Array, inside: Mask, outside: Mask, rate: float) -> tuple[Array, Array]:
    """TPR and FPR of each record [N], NaN where the threshold is the highest score whatever the rate."""
    few = thresholds.allowed(outside.sum(0), rate) < 1
    tpr, fpr = thresholds.per_record(values, inside, outside, rate)
    return np.where(few, np.nan, tpr), fpr


def _figure(point: float, again: Array, records: int, targets: int) -> Figure:
    again = again[~np.isnan(again)]
    if not len(again) or np.ptp(again) == 0:
        lone = stats.proportion(round(point * records), records)
        return Figure(point, min(lone.low, point), max(lone.high, point), records, targets, lone.method)
    low, high = stats.interval(again)
    return Figure(point, low, high, records, targets, "pigeonhole bootstrap")


def _between(rate: float) -> None:
    if not 0 < rate < 1:
        raise InputError(f"FPR: {rate}; allowed: above 0, below 1")


def _resolved(distinct: int, rate: float) -> None:
    _between(rate)
    why = unresolved(distinct, rate)
    if why:
        raise InputError(why)


def _rows(scores: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    if scores.ndim != 2:
        raise InputError(f"scores: {list(scores.shape)}; allowed: [targets, records]")
    return scores, members


def _arrays(scores: Tensor, members: Tensor) -> tuple[Array, Mask, Mask]:
    """Scores, whether they are of members, and which are kept."""
    if members.shape != scores.shape or members.dtype != torch.bool:
        found = f"{members.dtype} {list(members.shape)}"
        raise InputError(f"members: {found}; allowed: bool {list(scores.shape)}, as the scores")
    values = scores.detach().cpu().double().numpy()
    return values, members.cpu().numpy(), ~np.isnan(values)


def _checked(scores: Tensor, members: Tensor) -> tuple[Array, Mask, Mask]:
    values, inside, kept = _arrays(scores, members)
    own, others = int((kept & inside).sum()), int((kept & ~inside).sum())
    if not own or not others:
        raise InputError(f"scores: of {own} members and {others} others; allowed: 1 or more of each")
    return values, inside, kept
