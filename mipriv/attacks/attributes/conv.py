"""A convolutional network."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor, nn

from mipriv import draws
from mipriv.attacks.search.audit_nets import Steps, fit, predictor
from mipriv.attacks.search.audits import Learner, Predict, Rows

LARGE = 6  # places a side


class Head(nn.Module):
    """Two convolutions, each with batch normalisation, pooling to a few places, a hidden layer, scores.

    Large maps are halved by the second one.
    """

    def __init__(self, shape: tuple[int, ...], width: int, places: int, hidden: int, classes: int) -> None:
        super().__init__()
        channels, ends = shape[0], shape[1:] or (1,)
        side, stride = max(1, min(places, *ends)), 2 if min(ends) > LARGE else 1
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(side),
            nn.Flatten(),
            nn.Linear(width * side**2, hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features [n, C, H, W], or [n, d] as d channels of one place, to scores [n, K]."""
        scores: Tensor = self.body(x if x.ndim == 4 else x.flatten(1)[:, :, None, None])
        return scores


@dataclass(frozen=True)
class Conv(Learner):
    """Two convolutions, pooling and a hidden layer; features that are no maps are channels of one place.

    Attributes:
        width: channels of a convolution.
        places: a side that features are pooled to.
        hidden: units.
        training: see `Steps`.
    """

    access: ClassVar[Literal["features"]] = "features"
    width: int = 16
    places: int = 3
    hidden: int = 128
    training: Steps = field(default_factory=lambda: Steps(epochs=25, patience=5))

    def _learn(self, rows: Rows, seed: int) -> tuple[Predict, dict[str, float]]:
        own = rows if rows.x.ndim == 4 else rows.flat
        shape = tuple(own.x.shape[1:])
        with draws.seeded(seed, "conv"):
            net = Head(shape, self.width, self.places, self.hidden, own.classes)
        epoch = fit(net, own, self.training, seed, "conv")
        return predictor(net), {"epoch": float(epoch)}
