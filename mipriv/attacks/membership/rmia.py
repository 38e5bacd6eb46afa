"""RMIA: does a model raise a record's likelihood more than that of records which nobody was trained on?"""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipriv.attacks.membership import Answers
from mipriv.attacks.search.shadows import Side, check, log_probability
from mipriv.errors import InputError
from mipriv.plugin import one_of

GRID = tuple(step / 10 for step in range(11))


@dataclass(frozen=True)
class RMIA:
    """Zarifzadeh et al., Low-Cost High-Power Membership Inference Attacks (ICML 2024).

    The score of x is the share of population records z with [P(x|t)/P(x)] / [P(z|t)/P(z)] > gamma, strictly
    (the paper writes >=; the released code is strict), for the target t and P(.|t) its probability of the
    true class. A target's ratios are sorted once: the score is the empirical distribution function of those
    of z at [P(x|t)/P(x)] / gamma. All is in logarithms. Each query of x is compared with the same query of z,
    and the score is the mean over queries: the share of comparisons that are won over z and queries together.

    P(x) online is (mean over references with x + mean over references without x) / 2; offline it is
    ((1 + a) mean without x + 1 - a) / 2, as if a model with x gave a mean without x + 1 - a. No reference has
    a z, so that online P(z) is the mean over all of them; offline it is the same expression as that of x.

    NaN where a record lacks references without it or, online, with it.

    Attributes:
        mode: online or offline.
        offline_a: from 0 to 1, how near a model without a record comes to one with it; see `choose_a`. Not
            looked at online.
        gamma: from 1.
    """

    mode: str = "online"
    offline_a: float = 0.3
    gamma: float = 1.0

    def __post_init__(self) -> None:
        one_of(self.mode, ("online", "offline"), "mode")
        if not 0 <= self.offline_a <= 1:
            raise InputError(f"offline_a: {self.offline_a}; allowed: from 0 to 1")
        if not 1 <= self.gamma < math.inf:
            raise InputError(f"gamma: {self.gamma}; allowed: from 1")

    def __call__(self, targets: Answers, references: Answers | None = None) -> Tensor:
        """See `Membership`."""
        likelihoods = _likelihoods(targets, references, both=self.mode == "online")
        return likelihoods.scores(None if self.mode == "online" else self.offline_a, self.gamma)


def choose_a(
    references: Answers, surrogate: int = 0, gamma: float = 1.0, grid: Iterable[float] = GRID
) -> float:
    """The `offline_a` by which one of the references is told best, by AUC, from the others.

    Args:
        references: models of known membership.
        surrogate: the one that is attacked; of several values that do equally well the first counts.
        gamma: of the attack.
        grid: values to try.

    Raises:
        InputError: no such model, fewer than two, or one that has every record or none of those that the
            others can judge.
    """
    count = len(references.logits)
    if not 0 <= surrogate < count or count < 2:
        raise InputError(f"surrogate: {surrogate} of {count} references; allowed: one of two or more")
    others = [m for m in range(count) if m != surrogate]
    likelihoods = _likelihoods(_only(references, [surrogate]), _only(references, others), both=False)
    members = references.members[surrogate]
    quality = {}
    for a in grid:
        tried = RMIA("offline", a, gamma)
        score = likelihoods.scores(tried.offline_a, tried.gamma)[0]
        inside, outside = (score[side & ~score.isnan()] for side in (members, ~members))
        if not len(inside) or not len(outside):
            raise InputError(
                f"surrogate: {surrogate} tells nothing; allowed: one with and without some records"
            )
        rising = outside.sort().values
        wins = torch.searchsorted(rising, inside) + torch.searchsorted(rising, inside, right=True)
        quality[a] = int(wins.sum())
    return max(quality, key=lambda a: quality[a])


def share_below(values: Tensor, of: Tensor) -> Tensor:
    """Share of numbers [..., Z] below each of `values` [..., N]: [..., N] float64; NaN for NaN."""
    if values.device.type == "cpu":
        count = torch.from_numpy(_below(values.numpy(), of.numpy()))
    else:
        count = torch.searchsorted(of.sort(-1).values, values.contiguous())
    return (count.double() / of.shape[-1]).where(~values.isnan(), torch.nan)


def _below(values: NDArray[np.floating], of: NDArray[np.floating]) -> NDArray[np.int64]:
    """How many numbers [..., Z] are below each of `values` [..., N], row by row: [..., N].

    By NumPy, whose sorts use vector instructions. With both sides sorted it is one merge: a number counts
    from the first value above it on.
    """
    found = np.empty(values.shape, np.int64)
    for row in np.ndindex(values.shape[:-1]):
        order = np.argsort(values[row])
        firsts = np.searchsorted(values[row][order], np.sort(of[row]), "right")
        found[row][order] = np.bincount(firsts, minlength=len(order) + 1)[:-1].cumsum()
    return found


@dataclass(frozen=True)
class _Likelihoods:
    """Logarithms: of targets [T, Q, N] and [T, Q, Z], of means over references [T or 1, Q, N] and so on."""

    x: Tensor
    z: Tensor
    x_without: Tensor
    x_with: Tensor | None
    z_without: Tensor

    def scores(self, a: float | None, gamma: float) -> Tensor:
        """[T, N]; with a None online."""
        if a is None:
            assert self.x_with is not None
            x_mean, z_mean = torch.logaddexp(self.x_with, self.x_without) - math.log(2), self.z_without
        else:
            x_mean, z_mean = (_offline(without, a) for without in (self.x_without, self.z_without))
        return share_below(self.x - x_mean - math.log(gamma), self.z - z_mean).mean(1)


def _offline(without: Tensor, a: float) -> Tensor:
    """log of ((1 + a) e^without + 1 - a) / 2."""
    rest = without.new_tensor(1 - a).log()
    return torch.logaddexp(without + math.log1p(a), rest) - math.log(2)


def _likelihoods(targets: Answers, references: Answers | None, both: bool) -> _Likelihoods:
    check(targets, references)
    x, z = _told(targets)
    left_out = references is None
    others, (x_others, z_others) = (
        (targets, (x, z)) if references is None else (references, _told(references))
    )
    if references is not None and not _same(targets.population_labels, references.population_labels):
        raise InputError("references: not the targets' population; allowed: the same records in one order")
    every = torch.ones(len(z_others), z_others.shape[2], dtype=torch.bool, device=z_others.device)
    return _Likelihoods(
        x,
        z,
        Side(x_others, ~others.members, left_out).log_mean,
        Side(x_others, others.members, left_out).log_mean if both else None,
        Side(z_others, every, left_out).log_mean,
    )


def _told(answers: Answers) -> tuple[Tensor, Tensor]:
    """log P of records [M, Q, N] and of the population [M, Q, Z]."""
    if answers.population is None or answers.population_labels is None or not answers.population.shape[2]:
        raise InputError("rmia: no population; allowed: records that no model was trained on")
    return (
        log_probability(answers.logits, answers.labels),
        log_probability(answers.population, answers.population_labels),
    )


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and torch.equal(a, b)


def _only(answers: Answers, models: list[int]) -> Answers:
    """Some of the models."""
    population = answers.population
    return dataclasses.replace(
        answers,
        logits=answers.logits[models],
        members=answers.members[models],
        population=None if population is None else population[models],
    )
