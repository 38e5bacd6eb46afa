"""Which images an auditor of attributes learns from, chooses by, and is judged on.

None was in the defender's training or selection. With `inference` they are other images of the classes that
the victim knows, parted image by image: targets are those of `tasks.knowledge`, the first half of each
class's test images, and the auditor has the rest. With `public` they are of people whom the victim does not
know, parted person by person: half the people are targets.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipriv import draws
from mipriv.data.dataset import UNKNOWN, Dataset
from mipriv.errors import InputError
from tasks.knowledge import targets_of

Population = Literal["inference", "public"]
PARTS = ("training", "validation", "test")
SPLITS = {"inference": ("private/test",), "public": ("public/train", "public/validation")}
IDENTITY = "identity"  # who, or which class, is on an image: an attribute as any other


@dataclass(frozen=True)
class Part:
    """Some images.

    Attributes:
        images: [n, C, H, W].
        places: [n], in the splits of the population, one after the other.
        owners: [n], which images are not independent: the person on each, or a number of its own.
    """

    images: Tensor
    places: Tensor
    owners: Tensor


@dataclass(frozen=True)
class Parts:
    """The three parts of a population, by name; those of the auditor are in a drawn order, of which a budget
    takes the first."""

    population: Population
    of: dict[str, Part]

    def attribute(self, data: Dataset, name: str, part: str) -> Tensor:
        """Classes [n] of an attribute on the images of a part, `UNKNOWN` where they are; of `IDENTITY` the
        victim's own classes, which people it does not know have not."""
        splits = SPLITS[self.population]
        if name != IDENTITY:
            whole = torch.cat([data.attribute(split, name) for split in splits])
        elif self.population == "inference":
            whole = data.split(splits[0])[1]
        else:
            whole = torch.full((sum(len(data.split(split)[1]) for split in splits),), UNKNOWN)
        return whole[self.of[part].places]


def parts(
    data: Dataset, population: Population, validation: float, seed: int, most: int | None = None
) -> Parts:
    """The auditor's images, of which a share is for `validation`, and targets, `most` of them.

    Raises:
        InputError: too few images, or people.
    """
    if population == "inference":
        images, labels = data.split("private/test")
        targets = targets_of(data, most).places
        rest = torch.ones(len(labels), dtype=torch.bool)
        rest[targets_of(data).places] = False
        own, owners = rest.nonzero()[:, 0], torch.arange(len(labels))
        order = own[torch.randperm(len(own), generator=draws.generator(seed, "auditor's images"))]
        held = round(validation * len(order))
        chosen = (order[held:], order[:held], targets)
    else:
        images, owners = _everybody(data)
        people = owners.unique()
        drawn = people[torch.randperm(len(people), generator=draws.generator(seed, "auditor's people"))]
        own_people = len(drawn) - len(drawn) // 2
        held = max(1, round(validation * own_people))
        sides = (drawn[held:own_people], drawn[:held], drawn[own_people:])
        chosen = tuple(_of(side, owners, seed) for side in sides)  # type: ignore[assignment]
        chosen = (*chosen[:2], chosen[2].sort().values[:most])
    if min(map(len, chosen)) < 2:
        counts = " + ".join(str(len(one)) for one in chosen)
        raise InputError(f"audit of {population!r}: {counts} images; allowed: 2 or more of each part")
    return Parts(
        population,
        {name: Part(images[at], at, owners[at]) for name, at in zip(PARTS, chosen, strict=True)},
    )


def shown(classes: Tensor | NDArray[np.int64], share: float, count: int) -> NDArray[np.int64]:
    """Places of the labelled images that a share of them comes to: the first, twice `count` at least.

    Args:
        classes: [n], `UNKNOWN` where nobody labelled an image.
        share: above 0, at most 1.
        count: classes of the attribute.
    """
    known: NDArray[np.int64] = np.flatnonzero(np.asarray(classes) != UNKNOWN)
    return known[: max(round(share * len(known)), 2 * count)]


def _everybody(data: Dataset) -> tuple[Tensor, Tensor]:
    """Images of all public people, and the person on each."""
    splits = [data.split(split) for split in SPLITS["public"]]
    return torch.cat([images for images, _ in splits]), torch.cat([people for _, people in splits])


def _of(people: Tensor, owners: Tensor, seed: int) -> Tensor:
    """Places of the images of some people, in a drawn order."""
    own = torch.isin(owners, people).nonzero()[:, 0]
    return own[torch.randperm(len(own), generator=draws.generator(seed, "images of people", len(own)))]
