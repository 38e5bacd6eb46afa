"""Who is in the training set, person by person: the pool of a victim, and halves of it for its shadows.

A victim is trained on so many images of each person. Its pool has as many others of the same person beside
them; shadows train on halves of every person's images, as the victim did.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mipriv import draws
from mipriv.errors import InputError


@dataclass(frozen=True)
class VictimPool:
    """Records that a victim is asked about.

    Attributes:
        records: [2n] int64, places in what `pool_of` was given, those of members first.
        members: [2n] bool, whether the victim was trained on a record.
        population: [z] int64, places of the others: in no training set of a victim or of a shadow.
    """

    records: Tensor
    members: Tensor
    population: Tensor


def pool_of(people: Tensor, trained: Tensor, seed: int) -> VictimPool:
    """Every record that a victim was trained on, and as many others of each person, drawn.

    Args:
        people: [N] int64, who is on each record.
        trained: [N] bool.
        seed: of the draw.

    Raises:
        InputError: a person with fewer records that the victim was not trained on.
    """
    inside, outside, left = [], [], []
    for person in people.unique().tolist():
        own, others = ((people == person) & side for side in (trained, ~trained))
        members, rest = own.nonzero()[:, 0], others.nonzero()[:, 0]
        if len(rest) < len(members):
            held = f"{len(members)} images in training, {len(rest)} beside"
            raise InputError(
                f"pool of a victim: person {person} has {held}; allowed: as many beside, or more"
            )
        order = torch.randperm(len(rest), generator=draws.generator(seed, "pool of a victim", person))
        inside.append(members)
        outside.append(rest[order[: len(members)]].sort().values)
        left.append(rest[order[len(members) :]].sort().values)
    records = torch.cat([*inside, *outside])
    return VictimPool(records, trained[records], torch.cat(left))


def halves(people: Tensor, models: int, seed: int) -> Tensor:
    """[M, N] bool, which models train on which records: of every person half, and every record in M / 2.

    Models come in pairs, of which each record is in exactly one: so the records of a person are drawn into
    two halves a pair.

    Args:
        people: [N] int64, who is on each record; an even number of each.
        models: M, even.
        seed: of the draws.

    Raises:
        InputError: an odd number.
    """
    if models < 2 or models % 2:
        raise InputError(f"models: {models}; allowed: an even number, from 2")
    members = torch.zeros(models, len(people), dtype=torch.bool)
    for person in people.unique().tolist():
        own = (people == person).nonzero()[:, 0]
        if len(own) % 2:
            raise InputError(f"halves: person {person} has {len(own)} records; allowed: an even number")
        for pair in range(models // 2):
            order = torch.randperm(len(own), generator=draws.generator(seed, "halves", pair, person))
            first, second = own[order].chunk(2)
            members[2 * pair, first] = members[2 * pair + 1, second] = True
    return members


def held(people: Tensor, members: Tensor, count: int, seed: int) -> Tensor:
    """[k] int64, records to select a model by, `count` of each person, of those that it is not trained on.

    Args:
        people: [N] int64.
        members: [N] bool, of the model.
        count: fewer than a person has left.
        seed: of the draw.
    """
    chosen = []
    for person in people.unique().tolist():
        rest = ((people == person) & ~members).nonzero()[:, 0]
        order = torch.randperm(len(rest), generator=draws.generator(seed, "held", person))
        chosen.append(rest[order[:count]])
    return torch.cat(chosen).sort().values
