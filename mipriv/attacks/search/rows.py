"""The vectorised engine: identity x restart x candidate rows optimised in one batch.

Losses come one a row and are summed, so a row's gradient, and with an elementwise optimiser its
whole path, is what it would be alone.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mipriv import draws

Optimizer = Callable[[Tensor], torch.optim.Optimizer]
Objective = Callable[[Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class Rows:
    """One row for each identity and restart, identity-major.

    Attributes:
        identity: [r] int64.
        restart: [r] int64, from 0.
        seed: of the attack.
    """

    identity: Tensor
    restart: Tensor
    seed: int

    @staticmethod
    def of(identities: Tensor, restarts: int, seed: int) -> "Rows":
        """Rows of every identity with the same number of restarts."""
        count = len(identities)
        repeated = identities.cpu().repeat_interleave(restarts)
        return Rows(repeated, torch.arange(restarts).repeat(count), seed)

    def at(self, places: Tensor) -> "Rows":
        """Some of the rows: places [m] int64."""
        places = places.cpu()
        return Rows(self.identity[places], self.restart[places], self.seed)

    def uniform(self, *shape: int, name: str, step: int | None = None) -> Tensor:
        """[r, *shape] draws from U[0, 1), each row from its own key; with a step, the key of that step."""
        return torch.stack([draws.uniform(shape, *key) for key in self._keys(name, step)])

    def normal(self, *shape: int, name: str, step: int | None = None) -> Tensor:
        """[r, *shape] draws from N(0, 1), each row from its own key; with a step, the key of that step."""
        return torch.stack([draws.normal(shape, *key) for key in self._keys(name, step)])

    def _keys(self, name: str, step: int | None) -> list[tuple[int | str, ...]]:
        pairs = zip(self.identity.tolist(), self.restart.tolist(), strict=True)
        last = (name,) if step is None else (name, step)
        return [(self.seed, identity, restart, *last) for identity, restart in pairs]


def descend(
    start: Tensor,
    objective: Objective,
    optimizer: Optimizer,
    *,
    steps: int,
    chunk: int,
    bound: Callable[[Tensor], Tensor],
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Minimise a loss a row, chunk by chunk.

    Args:
        start: [r, d] latents.
        objective: (latents [c, d], row indices [c], step) to losses [c]; row i's loss must depend on
            latent i alone.
        optimizer: makes an elementwise optimiser of one tensor.
        steps: for every row.
        chunk: most rows in memory together; it changes no row's result beyond rounding.
        bound: applied to the latents after every step.
        progress: called with (row steps done, row steps).

    Returns:
        [r, d] latents after the last step.
    """
    done, total = 0, steps * len(start)
    finished = []
    for rows in torch.arange(len(start)).split(chunk):
        z = start[rows.to(start.device)].clone().requires_grad_()
        descent = optimizer(z)
        for step in range(steps):
            (z.grad,) = torch.autograd.grad(objective(z, rows, step).sum(), z)
            descent.step()
            with torch.no_grad():
                z.copy_(bound(z))
            done += len(rows)
            if progress:
                progress(done, total)
        finished.append(z.detach())
    return torch.cat(finished)


@contextlib.contextmanager
def attacked(*models: nn.Module) -> Iterator[None]:
    """Models in evaluation mode and without parameter gradients inside the block; restored after."""
    modules = [module for model in models for module in model.modules()]
    weights = [weight for model in models for weight in model.parameters()]
    modes, wanted = [m.training for m in modules], [w.requires_grad for w in weights]
    for model in models:
        model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        for weight, grad in zip(weights, wanted, strict=True):
            weight.requires_grad_(grad)


def in_chunks(function: Callable[[Tensor], Tensor], rows: Tensor, chunk: int) -> Tensor:
    """`function` of every part of `rows`, without gradients, concatenated."""
    with torch.no_grad():
        return torch.cat([function(part) for part in rows.split(chunk)])


def keep_best(scores: Tensor, keep: int) -> Tensor:
    """Indices [n, keep] of the largest of scores [n, m], best first; ties go to the lower index."""
    return scores.sort(dim=1, descending=True, stable=True).indices[:, :keep]


def places_of(order: Tensor, each: int) -> Tensor:
    """Where the kept of every identity stand among all rows: order [n, k] within `each` rows to [n * k]."""
    first = torch.arange(len(order), device=order.device)[:, None] * each
    return (order + first).flatten()
