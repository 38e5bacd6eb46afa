"""LiRA: a likelihood ratio between models that have a record and models that lack it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mipriv.attacks.membership import Answers
from mipriv.attacks.search.shadows import Side, check, log_odds
from mipriv.plugin import one_of


@dataclass(frozen=True)
class LiRA:
    """Carlini et al., Membership Inference Attacks From First Principles (S&P 2022), algorithm 1.

    phi = log(p_y / (1 - p_y)) is taken for normal on either side of a record. Online:
    log N(phi; mu_in, sigma_in^2) - log N(phi; mu_out, sigma_out^2). Offline, where no reference
    need have the record: the one-sided (phi - mu_out) / sigma_out, whose Phi is the published
    1 - Pr[Z > phi]. The score is the mean over queries, which are taken for independent.

    NaN where a side that is needed (offline: OUT alone) has no reference, with variances of a record's own
    fewer than two, or no spread.

    Attributes:
        mode: online or offline.
        variance: fixed: one a side, of what is left less the centres, over records, queries and references;
            better with fewer than about 64 references. example: of each record and query, about its mean.
        centre: mean or median (the released code's) of a record's references.
    """

    mode: str = "online"
    variance: str = "fixed"
    centre: str = "median"

    def __post_init__(self) -> None:
        one_of(self.mode, ("online", "offline"), "mode")
        one_of(self.variance, ("fixed", "example"), "variance")
        one_of(self.centre, ("mean", "median"), "centre")

    def __call__(self, targets: Answers, references: Answers | None = None) -> Tensor:
        """See `Membership`."""
        check(targets, references)
        odds = log_odds(targets.logits, targets.labels)
        if references is None:
            return self.score(odds, odds, targets.members, left_out=True)
        others = log_odds(references.logits, references.labels)
        return self.score(odds, others, references.members, left_out=False)

    def score(self, odds: Tensor, others: Tensor, members: Tensor, left_out: bool) -> Tensor:
        """Score log odds [T, Q, N] against those of references [M, Q, N] with members [M, N]: [T, N].

        Args:
            left_out: the references are the targets, and none is its own.
        """
        outside, at_outside = self._distance(odds, Side(others, ~members, left_out))
        if self.mode == "offline":
            return outside.mean(1)
        inside, at_inside = self._distance(odds, Side(others, members, left_out))
        ratio = (outside.square() - inside.square()) / 2 + at_outside - at_inside
        return ratio.mean(1)

    def _distance(self, odds: Tensor, side: Side) -> tuple[Tensor, Tensor]:
        """(phi - mu) / sigma and log sigma, [T, Q, N] or smaller."""
        centre = side.mean if self.centre == "mean" else side.median
        square = side.variance if self.variance == "example" else side.pooled_variance(centre)
        sigma = square.sqrt()
        return (odds - centre) / sigma, torch.log(sigma)
