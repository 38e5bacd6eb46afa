"""A bottleneck at the cut (ResSFL, Li et al., CVPR 2022; CEM, Xia et al., CVPR 2025): what is never sent
cannot be inverted.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn

from mipriv.defenses import Defense
from mipriv.errors import InputError
from mipriv.models.bottleneck import Bottleneck as Shape
from mipriv.models.split_classifier import required


@dataclass
class Bottleneck(Defense):
    """The client ends in a bottleneck, behind the one that its network may have; the server mirrors it.

    Attributes:
        shape: its name, see `mipriv.models.bottleneck`; it sends fewer numbers an image than went before.
        sigma: standard deviation of the noise on what is sent; features lie in [0, 1].
    """

    shape: str = "noRELU_C8S1"
    sigma: float = 0.0

    def __post_init__(self) -> None:
        Shape.parse(self.shape)
        if not 0 <= self.sigma < math.inf:
            raise InputError(f"sigma: {self.sigma}; allowed: from 0")

    def prepare(self, model: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """Put the bottleneck in; see `Defense.prepare`.

        Raises:
            InputError: also for a bottleneck that is none at this cut.
        """
        parties = required(model, "bottleneck")
        narrow = Shape.parse(self.shape).build(parties.feature_shape, int(torch.randint(2**62, ())))
        if (width := math.prod(narrow.feature_shape)) >= parties.width:
            allowed = f"fewer numbers than the {parties.width} at the cut"
            raise InputError(f"shape: {self.shape!r} sends {width}; allowed: {allowed}")
        weight = next(parties.parameters())
        ends = (end.to(weight.device, weight.dtype) for end in (narrow.client, narrow.server))
        client, server = ends
        parties.client = nn.Sequential(parties.client, client)
        parties.server = nn.Sequential(server, parties.server)
        parties.feature_shape = narrow.feature_shape
        super().prepare(model, image_shape)
