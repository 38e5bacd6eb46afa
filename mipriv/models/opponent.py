"""A decoder that learns, while a client is trained, to undo what it sends, and that the client resists.

What attacker-aware defences share: ResSFL (Li et al., "ResSFL: A Resistance Transfer Framework for Defending
Model Inversion Attack in Split Federated Learning", CVPR 2022) and PATROL (Ding et al., WACV 2024).
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from mipriv.draws import seeded
from mipriv.errors import InputError
from mipriv.metrics.reconstruction import ssim
from mipriv.models.decoders import Decoder
from mipriv.plugin import one_of

MEASURES = ("ssim", "mse")


@dataclass
class Opposed:
    """weight max(0, s - floor), s how well an opponent's decoder does on the batch.

    A batch first teaches the decoder, by one step of an Adam of its own on the features as they were sent,
    detached. Then the decoder, frozen and in evaluation mode, decodes them again for the client's loss:
    neither party gathers gradients from the other's.

    Attributes:
        weight: 0.3 is published.
        floor: of s, below which the client is content: 0.5 is published for `ssim`; for `mse` minus the
            squared error a pixel that suffices.
        measure: s, as a mean over the batch: `ssim`, or `mse`, minus the squared error a pixel, for images
            that do not lie in [0, 1]. The decoder learns by it too, but in `warmup` by the squared error.
        width: of the decoder, see `Decoder`.
        lr: of the decoder.
        warmup: epochs in which only the decoder learns.
        restart: epochs after which a new decoder takes over, with weights drawn anew; 0: never.
    """

    weight: float = 0.3
    floor: float = 0.5
    measure: str = "ssim"
    width: int = 32
    lr: float = 1e-3
    warmup: int = 1
    restart: int = 0
    _key: int = field(init=False, repr=False, default=0)
    _decoder: Decoder | None = field(init=False, repr=False, default=None)
    _adam: torch.optim.Adam | None = field(init=False, repr=False, default=None)
    _since: int = field(init=False, repr=False, default=0)

    def __post_init__(self) -> None:
        one_of(self.measure, MEASURES, "measure")
        if not 0 <= self.weight < math.inf:
            raise InputError(f"weight: {self.weight}; allowed: from 0")
        most = 1 if self.measure == "ssim" else 0
        if not -math.inf < self.floor < most:
            raise InputError(f"floor: {self.floor}; allowed: below {most}, the best {self.measure} can be")
        for name in ("width", "lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: above 0")
        for name in ("warmup", "restart"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: from 0")

    def meet(self) -> None:
        """A new opponent, whose first weights follow from torch's global generator."""
        self._key = int(torch.randint(2**62, ()))
        self.dismiss()

    def dismiss(self) -> None:
        """No opponent any more."""
        self._decoder = self._adam = None

    def resist(self, images: Tensor, sent: Tensor, epoch: int, epochs: int) -> Tensor:
        """The penalty of a batch, after the opponent's step on it; see the class.

        Args:
            images: [n, C, H, W].
            sent: [n, *feature_shape], with their graph.
            epoch: from 0.
            epochs: in all.

        Raises:
            InputError: the client would never resist.
        """
        if self.weight == 0:
            return sent.new_zeros(())
        if self.warmup >= epochs:
            raise InputError(f"warmup: {self.warmup} of {epochs} epochs; allowed: fewer than all")
        decoder = self._step(images, sent.detach(), epoch)
        if epoch < self.warmup:
            return sent.new_zeros(())
        success = self._success(decoder(sent), images, self.measure)
        return self.weight * (success - self.floor).clamp(min=0)

    def _step(self, images: Tensor, sent: Tensor, epoch: int) -> Decoder:
        """The decoder after one step, frozen and in evaluation mode."""
        due = self.restart and epoch % self.restart == 0 and epoch != self._since
        if self._decoder is None or self._adam is None or due:
            with seeded(self._key, "opponent", epoch):
                made = Decoder(
                    tuple(sent.shape[1:]),
                    tuple(images.shape[1:]),  # type: ignore[arg-type]
                    self.width,
                    bounded=self.measure == "ssim",
                )
            self._decoder, self._since = made.to(sent), epoch
            self._adam = torch.optim.Adam(self._decoder.parameters(), self.lr)
        decoder = self._decoder.train().requires_grad_(True)
        measure = "mse" if epoch < self.warmup else self.measure
        self._adam.zero_grad(set_to_none=True)
        (-self._success(decoder(sent), images, measure)).backward()
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        return decoder.eval().requires_grad_(False)

    @staticmethod
    def _success(decoded: Tensor, images: Tensor, measure: str) -> Tensor:
        return ssim(decoded, images).mean() if measure == "ssim" else -F.mse_loss(decoded, images)
