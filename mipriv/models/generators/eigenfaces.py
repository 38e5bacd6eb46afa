"""Principal components as a generator (Turk and Pentland, "Eigenfaces for Recognition", 1991).

With a few hundred public images a linear Gaussian model carries identity better than an
adversarial network trained as long: its latents are the whitened coordinates of the components.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mipriv.data.augment import mirrored
from mipriv.errors import InputError
from mipriv.models.generators import Generator, Progress


class LinearGaussian(Generator):
    """x = clamp(mean + z @ directions): directions are components times their standard deviations."""

    mean: Tensor
    directions: Tensor

    def __init__(self, components: int, image_shape: tuple[int, int, int], limit: float) -> None:
        super().__init__()
        self.latent_dim = components
        self.limit = limit
        self.register_buffer("mean", torch.zeros(image_shape))
        self.register_buffer("directions", torch.zeros(components, *image_shape))

    def forward(self, z: Tensor) -> Tensor:
        """See `Generator.forward`."""
        images: Tensor = self.mean.to(z) + torch.tensordot(z, self.directions.to(z), 1)
        return images.clamp(0, 1)

    def bound(self, z: Tensor) -> Tensor:
        """Coordinates clamped to `limit` standard deviations."""
        return z.clamp(-self.limit, self.limit)

    def realism(self, z: Tensor, images: Tensor) -> Tensor:
        """Log density a dimension, up to a constant: -|z|^2 / (2 latent_dim)."""
        return -z.square().mean(1) / 2


@dataclass(frozen=True)
class Eigenfaces:
    """Principal component analysis of public images.

    Attributes:
        components: how many are kept.
        limit: standard deviations within which a latent is believed.
        flips: whether mirror images are added to the public ones.
    """

    components: int = 150
    limit: float = 2.5
    flips: bool = True

    def build(self, image_shape: tuple[int, int, int]) -> LinearGaussian:
        """See `Prior.build`."""
        return LinearGaussian(self.components, image_shape, self.limit)

    def fit(
        self, images: Tensor, *, seed: int, device: torch.device, progress: Progress | None = None
    ) -> tuple[LinearGaussian, list[dict[str, float]]]:
        """See `Prior.fit`; nothing is random here, so `seed` changes nothing."""
        if self.flips:
            images = torch.cat([images, mirrored(images)])
        if len(images) <= self.components:
            raise InputError(
                f"components: {self.components}; allowed: fewer than the {len(images)} public images"
            )
        model = self.build(tuple(images.shape[1:]))  # type: ignore[arg-type]
        rows = images.double().flatten(1)
        mean = rows.mean(0)
        _, spread, axes = torch.linalg.svd(rows - mean, full_matrices=False)
        # The sign of a singular vector is the library's choice: fix it, so that bytes do not depend on it.
        axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
        deviation = spread / (len(rows) - 1) ** 0.5
        directions = deviation[: self.components, None] * axes[: self.components]
        model.mean.copy_(mean.view(images.shape[1:]))
        model.directions.copy_(directions.view(model.directions.shape))
        explained = (deviation[: self.components].square().sum() / deviation.square().sum()).item()
        if progress:
            progress(1, 1)
        return model.to(device).eval(), [{"explained_variance": explained}]
