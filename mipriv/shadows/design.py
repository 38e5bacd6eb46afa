"""Who trains on what: balanced halves, and pools of records that grow without changing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mipriv import draws
from mipriv.errors import InputError


@dataclass(frozen=True)
class Pool:
    """Records that shadows draw their halves from, and others that none ever trains on.

    Attributes:
        records: [2 S C] int64, places in the data, class after class.
        labels: [2 S C] int64, from 0 to C - 1: places in `classes`.
        classes: C labels of the data, in the order that they joined.
        population: int64, places of the records of these classes that are in no pool drawn beside this one.
        population_labels: int64, as `labels`.
    """

    records: Tensor
    labels: Tensor
    classes: tuple[int, ...]
    population: Tensor
    population_labels: Tensor


def balanced(models: int, records: int, seed: int) -> Tensor:
    """[M, N] bool, which models train on which records: every record in exactly M / 2 of them.

    A record's models are those of its lower half of M uniforms, as TensorFlow Privacy draws its shadows; each
    has half of the records on average, not exactly. With odd M a record is in (M - 1) / 2 or (M + 1) / 2
    models, as a coin of its own has it.

    Raises:
        InputError: fewer than two models, or no record.
    """
    if models < 2 or records < 1:
        raise InputError(f"models, records: {models}, {records}; allowed: from 2 models and from 1 record")
    uniforms = draws.uniform((models, records), seed, "halves")
    half = torch.full((records,), models // 2)
    if models % 2:
        half += draws.uniform((records,), seed, "odd models") < 0.5
    return uniforms.argsort(0).argsort(0) < half


def pool(labels: Tensor, classes: int, per_class: int, seed: int) -> Pool:
    """2S records of each of C classes.

    Those of fewer classes, or of fewer records a class, are among them: classes join in one order and the
    records of a class in one order of its own, both of the seed alone.

    Args:
        labels: [n] int64 of the data.
        classes: C.
        per_class: S, records of a class that a model trains on (half of a class's pool).
        seed: of both orders.

    Raises:
        InputError: more classes than there are, or too few records of one.
    """
    return disjoint(labels, classes, per_class, 1, seed)[0]


def disjoint(labels: Tensor, classes: int, per_class: int, pools: int, seed: int) -> list[Pool]:
    """Several pools of the same classes that share no record; the first is `pool`'s.

    Their population is the same: records of these classes that are in none of them. Arguments and refusals
    are those of `pool`.
    """
    if min(classes - 1, per_class, pools) < 1:
        given = f"{classes}, {per_class}, {pools}"
        raise InputError(f"classes, per_class, pools: {given}; allowed: from 2, 1 and 1")
    own = labels.cpu().numpy()
    there = np.unique(own)
    if classes > len(there):
        raise InputError(f"classes: {classes}; allowed: up to {len(there)}, all that the data has")
    chosen = tuple(int(c) for c in draws.stream(seed, "classes").permutation(there)[:classes])
    return _of(labels, chosen, per_class, pools, seed)


def enough(labels: Tensor, classes: int, per_class: int, distinct: int, seed: int) -> list[Pool]:
    """As many pools that share no record as hold `distinct` records together; the first is `pool`'s.

    A cell of few small classes has too few records to tell a low rate of false positives. Further pools are
    drawn of the same classes, then of the next C classes, which share none with them.

    Raises:
        InputError: see `pool`; or the data holds too few records for so many pools.
    """
    found = [pool(labels, classes, per_class, seed)]
    there = np.unique(labels.cpu().numpy())
    order = draws.stream(seed, "classes").permutation(there)
    size = len(found[0].records)
    needed = -(-distinct // size)
    groups = [order[i : i + classes] for i in range(0, len(order) - classes + 1, classes)]
    per_group = [min(_count(labels, int(c)) for c in group) // (2 * per_class) for group in groups]
    if sum(per_group) < needed:
        held = f"{sum(per_group)} pools of {size} records"
        raise InputError(f"distinct: {distinct}; allowed: up to {sum(per_group) * size}, {held}")
    found = []
    for group, most in zip(groups, per_group, strict=True):
        wanted = min(most, needed - len(found))
        if wanted:
            found += _of(labels, tuple(int(c) for c in group), per_class, wanted, seed)
    return found


def _of(labels: Tensor, chosen: tuple[int, ...], per_class: int, pools: int, seed: int) -> list[Pool]:
    """Pools of the given classes that share no record."""
    own = labels.cpu().numpy()
    orders = [draws.stream(seed, "records", c).permutation(np.flatnonzero(own == c)) for c in chosen]
    needed = 2 * per_class * pools
    for c, order in zip(chosen, orders, strict=True):
        if len(order) < needed:
            wanted = f"2 x {per_class} records of each class in {pools} pool(s)"
            raise InputError(f"per_class: {wanted}; allowed: up to {len(order)} records in all, of class {c}")
    rest, rest_labels = _joined([order[needed:] for order in orders])
    found = []
    for i in range(pools):
        part = slice(2 * per_class * i, 2 * per_class * (i + 1))
        found.append(Pool(*_joined([order[part] for order in orders]), chosen, rest, rest_labels))
    return found


def _count(labels: Tensor, own: int) -> int:
    return int((labels == own).sum())


def _joined(parts: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Places one after another, and of which part each is."""
    places = torch.from_numpy(np.concatenate(parts).astype(np.int64))
    return places, torch.repeat_interleave(torch.tensor([len(part) for part in parts]))
