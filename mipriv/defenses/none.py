"""No defence: every parameter is trained. Full fine-tuning, the upper end of TL-DMI's curve; of a split
network what its client makes is sent as it is, or behind the noise that its row gives every arm.
"""

import math
from dataclasses import dataclass

from torch import nn

from mipriv.defenses import Defense
from mipriv.errors import InputError
from mipriv.models.split_classifier import required


@dataclass(frozen=True)
class None_(Defense):
    """Plain training.

    Attributes:
        sigma: standard deviation of the noise on what a client sends; 0 for none, as of every whole network.
    """

    sigma: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma < math.inf:
            raise InputError(f"sigma: {self.sigma}; allowed: from 0")

    def prepare(self, model: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """See `Defense.prepare`."""
        super().prepare(model, image_shape)
        if self.sigma:
            required(model, f"none with sigma {self.sigma}")
