"""The nearest neighbours."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mipriv.attacks.search.audits import Learner, Predict, Rows, chosen

SMOOTH = 0.1  # of a vote, that every class has beside those of neighbours


@dataclass(frozen=True)
class KNN(Learner):
    """Votes of the k nearest rows, each class weighing alike; k is chosen on validation.

    Attributes:
        neighbours: k that are tried, those that are no more than the rows.
    """

    access: ClassVar[Literal["features"]] = "features"
    neighbours: tuple[int, ...] = (1, 3, 5, 9, 15, 31)

    def _learn(self, rows: Rows, seed: int) -> tuple[Predict, dict[str, float]]:
        own = rows.flat
        votes = F.one_hot(own.y, own.classes).float() * own.weights

        most = max((k for k in self.neighbours if k <= len(own.y)), default=1)

        def near(of: Tensor) -> Tensor:  # a stable order: of equal distances the earlier row
            apart = torch.cdist(of.flatten(1).double(), own.x.double())
            return apart.argsort(dim=1, stable=True)[:, :most]

        held = near(own.held_x)

        def by(k: int) -> Predict:
            def predict(of: Tensor) -> Tensor:
                order = held if of is own.held_x else near(of)
                counted = votes[order[:, :k]].sum(1) + SMOOTH
                return (counted / counted.sum(1, keepdim=True)).log()

            return predict

        return chosen(own, ((float(k), by(k)) for k in self.neighbours if k <= most), "k")
