"""A StyleGAN2 as a generator to search in w, and the clip of that search. No plug-in."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mipriv.models.generators import Generator
from mipriv.models.generators._style import SLOPE, Discriminator, Mapping, Synthesis

STATISTICS = 10_000  # draws of w that the P space is measured with


class StyleGenerator(Generator):
    """Mapping, synthesis and discriminator; latents are w.

    Buffers: `mean_w`, and the P space (w before its last leaky ReLU, up to a constant factor): its mean,
    and orthonormal axes (rows) with the standard deviation along each.
    """

    mean_w: Tensor
    p_mean: Tensor
    p_axes: Tensor
    p_deviation: Tensor

    def __init__(
        self,
        latent_dim: int,
        style_dim: int,
        mapping_layers: int,
        widths: list[int],
        image_channels: int,
        truncation: float,
        limit: float | None,
    ) -> None:
        super().__init__()
        self.latent_dim = style_dim
        self._noise_dim = latent_dim
        self.truncation, self.limit = truncation, limit
        self.mapping = Mapping(latent_dim, style_dim, mapping_layers)
        self.synthesis = Synthesis(style_dim, widths, image_channels)
        self.critic = Discriminator(widths, image_channels)
        self.register_buffer("mean_w", torch.zeros(style_dim))
        self.register_buffer("p_mean", torch.zeros(style_dim))
        self.register_buffer("p_axes", torch.eye(style_dim))
        self.register_buffer("p_deviation", torch.ones(style_dim))

    @property
    def noise_dim(self) -> int:
        """Dimensions of z, which the mapping takes."""
        return self._noise_dim

    def begin(self, noise: Tensor) -> Tensor:
        """Truncated w [n, style_dim] of z [n, noise_dim]: mean w + truncation (mapping(z) - mean w)."""
        return self.bound(self.mean_w + self.truncation * (self.mapping(noise) - self.mean_w))

    def forward(self, z: Tensor) -> Tensor:
        """Images [n, C, H, W] in [0, 1] of w [n, style_dim], the same for all layers."""
        images: Tensor = self.synthesis(z[:, None].expand(-1, self.synthesis.styles, -1))
        return (images / 2 + 0.5).clamp(0, 1)

    def bound(self, z: Tensor) -> Tensor:
        """w clipped in P space (An et al., "MIRROR", NDSS 2022): to `limit` standard deviations an axis.

        Rows within the limit are returned as they are, bit by bit.
        """
        if self.limit is None:
            return z
        centred = (to_p(z) - self.p_mean) @ self.p_axes.T
        most = self.limit * self.p_deviation
        clipped = torch.minimum(torch.maximum(centred, -most), most)
        outside = (clipped != centred).any(1, keepdim=True)
        return torch.where(outside, F.leaky_relu(clipped @ self.p_axes + self.p_mean, SLOPE), z)

    def realism(self, z: Tensor, images: Tensor) -> Tensor:
        """The discriminator's score of the images, [n].

        Its minibatch deviation is taken over groups of one (a constant channel), so that a row's score
        does not depend on its neighbours; the training's groups serve training alone.
        """
        scores: Tensor = self.critic(2 * images - 1, group=1)
        return scores

    @torch.no_grad()
    def measure(self, random: torch.Generator, whiten: bool) -> None:
        """Fill the P space's buffers from `STATISTICS` draws of z; see `StyleGAN2`."""
        z = torch.randn(STATISTICS, self._noise_dim, generator=random).to(self.mean_w)
        p = to_p(self.mapping(z)).double()
        self.p_mean.copy_(p.mean(0))
        self.p_deviation.copy_(p.std(0, correction=0))
        if whiten:
            variances, axes = torch.linalg.eigh(torch.cov(p.T, correction=0))
            self.p_axes.copy_(axes.T)
            self.p_deviation.copy_(variances.clamp(min=0).sqrt())


def to_p(w: Tensor) -> Tensor:
    """w with its last leaky ReLU undone (slope 0.2: negatives times 5), up to that layer's constant gain."""
    return F.leaky_relu(w, 1 / SLOPE)
