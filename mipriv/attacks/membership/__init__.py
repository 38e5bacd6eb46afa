"""Membership: who was in a training set, told from logits.

Each module here is a plug-in. An attack sees what models of known membership answer, and scores another
model's answers; it never sees a model. Every target is scored in one call: alone, each model of a set is a
target once and the others are its references (leave-one-out).
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mipriv.errors import InputError


@dataclass(frozen=True, eq=False)
class Answers:
    """What models say of records, and which of these they were trained on.

    Attributes:
        logits: [M, Q, N, C] float: M models, Q queries (views of a record), N records, C classes.
        labels: [N] int64.
        members: [M, N] bool, whether a model was trained on a record.
        population: [M, Q, Z, C] float, of Z records that no model was trained on, for attacks that compare
            with them; None: there are none.
        population_labels: [Z] int64.

    Raises:
        InputError: shapes that do not belong together.
    """

    logits: Tensor
    labels: Tensor
    members: Tensor
    population: Tensor | None = None
    population_labels: Tensor | None = None

    def __post_init__(self) -> None:
        if self.logits.ndim != 4 or self.logits.shape[-1] < 2:
            raise InputError(f"logits: {list(self.logits.shape)}; allowed: [M, Q, N, C], two classes or more")
        models, queries, records, classes = self.logits.shape
        _require("labels", self.labels, (records,))
        _require("members", self.members, (models, records))
        if self.members.dtype != torch.bool:
            raise InputError(f"members: {self.members.dtype}; allowed: bool")
        if self.population is not None:
            _require("population", self.population, (models, queries, self.population.shape[2], classes))
            if self.population_labels is None:
                raise InputError("population_labels: none; allowed: one of every record of the population")
            _require("population_labels", self.population_labels, (self.population.shape[2],))


class Membership(Protocol):
    """An attacker."""

    def __call__(self, targets: Answers, references: Answers | None = None) -> Tensor:
        """Score how likely records are members of each target.

        Args:
            targets: models under attack; their `members` are not read, except that in leave-one-out each
                model is also a reference for the others.
            references: models of known membership, over the same records, queries and population; None:
                leave-one-out over the targets.

        Returns:
            [T, N] float64; higher: rather a member. NaN where no reference has, or where none lacks, a
            record and the attack needs both.

        Raises:
            InputError: too few references, or no population for an attack that needs one.
        """
        ...


def _require(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(value.shape) != shape:
        raise InputError(f"{name}: {list(value.shape)}; allowed: {list(shape)}")
