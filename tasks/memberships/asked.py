"""What a victim and its shadows are asked about, who trains on what, and the logits that they leave."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mipriv import draws
from mipriv.data.dataset import Dataset
from mipriv.data.splits import PRIVATE
from mipriv.shadows import stratified
from mipriv.training import Pair

FILE = "answers.safetensors"


@dataclass(frozen=True)
class Asked:
    """The records that everybody is asked about.

    Attributes:
        images: [N, C, H, W].
        labels: [N] int64, of the victim's task.
        people: [N] int64.
        members: [N] bool, of the victim.
        population: images [Z, C, H, W] that are in nobody's training set.
        population_labels: [Z] int64.
        selecting: images a person that the victim was selected by.
        hidden: classes [N] int64 of the attribute that the victim's defence hides, by its name.
    """

    images: Tensor
    labels: Tensor
    people: Tensor
    members: Tensor
    population: Tensor
    population_labels: Tensor
    selecting: int
    hidden: dict[str, Tensor]

    @classmethod
    def of(cls, data: Dataset, task: str | None, private: str | None, seed: int) -> "Asked":
        """Private images: the victim's own, and as many others of each person."""
        parts = [data.split(name) for name in PRIVATE]
        images, people = (torch.cat(one) for one in zip(*parts, strict=True))
        labels = torch.cat([data.task(name, task) for name in PRIVATE])
        trained = torch.arange(len(people)) < len(parts[0][1])
        pool = stratified.pool_of(people, trained, seed)
        return cls(
            images[pool.records], labels[pool.records], people[pool.records], pool.members,
            images[pool.population], labels[pool.population],
            round(len(parts[1][1]) / len(people.unique())),
            {name: torch.cat([data.attribute(part, name) for part in PRIVATE])[pool.records]
             for name in [private] if name is not None},
        )  # fmt: skip

    def drawn(self, models: int, number: int, seed: int) -> "Drawn":
        """What one shadow of so many is trained on and selected by."""
        members = stratified.halves(self.people, models, seed)[number]
        own = int(draws.stream(seed, "shadow", number).integers(2**31))
        return Drawn(members, stratified.held(self.people, members, max(1, self.selecting), own), own)

    def leave(self, out: Path, said: Callable[[Tensor], Tensor], members: Tensor, mirrored: bool) -> None:
        """Write logits float32 [Q, N, C] of an image and, where wanted, of its mirror image.

        Args:
            out: folder of `FILE`.
            said: logits [n, C] of images [n, C, H, W].
            members: [N] bool, of whoever answers.
            mirrored: whether mirror images are asked about.
        """
        answers = {"logits": queries(said, self.images, mirrored)}
        if len(self.population):
            answers["population"] = queries(said, self.population, mirrored)
        self.write(out, answers, members)

    def write(self, out: Path, answers: dict[str, Tensor], members: Tensor) -> None:
        """Write answers beside whom they are about: see `leave`."""
        known = {"labels": self.labels, "members": members}
        if len(self.population):
            known["population_labels"] = self.population_labels
        save_file(answers | known, out / FILE)


@dataclass(frozen=True)
class Drawn:
    """A shadow's own.

    Attributes:
        members: [N] bool, records that it is trained on.
        selecting: [k] int64, records that it is selected by, none of them a member.
        seed: of its training.
    """

    members: Tensor
    selecting: Tensor
    seed: int

    def pairs(self, inputs: Tensor, labels: Tensor) -> tuple[Pair, Pair]:
        """To train on and to select by, of everybody's inputs [N, ...] and labels [N]."""
        first, second = ((inputs[rows], labels[rows]) for rows in (self.members, self.selecting))
        return first, second


def queries(answer: Callable[[Tensor], Tensor], images: Tensor, mirrored: bool) -> Tensor:
    """Answers float32 [Q, n, ...] about images [n, C, H, W] and, where wanted, their mirror images."""
    views = [images, images.flip(-1)] if mirrored else [images]
    return torch.stack([answer(view) for view in views]).float().cpu().contiguous()
