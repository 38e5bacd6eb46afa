"""Heads trained step by step, all at once: Adam and SGD as torch's own do it to each alone.

Adam is algorithm 1 of Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipriv import draws
from mipriv.shadows.objective import Objective
from mipriv.shadows.recipes import Steps


def train(objective: Objective, batches: Iterator[Objective], recipe: Steps) -> tuple[Tensor, Tensor]:
    """Heads [k, C, P] from nought, and their objectives [k].

    Args:
        objective: over all members.
        batches: what each step lowers.
        recipe: see `Steps`.
    """
    w = objective.weights.new_zeros(len(objective.weights), objective.classes, objective.features.shape[-1])
    update = _Adam(w, recipe) if recipe.optimizer == "adam" else _SGD(w, recipe)
    for step in range(1, recipe.steps + 1):
        batch = next(batches)
        update(batch.transposed(batch.loss(batch.times(w))[1]), step)
    return w, objective.loss(objective.times(w))[0]


class _Adam:
    """Updates heads in place."""

    def __init__(self, w: Tensor, recipe: Steps) -> None:
        self._w, self._recipe = w, recipe
        self._mean, self._square = torch.zeros_like(w), torch.zeros_like(w)

    def __call__(self, g: Tensor, step: int) -> None:
        recipe = self._recipe
        self._mean.lerp_(g, 1 - recipe.momentum)
        self._square.mul_(recipe.second).addcmul_(g, g, value=1 - recipe.second)
        root = self._square.sqrt().div_((1 - recipe.second**step) ** 0.5).add_(recipe.epsilon)
        self._w.addcdiv_(self._mean, root, value=-recipe.lr / (1 - recipe.momentum**step))


class _SGD:
    """Updates heads in place."""

    def __init__(self, w: Tensor, recipe: Steps) -> None:
        self._w, self._recipe = w, recipe
        self._velocity = torch.zeros_like(w)

    def __call__(self, g: Tensor, step: int) -> None:
        self._velocity.mul_(self._recipe.momentum).add_(g)
        self._w.sub_(self._velocity, alpha=self._recipe.lr)


def minibatches(
    whole: Objective,
    features: Tensor,
    labels: Tensor,
    members: Tensor,
    recipe: Steps,
    seed: int,
    first: int,
) -> Iterator[Objective]:
    """Every step's batch of every model, without end; rows that a smaller one lacks weigh nothing.

    Args:
        whole: the objective over all members.
        features: [N, P], widened.
        labels: [N].
        members: [k, N].
        recipe: see `Steps`.
        seed: of the orders of records.
        first: number of the first model, by which its order is drawn.
    """
    if recipe.batch_size is None:
        while True:
            yield whole
    size = min(recipe.batch_size, int(members.sum(1).max()))
    orders = [
        _order(own.nonzero()[:, 0].cpu().numpy(), recipe.batch_size, seed, first + m)
        for m, own in enumerate(members)
    ]
    lowered = features.bfloat16() if whole.precision == "bf16" else features
    while True:
        rows, weights = np.zeros((len(orders), size), np.int64), np.zeros((len(orders), size))
        for m, order in enumerate(orders):
            batch = next(order)
            rows[m, : len(batch)], weights[m, : len(batch)] = batch, 1 / len(batch)
        at = torch.from_numpy(rows).to(labels.device)
        weighed = torch.from_numpy(weights).to(features)
        yield Objective(lowered[at], labels[at], weighed, whole.classes, whole.precision)


def _order(own: NDArray[np.int64], size: int, seed: int, model: int) -> Iterator[NDArray[np.int64]]:
    """Batches of a model's records, epoch after epoch, each in a new order."""
    random = draws.stream(seed, "order of records", model)
    while True:
        mixed = random.permutation(own)
        for start in range(0, len(mixed), size):
            yield mixed[start : start + size]
