"""Membership record by record: the rate at which each is found, and how far training on it moves models.

Scores are those of `mipriv.metrics.membership`, [T, N] of T targets and N records, higher for members; one
that is NaN is left out.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from mipriv import stats
from mipriv.errors import InputError
from mipriv.metrics import thresholds
from mipriv.metrics.membership import Detection, arrays, between, checked, resolved, rows
from mipriv.metrics.thresholds import Array, Mask

ROUNDING = 1e-13  # of a standard deviation, to the largest value


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
    between(rate)
    values, inside, kept = arrays(*rows(scores, members))
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
    values, inside, kept = checked(*rows(scores, members))
    between(rate)
    outside = kept & ~inside
    own, false = _each(values, kept & inside, outside, rate)
    some = ~np.isnan(own)
    if not some.any():
        most = int(outside.sum(0).max())
        raise InputError(f"FPR {rate:g} a record: {most} targets lack one; allowed: {1 / rate:g} or more")
    resolved(int(some.sum()), rate)
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
    values, inside, kept = arrays(*rows(statistic, members))
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
