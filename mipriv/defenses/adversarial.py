"""Attacker-aware training (ResSFL, Li et al., "ResSFL: A Resistance Transfer Framework for Defending Model
Inversion Attack in Split Federated Learning", CVPR 2022; ARL in CEM, Xia et al., CVPR 2025).
"""

import math
from dataclasses import dataclass

from torch import Tensor, nn

from mipriv.defenses import Batch, Defense
from mipriv.errors import InputError
from mipriv.models.opponent import Opposed
from mipriv.models.split_classifier import required


@dataclass
class Adversarial(Opposed, Defense):
    """CE + weight max(0, s - floor), s how well a decoder that learns alongside does; see `Opposed`.

    ResSFL's second half, the transfer of a client so trained to another task, is not part of it.

    Attributes:
        sigma: standard deviation of the noise on what is sent, to the server and to the opponent.
    """

    sigma: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sigma < math.inf:
            raise InputError(f"sigma: {self.sigma}; allowed: from 0")

    def prepare(self, model: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """See `Defense.prepare`."""
        required(model, "adversarial")
        super().prepare(model, image_shape)
        self.meet()

    def loss(self, batch: Batch, step: int) -> Tensor:
        """See the class and `Defense.loss`."""
        assert batch.sent is not None, "prepare has seen a split classifier"
        return super().loss(batch, step) + self.resist(batch.images, batch.sent, batch.epoch, batch.epochs)

    def finish(self, model: nn.Module) -> None:
        """See `Defense.finish`."""
        super().finish(model)
        self.dismiss()
