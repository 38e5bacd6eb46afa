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
from mipriv.metrics.thresholds import Array, Mask
from mipriv.stats import Figure

EXPECTED = 10  # false positives


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
    values, inside, kept = checked(scores, members)
    values, inside = values[kept], inside[kept]
    order = np.argsort(-values, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(values[order])), len(order) - 1)
    hits = inside[order].cumsum()[ends]
    false = ends + 1 - hits
    fpr, tpr = (np.concatenate([[0.0], part / part[-1]]) for part in (false, hits))
    return Curve(fpr, tpr, int((~kept).sum()))


def auc(scores: Tensor, members: Tensor) -> float:
    """Probability that a member's score is above another's, ties half (Mann and Whitney 1947); see `roc`."""
    values, inside, kept = checked(scores, members)
    others, own = np.sort(values[kept & ~inside]), values[kept & inside]
    below = np.searchsorted(others, own).sum() + np.searchsorted(others, own, "right").sum()
    return float(below / 2 / len(others) / len(own))


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
    for row, own in zip(*rows(scores, members), strict=True):
        values, inside, kept = checked(row, own)
        others, hits = values[kept & ~inside], values[kept & inside]
        resolved(len(others), rate)
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
    values, inside, kept = checked(*rows(scores, members))
    outside = kept & ~inside
    inside = kept & inside
    distinct = int(outside.any(0).sum())
    resolved(distinct, rate)
    threshold, achieved = thresholds.threshold(values[outside], rate)
    point = float((values[inside] > threshold).mean())
    again = thresholds.pooled(values, inside, outside, rate, seed, resamples)
    tpr = _figure(point, again, int(inside.any(0).sum()), len(values))
    return Detection(rate, achieved, tpr, distinct, int((~kept).sum()), tuple(again.tolist()))


def together(found: Sequence[Detection], seed: int = 0) -> Figure:
    """Mean TPR over designs (seeds, of pools and halves) that `pooled` has measured at one rate.

    Designs are resampled, too: a resample draws them with replacement, and of each that is drawn one of its
    own resamples. n is the least number of distinct members of one.

    Args:
        found: a design each.
        seed: of the resampling.

    Raises:
        InputError: none, of different rates or numbers of resamples.
    """
    kinds = {(one.rate, len(one.again)) for one in found}
    if len(kinds) != 1:
        raise InputError(f"designs: {len(found)} of {len(kinds)} kinds; allowed: one or more, of one kind")
    point = float(np.mean([one.tpr.point for one in found]))
    if len(found) == 1:
        return dataclasses.replace(found[0].tpr, seeds=1)
    held = np.array([one.again for one in found])
    random = np.random.Generator(np.random.PCG64(seed))
    designs, inner = (random.integers(units, size=(stats.RESAMPLES, len(found))) for units in held.shape)
    records = min(one.tpr.n for one in found)
    return _figure(point, held[designs, inner].mean(1), records, len(found))


def exact(scores: Tensor, members: Tensor, rate: float) -> Detection:
    """As `pooled`, with Clopper and Pearson's interval over all pairs of target and record.

    What is published for concatenated scores. Too narrow: pairs of one record, or one target, are no
    independent trials.
    """
    values, inside, kept = checked(*rows(scores, members))
    distinct = int((kept & ~inside).any(0).sum())
    resolved(distinct, rate)
    threshold, achieved = thresholds.threshold(values[kept & ~inside], rate)
    hits = values[kept & inside] > threshold
    tpr = stats.proportion(int(hits.sum()), len(hits))
    return Detection(rate, achieved, tpr, distinct, int((~kept).sum()))


def _figure(point: float, again: Array, records: int, targets: int) -> Figure:
    again = again[~np.isnan(again)]
    if not len(again) or np.ptp(again) == 0:
        lone = stats.proportion(round(point * records), records)
        return Figure(point, min(lone.low, point), max(lone.high, point), records, targets, lone.method)
    low, high = stats.interval(again)
    return Figure(point, low, high, records, targets, "pigeonhole bootstrap")


def between(rate: float) -> None:
    """Refuse a rate that is not between 0 and 1."""
    if not 0 < rate < 1:
        raise InputError(f"FPR: {rate}; allowed: above 0, below 1")


def resolved(distinct: int, rate: float) -> None:
    """Refuse a rate that is `unresolved`."""
    between(rate)
    why = unresolved(distinct, rate)
    if why:
        raise InputError(why)


def rows(scores: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Both, where scores are [targets, records].

    Raises:
        InputError: another shape.
    """
    if scores.ndim != 2:
        raise InputError(f"scores: {list(scores.shape)}; allowed: [targets, records]")
    return scores, members


def arrays(scores: Tensor, members: Tensor) -> tuple[Array, Mask, Mask]:
    """Scores, whether they are of members, and which are kept."""
    if members.shape != scores.shape or members.dtype != torch.bool:
        found = f"{members.dtype} {list(members.shape)}"
        raise InputError(f"members: {found}; allowed: bool {list(scores.shape)}, as the scores")
    values = scores.detach().cpu().double().numpy()
    return values, members.cpu().numpy(), ~np.isnan(values)


def checked(scores: Tensor, members: Tensor) -> tuple[Array, Mask, Mask]:
    """As `arrays`; refuses scores of no member or of no other."""
    values, inside, kept = arrays(scores, members)
    own, others = int((kept & inside).sum()), int((kept & ~inside).sum())
    if not own or not others:
        raise InputError(f"scores: of {own} members and {others} others; allowed: 1 or more of each")
    return values, inside, kept
