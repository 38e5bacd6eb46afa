"""NoPeek (Vepakomma et al., "NoPeek: Information Leakage Reduction to Share Activations in Distributed Deep
Learning", ICDM Workshops 2020): what is sent is made to correlate less with the image.
"""

import math
from dataclasses import dataclass

from torch import Tensor, nn

from mipriv.analysis.dependence import distance_correlation
from mipriv.defenses import Batch, Defense
from mipriv.errors import InputError
from mipriv.models.split_classifier import required
from mipriv.plugin import one_of


@dataclass
class NoPeek(Defense):
    """CE + weight dCor(x, z), the distance correlation over the batch.

    As published it is the biased V-statistic, which a batch of few images and many features brings near 1
    whatever they are: only its slope means something here.

    Attributes:
        weight: of the distance correlation, which lies in [0, 1]. No published value holds across networks.
        on: z is what was `sent`, which is what an attacker has; or clean `features`, as in released code.
        sigma: standard deviation of the noise on what is sent.
    """

    weight: float = 0.1
    on: str = "sent"
    sigma: float = 0.0

    def __post_init__(self) -> None:
        one_of(self.on, ("features", "sent"), "on")
        for name in ("weight", "sigma"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: from 0")

    def prepare(self, model: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """See `Defense.prepare`."""
        required(model, "nopeek")
        super().prepare(model, image_shape)

    def loss(self, batch: Batch, step: int) -> Tensor:
        """See the class and `Defense.loss`."""
        plain, z = super().loss(batch, step), batch.sent if self.on == "sent" else batch.features
        if self.weight == 0:
            return plain
        assert z is not None, "prepare has seen a split classifier"
        return plain + self.weight * distance_correlation(batch.images.flatten(1), z.flatten(1)).to(plain)
