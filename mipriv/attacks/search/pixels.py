"""What is believed of images before anything is observed: nothing, smoothness, or a Gaussian."""

from dataclasses import dataclass

import torch
from torch import Tensor


def total_variation(images: Tensor) -> Tensor:
    """Sum of absolute differences between neighbours over the number of pixels (anisotropic), one a row.

    Args:
        images: [n, C, H, W].

    Returns:
        [n].
    """
    across, down = images.diff(dim=3).abs(), images.diff(dim=2).abs()
    total = across.flatten(1).sum(1) + down.flatten(1).sum(1)
    return total / images[0].numel()


@dataclass(frozen=True)
class Gaussian:
    """x = mean + (floor I + V diag(gain) V') u with u ~ N(0, I), a symmetric root of x's covariance.

    Attributes:
        mean: [d].
        axes: V, [d, k], orthonormal.
        gain: [k], above what every direction has.
        floor: standard deviation of every direction.
        shrinkage: weight of the spherical part of the covariance.
    """

    mean: Tensor
    axes: Tensor
    gain: Tensor
    floor: Tensor
    shrinkage: float

    def pixels(self, u: Tensor) -> Tensor:
        """Whitened coordinates [n, d] to pixels [n, d]."""
        return self.mean + self.floor * u + (u @ self.axes * self.gain) @ self.axes.T


def gaussian(images: Tensor, shrinkage: float | None = None) -> Gaussian:
    """The Gaussian of images [m, C, H, W], its covariance (1 - s) S + s tr(S)/d I.

    S is the sample covariance over m. The work is done in float64 by the smaller of its two Gram matrices.

    Args:
        images: at least two.
        shrinkage: s in [0, 1]; None: that of Ledoit and Wolf ("A well-conditioned estimator for
            large-dimensional covariance matrices", J. Multivariate Analysis 2004).
    """
    rows = images.flatten(1).double()
    mean = rows.mean(0)
    rows = rows - mean
    m, d = rows.shape
    if m < d:
        variances, left = torch.linalg.eigh(rows @ rows.T / m)
        kept = variances > torch.finfo(rows.dtype).eps * m * variances[-1]
        axes = rows.T @ left[:, kept] / (m * variances[kept]).sqrt()
    else:
        variances, axes = torch.linalg.eigh(rows.T @ rows / m)
        kept = variances > torch.finfo(rows.dtype).eps * m * variances[-1]
        axes = axes[:, kept]
    variances = variances[kept]
    level = variances.sum() / d
    if shrinkage is None:
        squares = variances.square().sum()
        # |S - level I|^2, and how far the squares of single images lie from S, both over d.
        apart = squares / d - level.square()
        noise = (rows.square().sum(1).square().mean() - squares) / (m * d)
        shrinkage = float((noise / apart.clamp(min=1e-300)).clamp(0, 1))
    floor = (shrinkage * level).sqrt()
    gain = ((1 - shrinkage) * variances + shrinkage * level).sqrt() - floor
    return Gaussian(mean.to(images), axes.to(images), gain.to(images), floor.to(images), shrinkage)
