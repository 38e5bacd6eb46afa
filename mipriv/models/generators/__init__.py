"""Image priors of an attacker: generators learnt from public images only.

Each module here is a plug-in: `build` makes an untrained generator, `fit` learns it.
"""

import itertools
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

Progress = Callable[[int, int], None]


class Generator(nn.Module):
    """Latents to images; what an inversion searches in."""

    latent_dim: int

    @property
    def noise_dim(self) -> int:
        """Width of the standard normal noise that `begin` takes."""
        return self.latent_dim

    @property
    def like(self) -> Tensor:
        """A tensor on the device and of the dtype that latents have to have."""
        return next(itertools.chain(self.parameters(), self.buffers()))

    def begin(self, noise: Tensor) -> Tensor:
        """Where a search begins: latents [n, latent_dim] of standard normal noise [n, noise_dim]."""
        return self.bound(noise)

    def forward(self, z: Tensor) -> Tensor:
        """Images [n, C, H, W] in [0, 1] of latents [n, latent_dim]."""
        raise TypeError(f"{type(self).__name__} defines no forward")

    def bound(self, z: Tensor) -> Tensor:
        """Latents pulled back to where the prior has support: [n, latent_dim] to the same."""
        return z

    def realism(self, z: Tensor, images: Tensor) -> Tensor:
        """How much the prior believes in each row, [n]; larger is more believable."""
        raise TypeError(f"{type(self).__name__} defines no realism")


class Prior(Protocol):
    """What a plug-in of this family offers."""

    def build(self, image_shape: tuple[int, int, int]) -> Generator:
        """An unfitted generator for images of [C, H, W]."""
        ...

    def fit(
        self, images: Tensor, *, seed: int, device: torch.device, progress: Progress | None = None
    ) -> tuple[Generator, list[dict[str, float]]]:
        """Learn from public images [n, C, H, W] in [0, 1].

        Returns:
            The generator in evaluation mode, and one row of figures a logged step.

        Raises:
            InputError: too few images for the knobs.
        """
        ...
