"""Who is public, who is private, and which of their images serve for what."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from mipriv.data.sources import natural
from mipriv.errors import InputError

PUBLIC = ("public/train", "public/validation")
PRIVATE = ("private/train", "private/validation", "private/test")
SPLITS = PUBLIC + PRIVATE

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class SplitPlan:
    """Sizes of the splits; a person is a class.

    Attributes:
        public: people the attacker may train on.
        private: people the victim is trained on, drawn among those who have enough images; None for all who
            are not public, every one of whom must have enough.
        train: images a private person.
        validation: images a private person.
        test: images a private person; -1 for all that remain, of which there must be one.
        public_validation: images a public person held out; the others are for training.
        seed: of every draw.
    """

    public: int
    private: int | None
    train: int
    validation: int
    test: int
    public_validation: int
    seed: int

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = -1 if field.name == "test" else 0
            if field.name == "private" and value is None:
                continue
            if type(value) is not int or value < least:
                allowed = f"an integer from {least}" + (", or null" if field.name == "private" else "")
                raise InputError(f"split.{field.name}: {value!r}; allowed: {allowed}")


def plan_splits(
    labels: Sequence[str], plan: SplitPlan, pools: Sequence[str | None] | None = None
) -> dict[str, Indices]:
    """Draw the splits: sorted int64 indices into `labels` under each name of `SPLITS`.

    No person is both public and private, no image is in two splits, and every private person has the same
    number of images in each (all that remain in the test split, where `plan.test` is -1). A person's images
    are known by their order within `labels`, so how people are interleaved does not matter. Where the number
    of private people is given, another number of public ones leaves them as they are; where that of test
    images is given, another number of training images leaves them as they are, if as many people
    have enough.

    Args:
        labels: the person on each image.
        plan: how many of each.
        pools: for each image the only pool that its person may serve in, or None for either.

    Raises:
        InputError: more people than there are, a person with too few images, or one in two pools.
    """
    images = _images_of_each(labels)
    may = _pool_of_each(labels, pools)
    public, private = _draw_people(sorted(images, key=natural), plan, may, images)
    parts: dict[str, list[Indices]] = {name: [] for name in SPLITS}
    for person in public:
        own = _shuffled(images[person], person, plan.public_validation + 1, plan.seed)
        cut = len(own) - plan.public_validation
        parts["public/train"].append(own[:cut])
        parts["public/validation"].append(own[cut:])
    for person in private:
        fixed = plan.train + plan.validation
        own = _shuffled(images[person], person, _needed(plan), plan.seed)
        cut = fixed if plan.test == -1 else len(own) - plan.test
        parts["private/train"].append(own[: plan.train])
        parts["private/validation"].append(own[cut - plan.validation : cut])
        parts["private/test"].append(own[cut:])
    return {name: np.sort(np.concatenate([np.empty(0, np.int64), *found])) for name, found in parts.items()}


def _images_of_each(labels: Sequence[str]) -> dict[str, Indices]:
    images: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        images.setdefault(label, []).append(i)
    return {label: np.array(indices, dtype=np.int64) for label, indices in images.items()}


def _pool_of_each(labels: Sequence[str], pools: Sequence[str | None] | None) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for label, pool in zip(labels, pools or [None] * len(labels), strict=True):
        if found.setdefault(label, pool) != pool:
            raise InputError(f"source: {label!r} is in two pools; allowed: public or private, one of them")
    return found


def _draw_people(
    people: list[str], plan: SplitPlan, pools: Mapping[str, str | None], images: Mapping[str, Indices]
) -> tuple[list[str], list[str]]:
    """Public people from the front of one permutation, private ones from its back."""
    order = np.random.Generator(np.random.PCG64(plan.seed)).permutation(len(people))
    drawn = [people[i] for i in order]
    # Those who can serve in no other pool first: they leave the most for the other.
    may = [person for pool in ("public", None) for person in drawn if pools[person] == pool]
    if plan.public > len(may):
        raise InputError(f"split.public: {plan.public} people; allowed: at most {len(may)}, all there are")
    public = may[: plan.public]
    taken = set(public)
    left = [person for person in drawn if pools[person] in (None, "private") and person not in taken]
    if plan.private is None:
        return public, left
    private, needed = plan.private, _needed(plan)
    left = [person for person in left if len(images[person]) >= needed]
    if private > len(left):
        are = f"the {len(left)} with {needed} images that are not public, of {len(people)}"
        raise InputError(f"split.private: {private} people; allowed: at most {are}")
    return public, left[len(left) - private :]


def _needed(plan: SplitPlan) -> int:
    """Images that a private person must have."""
    return plan.train + plan.validation + (1 if plan.test == -1 else plan.test)


def _shuffled(images: Indices, person: str, needed: int, seed: int) -> Indices:
    """A person's images in an order that hangs on the seed and the name alone."""
    if len(images) < needed:
        raise InputError(f"split: {person!r} has {len(images)} images; needed: {needed}")
    key = int.from_bytes(hashlib.sha256(person.encode("utf-8", "surrogateescape")).digest())
    return np.random.Generator(np.random.PCG64([seed, key])).permutation(images)


def refuse_splits(splits: Mapping[str, Indices], labels: Sequence[str]) -> None:
    """Refuse splits that do not keep what `plan_splits` promises, wherever they come from.

    Raises:
        InputError: other names than `SPLITS`, an index that no image has, an image in two splits, or a person
            both public and private.
    """
    if set(splits) != set(SPLITS):
        raise InputError(f"splits: {sorted(splits)}; allowed: exactly {sorted(SPLITS)}")
    for name in SPLITS:
        if not set(splits[name].tolist()) <= set(range(len(labels))):
            raise InputError(f"split {name!r}: an index outside 0 to {len(labels) - 1}")
    indices, times = np.unique(np.concatenate([splits[name] for name in SPLITS]), return_counts=True)
    if (times > 1).any():
        raise InputError(f"splits: image {indices[times > 1][0]} is held twice; allowed: in one split, once")
    public, private = ({labels[i] for name in pool for i in splits[name]} for pool in (PUBLIC, PRIVATE))
    if public & private:
        raise InputError(f"splits: {min(public & private)!r} is both public and private")
