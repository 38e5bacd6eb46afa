"""Small networks that auditors train: from scratch, until the validation loss is flat."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv import draws
from mipriv.attacks.search.audits import UNSEEN, Predict, Rows, class_weights
from mipriv.attacks.search.rows import in_chunks
from mipriv.errors import InputError

CHUNK = 512


@dataclass(frozen=True)
class Steps:
    """How a network is trained from scratch.

    Attributes:
        epochs: at most.
        patience: epochs without a better validation loss after which training stops.
        batch_size: rows a step; a last batch of one is joined to the one before it.
        lr: of Adam.
        weight_decay: L2 penalty, decoupled.
    """

    epochs: int = 60
    patience: int = 8
    batch_size: int = 64
    lr: float = 2e-3
    weight_decay: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size", "lr"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: above 0")


def fit(
    net: nn.Module, rows: Rows, steps: Steps, *key: int | str, loss: Callable[[Tensor], Tensor] | None = None
) -> int:
    """Train until the validation loss is flat, with the weights that had the least; the epoch they are of.

    Args:
        net: rows to scores, changed in place; left in evaluation mode.
        rows: what it learns from, all classes weighing alike.
        steps: see `Steps`.
        key: of the order of rows, and of dropout.
        loss: of a batch's indices, beside or instead of the cross-entropy; None: the cross-entropy.
    """
    random = draws.generator(*key, "order")
    weights, held_weights = rows.weights, class_weights(rows.held_y, rows.classes)
    optimizer = torch.optim.AdamW(
        [p for p in net.parameters() if p.requires_grad], steps.lr, weight_decay=steps.weight_decay
    )
    least, kept, since, state = math.inf, 0, 0, _copied(net)
    with draws.seeded(*key, "dropout"), torch.enable_grad():
        for epoch in range(steps.epochs):
            net.train()
            for batch in batches(len(rows.y), steps.batch_size, random):
                value = (
                    F.cross_entropy(net(rows.x[batch]), rows.y[batch], weights)
                    if loss is None
                    else loss(batch)
                )
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
            net.eval()
            with torch.no_grad():
                held = float(F.cross_entropy(in_chunks(net, rows.held_x, CHUNK), rows.held_y, held_weights))
            since += 1
            if held < least:
                least, kept, since, state = held, epoch, 0, _copied(net)
            if since >= steps.patience:
                break
    net.load_state_dict(state)
    net.eval()
    return kept


def predictor(net: nn.Module) -> Predict:
    """Log-probabilities of a trained network."""
    return lambda x: in_chunks(lambda part: net(part).log_softmax(-1), x, CHUNK).clamp_min(UNSEEN)


def batches(count: int, size: int, random: torch.Generator) -> list[Tensor]:
    """Every index once, in a drawn order; batch normalisation has no variance over one row."""
    parts = list(torch.randperm(count, generator=random).split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _copied(net: nn.Module) -> dict[str, Any]:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}
