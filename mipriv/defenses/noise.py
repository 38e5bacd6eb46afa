"""Gaussian noise on what leaves the client, in training and in use: the plainest defence of split inference,
and the control that others are to be compared with at equal accuracy.
"""

import math
from dataclasses import dataclass, field

from torch import nn

from mipriv.defenses import Defense
from mipriv.errors import InputError
from mipriv.models.split_classifier import required


@dataclass
class Noise(Defense):
    """z = f(x) + sigma e, e ~ N(0, I), and nothing else.

    Attributes:
        sigma: in units of the features; published with features in [0, 1]: 0.01 to 0.15.
    """

    sigma: float = field()  # without it the base class's zero would be its default

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise InputError(f"sigma: {self.sigma}; allowed: above 0")

    def prepare(self, model: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """See `Defense.prepare`."""
        required(model, "noise")
        super().prepare(model, image_shape)
