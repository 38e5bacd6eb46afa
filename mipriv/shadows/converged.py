"""Heads at the minimum of their objective, all by one batched L-BFGS.

The minimum over all records is found first. Heads start there, with the blocks (one a class) of its Hessian
as their initial inverse Hessian: half of the records leave a head near it, both in place and in curvature.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mipriv.shadows.objective import Objective, masked
from mipriv.shadows.recipes import Converged
from mipriv.solvers.lbfgs import Minimised, Stop, lbfgs

COMMON = Stop(1e-4, 1, 150)  # of the minimum over all records, which is but a place to start from
JITTER = 1e-6  # of a block's mean diagonal: where nothing penalises, it may be singular


@dataclass(frozen=True)
class Start:
    """Where heads start.

    Attributes:
        head: [C, P].
        logits: [C, N] of all records, there.
        inverse: [C, P, P], inverses of the Hessian's blocks; None: none known.
    """

    head: Tensor
    logits: Tensor
    inverse: Tensor | None = None


@dataclass
class _Flat:
    """An objective over rows of numbers, as the solver knows it."""

    objective: Objective
    penalty: Tensor
    start: Start

    def times(self, w: Tensor) -> Tensor:
        return self.objective.times(self._shaped(w)).flatten(1)

    def transposed(self, r: Tensor) -> Tensor:
        return self.objective.transposed(self._shaped(r)).flatten(1)

    def loss(self, z: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        value, r = self.objective.loss(self._shaped(z), at)
        return value, r.flatten(1)

    def scaled(self, g: Tensor) -> Tensor | None:
        inverse = self.start.inverse
        if inverse is None:
            return None
        found = self._shaped(g).transpose(0, 1).to(inverse.dtype) @ inverse
        return found.transpose(0, 1).to(g.dtype).flatten(1)

    def keep(self, going: Tensor) -> None:
        self.objective.keep(going)

    def _shaped(self, of: Tensor) -> Tensor:
        return of.view(len(of), self.objective.classes, -1)


def nought(features: Tensor, classes: int) -> Start:
    """Heads of zeros."""
    zero = features.new_zeros(classes, features.shape[1])
    return Start(zero, features.new_zeros(classes, len(features)))


def common(features: Tensor, labels: Tensor, classes: int, recipe: Converged, curved: bool) -> Start:
    """The minimum over all records, with the curvature there if it is wanted.

    Args:
        features: [N, P], widened.
        labels: [N].
        classes: C.
        recipe: of which the penalty counts.
        curved: whether to invert the blocks of the Hessian: C (N P^2 + P^3) operations.
    """
    everyone = torch.ones(1, len(labels), dtype=torch.bool, device=labels.device)
    objective = masked(features, labels, everyone, classes)
    head = solve(objective, nought(features, classes), recipe.penalty, COMMON).x.view(classes, -1)
    logits = head @ features.T
    if not curved:
        return Start(head, logits)
    shares = logits.softmax(0)
    inverse = features.new_empty(classes, features.shape[1], features.shape[1])
    for c in range(classes):
        weights = shares[c] * (1 - shares[c]) / len(labels)
        block = features.T @ (weights[:, None] * features)
        block.diagonal().add_(penalties(features, recipe.penalty))
        block.diagonal().add_(JITTER * block.diagonal().mean())
        torch.cholesky_inverse(torch.linalg.cholesky(block), out=inverse[c])
    return Start(head, logits, inverse)


def solve(objective: Objective, start: Start, penalty: float, stop: Stop) -> Minimised:
    """Minimise an objective, which is used up, from one start for all of its k heads; x is [k, C P]."""
    k, rows = len(objective.weights), objective.rows
    logits = start.logits.expand(k, -1, -1) if rows is None else start.logits[:, rows].transpose(0, 1)
    flat = _Flat(objective, penalties(start.head, penalty).repeat(objective.classes), start)
    return lbfgs(flat, start.head.expand(k, -1, -1).flatten(1), logits.flatten(1), stop)


def penalties(like: Tensor, penalty: float) -> Tensor:
    """[P] of numbers [..., P]: nought for the bias, which is the first."""
    found = torch.full_like(like[0], penalty)
    found[0] = 0
    return found
