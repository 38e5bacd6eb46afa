"""Gradient norms of single examples at a linear head, and how well they rank examples by vulnerability.

The norm at the end of training predicts who is vulnerable (arXiv 2402.06674, abstracts of versions 1 and 2).
For a head no gradient need be taken: that of the cross-entropy of one example is the outer product of p - e_y
and (x, 1), whose norm is the product of theirs.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mipriv import stats
from mipriv.errors import InputError
from mipriv.stats import Figure

Array = NDArray[np.float64]


def gradient_norms(logits: Tensor, features: Tensor, labels: Tensor, bias: bool = True) -> Tensor:
    """|p - e_y| sqrt(|x|^2 + 1): the norm of the gradient of -log p_y in a head's weights and bias.

    p_y - 1 is minus the sum of the other probabilities, so that it keeps its digits where p_y rounds to 1.

    Args:
        logits: [..., N, C], of models over the first axes: [M, N, C] of M of them.
        features: [N, D], what the heads are given.
        labels: [N] int64.
        bias: False: heads without one, |p - e_y| |x|.

    Returns:
        [..., N] float64, of the sum over examples; divide by N for the share of a mean loss.

    Raises:
        InputError: shapes that do not fit, or a label that is no class.
    """
    n, classes = logits.shape[-2:] if logits.ndim > 1 else (0, 0)
    if features.ndim != 2 or labels.shape != (n,) or len(features) != n or classes < 2:
        found = f"{list(logits.shape)}, {list(features.shape)} and {list(labels.shape)}"
        allowed = "[..., N, C >= 2], [N, D] and [N]"
        raise InputError(f"gradient norms: logits, features and labels of {found}; allowed: {allowed}")
    if ((labels < 0) | (labels >= classes)).any():
        raise InputError(
            f"gradient norms: labels {int(labels.min())} to {int(labels.max())}; allowed: 0 to {classes - 1}"
        )
    own = torch.nn.functional.one_hot(labels, classes).bool()
    others = logits.double().softmax(-1).masked_fill(own, 0)
    residual = (others.square().sum(-1) + others.sum(-1).square()).sqrt()
    return residual * (features.double().square().sum(-1) + bias).sqrt()


def by_side(values: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Means over the models that were trained on an example, and over those that were not.

    Args:
        values: [M, N].
        members: [M, N] bool.

    Returns:
        IN and OUT, [N] each; not a number where no model is on that side.

    Raises:
        InputError: shapes that differ, or members that are not bool.
    """
    if values.ndim != 2 or values.shape != members.shape or members.dtype != torch.bool:
        found = f"{list(values.shape)} and {list(members.shape)} {members.dtype}"
        raise InputError(f"by side: values and members of {found}; allowed: [M, N] each, members bool")
    inside, outside = (torch.where(side, values, 0).sum(0) / side.sum(0) for side in (members, ~members))
    return inside, outside


def ranks(values: ArrayLike) -> Array:
    """Ranks from 1 of values [N]; ties share the mean of theirs."""
    _, group, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    found: Array = (counts.cumsum() - (counts - 1) / 2)[group]
    return found


def spearman(a: ArrayLike, b: ArrayLike, seed: int = 0, resamples: int | None = None) -> Figure:
    """Rank correlation (Spearman 1904): Pearson's of the ranks, ties at their mean rank.

    The interval is by the bootstrap over examples, each resample ranked anew (an example drawn twice ties
    with itself). It takes the models behind the figures as they are.

    Args:
        a, b: [N], a pair an example; vulnerability and gradient norm, say.
        seed: of the resampling.
        resamples: how many; None: `stats.RESAMPLES`.

    Raises:
        InputError: shapes that differ, fewer than 2 examples, a value that is not finite, or all alike.
    """
    sides = [np.asarray(side, np.float64) for side in (a, b)]
    if sides[0].ndim != 1 or sides[0].shape != sides[1].shape or len(sides[0]) < 2:
        found = f"{list(sides[0].shape)} and {list(sides[1].shape)}"
        raise InputError(f"spearman: values of {found}; allowed: [N >= 2] each")
    if not all(np.isfinite(side).all() for side in sides) or any(np.ptp(side) == 0 for side in sides):
        raise InputError("spearman: values not finite, or all alike; allowed: finite numbers that differ")
    n = len(sides[0])
    point = float(_correlations(sides, np.ones((1, n)))[0])
    random = np.random.Generator(np.random.PCG64(seed))
    chunk, total = max(1, stats.CELLS // n), resamples or stats.RESAMPLES
    replicates = [
        _correlations(sides, stats.counts(n, min(chunk, total - start), random).astype(np.float64))
        for start in range(0, total, chunk)
    ]
    low, high = stats.interval(np.concatenate(replicates))
    return Figure(point, low, high, n, 1, "bootstrap of examples")


def _correlations(sides: list[Array], times: Array) -> Array:
    """Rank correlations [B] of examples drawn so many `times` [B, N]; 0 where one side's are all alike."""
    mean = (times.sum(1, keepdims=True) + 1) / 2
    first, second = (_weighted_ranks(side, times) - mean for side in sides)
    weighted = times * first
    covariance = (weighted * second).sum(1)
    spread = np.sqrt((weighted * first).sum(1) * (times * second * second).sum(1))
    found = np.zeros(len(times))
    np.divide(covariance, spread, out=found, where=spread > 0)
    return found


def _weighted_ranks(values: Array, times: Array) -> Array:
    """Mean ranks [B, N] of values [N] that each occur so many `times` [B, N] in a sample."""
    order = values.argsort(kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(values[order]) != 0])
    held = np.add.reduceat(times[:, order], starts, axis=1)
    rank = held.cumsum(1) - (held - 1) / 2
    found: Array = rank[:, np.unique(values, return_inverse=True)[1]]
    return found
