"""Whose images an attacker on features holds, and which images are its targets.

Targets are the same in every setting: the first half of each person's test images, in the order of the
dataset; the other half is what an attacker of the setting `inference` has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mipriv.data.dataset import Dataset
from mipriv.errors import InputError

Setting = Literal["training", "inference", "public"]
HELD = 0.1  # share of an attacker's images that it selects by, where no split is kept for that


@dataclass(frozen=True)
class Targets:
    """Images [n, C, H, W] that are to be recovered, who is on each [n], and their places in the split [n]."""

    images: Tensor
    labels: Tensor
    places: Tensor


def targets_of(data: Dataset, most: int | None = None) -> Targets:
    """Every target, or `most` of them, spread evenly over people."""
    images, labels = data.split("private/test")
    chosen = _first_halves(labels)
    if most is not None and most < len(chosen):
        # By place within each person first, so that the few are as many of each.
        places = torch.cat([torch.arange(int(n)) for n in torch.bincount(labels[chosen]) if n])
        own = labels[chosen].argsort(stable=True)
        chosen = chosen[own[places.argsort(stable=True)[:most]]].sort().values
    return Targets(images[chosen], labels[chosen], chosen)


def known_by(data: Dataset, setting: Setting) -> tuple[Tensor, Tensor]:
    """Images to learn from and images to select by: `training`, those that the victim was trained on (and
    selected by); `inference`, other images of the same people; `public`, images of other people.

    Raises:
        InputError: the dataset has too few of them.
    """
    learnt, held = _parts(data, setting, lambda split: data.split(split)[0])
    if len(learnt) < 2 or len(held) < 1:
        raise InputError(
            f"knowledge: {setting!r}: {len(learnt)} + {len(held)} images; allowed: 2 + 1 or more"
        )
    return learnt, held


def classes_known_by(data: Dataset, setting: Setting, task: str | None) -> Tensor:
    """Classes int64 [m] of a task, of the images to learn from that `known_by` gives."""
    return _parts(data, setting, lambda split: data.task(split, task))[0]


def _parts(data: Dataset, setting: Setting, of: Callable[[str], Tensor]) -> tuple[Tensor, Tensor]:
    """What `of` says of the images of a split, of those to learn from and of those to select by."""
    if setting == "inference":
        labels = data.split("private/test")[1]
        rest = torch.ones(len(labels), dtype=torch.bool)
        rest[_first_halves(labels)] = False
        return _held(of("private/test")[rest])
    pool = "private" if setting == "training" else "public"
    learnt, held = of(f"{pool}/train"), of(f"{pool}/validation")
    return _held(learnt) if len(held) < 2 else (learnt, held)


def _first_halves(labels: Tensor) -> Tensor:
    """Indices of the first half, rounded up, of each person's images."""
    rank = torch.empty_like(labels)
    for person in labels.unique():
        own = (labels == person).nonzero()[:, 0]
        rank[own] = (torch.arange(len(own)) >= (len(own) + 1) // 2).long()
    return (rank == 0).nonzero()[:, 0]


def _held(images: Tensor) -> tuple[Tensor, Tensor]:
    every = round(1 / HELD)
    held = torch.arange(len(images)) % every == every - 1
    held[-1:] |= not held.any()  # one at least
    return images[~held], images[held]
