"""Dropout of features on their way to the server (He et al., "Attacking and Protecting Data Privacy in
Edge-Cloud Collaborative Inference Systems", IEEE Internet of Things Journal, 2020).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mipriv.defenses import Defense
from mipriv.errors import InputError
from mipriv.models.split_classifier import required


@dataclass
class Dropout(Defense):
    """z = m f(x) + sigma e, entries of m 0 with probability `rate` and otherwise 1, drawn for every query.

    The mask is at work in training, in evaluation and whenever the client is attacked. Kept features are not
    scaled up by 1 / (1 - rate), nor are they in the released code of CEM (Xia et al., CVPR 2025): the server,
    which only ever sees masked ones, learns the scale, and features in [0, 1] stay there, so that `sigma`
    means what it means beside other defences.

    Attributes:
        rate: share of the features that is not sent.
        sigma: standard deviation of the noise on all that is sent, dropped features included.
    """

    rate: float = 0.5
    sigma: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise InputError(f"rate: {self.rate}; allowed: from 0, below 1")
        if not 0 <= self.sigma < math.inf:
            raise InputError(f"sigma: {self.sigma}; allowed: from 0")

    def prepare(self, model: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """See `Defense.prepare`."""
        required(model, "dropout")
        super().prepare(model, image_shape)

    def release(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """See the class and `Defense.release`."""
        if self.rate:
            dropped = torch.rand(features.shape, generator=generator) < self.rate
            features = features.masked_fill(dropped.to(features.device), 0)
        return super().release(features, generator)
