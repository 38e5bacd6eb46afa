"""Model inversion: images of a class recovered from a classifier that learnt it.

Each module here is a plug-in. The arguments of the call are the threat model: a white-box
attacker is handed the module, and every attacker a prior learnt on public images and the list of
identities; no attacker is handed a private image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from mipriv.models.generators import Generator

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Reconstructions:
    """What an attack recovered for n identities, k images each, best first by the attack's own score.

    Attributes:
        images: [n, k, C, H, W] in [0, 1].
        start: [n, k, C, H, W], where the search began: the floor of selection without optimisation.
        latents: [n, k, latent_dim].
        scores: [n, k], the attack's own belief in each image; larger is better.
        queries: forward evaluations of the victim, in images, over the whole call.
    """

    images: Tensor
    start: Tensor
    latents: Tensor
    scores: Tensor
    queries: int


class WhiteBoxInversion(Protocol):
    """An attacker who holds the model: weights and gradients."""

    def __call__(
        self,
        victim: nn.Module,
        prior: Generator,
        identities: Tensor,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Reconstructions:
        """Attack some of the victim's classes.

        Args:
            victim: images [n, C, H, W] in [0, 1] to logits [n, K]; left as it was found.
            prior: of the public domain.
            identities: [n] int64 classes.
            seed: with identity and restart, the key of every random draw.
            progress: called with (row steps done, row steps).
        """
        ...
