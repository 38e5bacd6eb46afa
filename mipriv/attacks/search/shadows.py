"""What membership attacks share: what a model says of a record, and what references on one side of it say.

Sums over models are taken once for all targets. In leave-one-out each target then takes its own term out, so
that scoring every model of M costs O(M) a record and not O(M^2).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mipriv.attacks.membership import Answers
from mipriv.errors import InputError

CHUNK = 4_000_000  # logits in float64 at once


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """f_y - log sum_{c != y} e^{f_c} = log(p_y / (1 - p_y)), from logits alone.

    Through probabilities it would stand still where they round to 0 or 1.

    Args:
        logits: [M, Q, N, C].
        labels: [N] int64.

    Returns:
        [M, Q, N] float64.

    Raises:
        InputError: a logit that is not finite.
    """

    def of(part: Tensor) -> Tensor:
        wide, own = part.double(), labels.to(part.device)[:, None].expand(*part.shape[:-1], 1)
        others = wide.scatter(-1, own, -torch.inf).logsumexp(-1)
        return wide.gather(-1, own)[..., 0] - others

    odds = _in_parts(of, logits)
    wrong = int((~odds.isfinite()).sum())
    if wrong:
        raise InputError(f"logits: not finite in {wrong} of {odds.numel()} answers; allowed: finite numbers")
    return odds


def log_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """log p_y of `log_odds`: exact near 1, where a softmax rounds, and near 0, where it underflows."""
    return F.logsigmoid(log_odds(logits, labels))


def check(targets: Answers, references: Answers | None) -> None:
    """Refuse what cannot be compared.

    Raises:
        InputError: no reference, or references with other records, queries, classes or labels.
    """
    if references is None:
        if len(targets.logits) < 2:
            raise InputError(
                f"targets: {len(targets.logits)} without references; allowed: 2 or more, or references"
            )
        return
    if not len(references.logits):
        raise InputError("references: 0; allowed: 1 or more")
    ours, theirs = (list(a.logits.shape[1:]) for a in (targets, references))
    if ours != theirs:
        raise InputError(f"references: answers of shape {theirs}; allowed: as of the targets, {ours}")
    if not torch.equal(targets.labels, references.labels):
        raise InputError("references: other labels than the targets'; allowed: the same records in one order")


@dataclass(frozen=True, eq=False)
class Side:
    """References on one side of every record: those that were trained on it, or those that were not.

    What its methods return has a row a target: with `left_out` [M, ...], where a model is no reference of
    itself; otherwise [1, ...], the same for every target. NaN where no reference is left.

    Attributes:
        values: [M, Q, N] float64, what each says of each query of each record.
        on: [M, N] bool, whether a model is on this side of a record.
        left_out: the references are the targets.
    """

    values: Tensor
    on: Tensor
    left_out: bool

    @cached_property
    def count(self) -> Tensor:
        """References, [T, 1, N] float64."""
        return self._rest(self._mask)

    @cached_property
    def mean(self) -> Tensor:
        """[T, Q, N]."""
        shift, first, _ = self._sums
        return shift + first / self._some

    @cached_property
    def median(self) -> Tensor:
        """[T, Q, N]; of an even number, the mean of the middle two.

        One sort serves all targets. Without its own value, of rank r among k, a target finds at place j what
        stood at j, or at j + 1 where r <= j; whether r <= j is read from comparing its value with that at j.
        """
        ordered = _sorted(torch.where(self.on[:, None], self.values, torch.inf))
        k = self.on.sum(0)

        def at(place: Tensor) -> Tensor:
            place = place.clamp(0, len(ordered) - 1)
            return ordered.gather(0, place.expand(1, ordered.shape[1], -1))

        low, high = at((k - 1) // 2), at(k // 2)
        found = ((low + high) / 2).where(k > 0, torch.nan)
        if not self.left_out:
            return found
        before, after = at((k - 2) // 2), at((k + 1) // 2)
        x = self.values
        without = (torch.where(x <= before, high, before) + torch.where(x <= low, after, low)) / 2
        return torch.where(self.on[:, None], without, found).where(self.count > 0, torch.nan)

    @cached_property
    def variance(self) -> Tensor:
        """A record and query: mean square distance from the mean, [T, Q, N]; NaN for fewer than two.

        Also NaN where they all say the same, to rounding: against no spread nothing can be told.
        """
        _, first, second = self._sums
        some = self._some
        found = second / some - (first / some).square()
        return found.where((self.count > 1) & (found > self._rounding), torch.nan)

    def pooled_variance(self, centre: Tensor) -> Tensor:
        """One for all records, queries and references, [T, 1, 1]: of what is left less the centre [T, Q, N].

        As numpy's `std` squared, it is about the mean of what is left, which about medians is not zero.
        """
        shift, first, second = self._sums
        n = self.count
        c = (centre - shift).where(n > 0, 0)
        total = n.sum(2, keepdim=True) * self.values.shape[1]
        one = (first - n * c).sum((1, 2), keepdim=True) / total
        two = (second - 2 * c * first + n * c.square()).sum((1, 2), keepdim=True) / total
        found = two - one.square()
        return found.where(found > self._rounding.amax(), torch.nan)

    @cached_property
    def log_mean(self) -> Tensor:
        """log of the mean of e^values, [T, Q, N].

        A target's own term may be all that counts, so it is not subtracted: what comes before it and what
        comes after it are added.
        """
        terms = torch.where(self.on[:, None], self.values, -torch.inf)
        if not self.left_out:
            return terms.logsumexp(0, keepdim=True) - self._some.log()
        nothing = terms.new_full((1, *terms.shape[1:]), -torch.inf)
        before = torch.cat([nothing, terms[:-1].logcumsumexp(0)])
        after = torch.cat([terms[1:].flip(0).logcumsumexp(0).flip(0), nothing])
        return torch.logaddexp(before, after) - self._some.log()

    @cached_property
    def _mask(self) -> Tensor:
        return self.on[:, None].to(self.values)

    @cached_property
    def _some(self) -> Tensor:
        """The count, NaN for none."""
        return self.count.where(self.count > 0, torch.nan)

    @cached_property
    def _sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """The mean of all [1, Q, N]; sums of distances from it and of their squares [T, Q, N].

        About the mean, so that squares do not cancel.
        """
        shift = (self.values * self._mask).sum(0, keepdim=True) / self._mask.sum(0, keepdim=True).clamp(min=1)
        apart = (self.values - shift) * self._mask
        return shift, self._rest(apart), self._rest(apart.square())

    @cached_property
    def _rounding(self) -> Tensor:
        """Variances [1, Q, N] that may be rounding alone."""
        shift, eps = self._sums[0], 8 * torch.finfo(self.values.dtype).eps
        apart = ((self.values - shift) * self._mask).square().sum(0, keepdim=True)
        return eps * (apart + eps * shift.square())

    def _rest(self, terms: Tensor) -> Tensor:
        """Sums over references [T, ...] of terms [M, ...]."""
        total = terms.sum(0, keepdim=True)
        return total - terms if self.left_out else total


def _sorted(values: Tensor) -> Tensor:
    """Along the first dimension. On the CPU by NumPy, whose sort uses vector instructions."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=0))
    return values.sort(0).values


def _in_parts(of: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """Model by model where float64 copies of all would be large."""
    each = max(1, CHUNK // max(1, logits[:1].numel()))
    return torch.cat([of(part) for part in logits.split(each)])
