"""A network with one hidden layer."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import nn

from mipriv import draws
from mipriv.attacks.search.audit_nets import Steps, fit, predictor
from mipriv.attacks.search.audits import Learner, Predict, Rows


@dataclass(frozen=True)
class MLP(Learner):
    """Linear, ReLU, dropout, linear; places of features do not matter.

    Attributes:
        width: hidden units.
        dropout: of hidden units, in training.
        training: see `Steps`.
    """

    access: ClassVar[Literal["features"]] = "features"
    width: int = 128
    dropout: float = 0.2
    training: Steps = field(default_factory=Steps)

    def _learn(self, rows: Rows, seed: int) -> tuple[Predict, dict[str, float]]:
        own = rows.flat
        with draws.seeded(seed, "mlp"):
            net = nn.Sequential(
                nn.Flatten(),
                nn.Linear(own.x.shape[1], self.width),
                nn.ReLU(),
                nn.Dropout(self.dropout),
                nn.Linear(self.width, own.classes),
            )
        epoch = fit(net, own, self.training, seed, "mlp")
        return predictor(net), {"epoch": float(epoch)}
