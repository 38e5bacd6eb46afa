"""Label smoothing, positive and negative (Struppek et al., "Be Careful What You Smooth For", ICLR 2024).

Positive smoothing makes a classifier give away more to model inversion, negative less.
"""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from mipriv.defenses import Batch, Defense
from mipriv.errors import InputError
from mipriv.models.freeze import Freeze
from mipriv.plugin import one_of

SCHEDULES = ("constant", "ppa")


@dataclass
class LabelSmoothing(Defense):
    """(1 - a) CE + a mean_k(-log p_k), a from a schedule.

    Attributes:
        alpha: a at full strength, of any sign; negative: the loss rewards improbable wrong classes.
        schedule: `constant`, or `ppa`, the published one, see `strength`.
        freeze: TL-DMI beside it.
    """

    alpha: float = -0.05
    schedule: str = "ppa"
    freeze: Freeze | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha < 1):
            raise InputError(f"alpha: {self.alpha}; allowed: below 1, of any sign")
        one_of(self.schedule, SCHEDULES, "schedule")

    def strength(self, epoch: int, epochs: int) -> float:
        """The a of an epoch (from 0) out of `epochs`.

        `ppa` of 100 epochs: 0 for e < 50, alpha (e - 49) / 50 for 50 <= e < 75, then alpha. It jumps from
        alpha / 2 to alpha, as published. Of E epochs: 50, 75 and 49 become E / 2, 3 E / 4 and E / 2 - 1, so
        that a single epoch is never smoothed.
        """
        half = epochs / 2
        if self.schedule == "constant" or epoch >= 1.5 * half:
            return self.alpha
        return 0.0 if epoch < half else self.alpha * (epoch - half + 1) / half

    def loss(self, batch: Batch, step: int) -> Tensor:
        """See the class and `Defense.loss`."""
        plain, alpha = super().loss(batch, step), self.strength(batch.epoch, batch.epochs)
        if alpha == 0:
            return plain
        return (1 - alpha) * plain + alpha * -F.log_softmax(batch.logits, dim=1).mean()
