"""Random views of images, one a row, as pure functions of uniform draws.

Every view takes its randomness as a table of uniforms, so that training can draw it from a
generator and an attack from its rows' keys (`mipriv.draws`).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mipriv.errors import InputError


@dataclass(frozen=True)
class Augment:
    """A random view: horizontal flip, resized crop, rotation, brightness and contrast.

    Attributes:
        flip: probability of a mirror image.
        area: range of the crop's area, as a fraction of the image's.
        ratio: range of the crop's width over its height, drawn log-uniformly.
        shift: how far a crop may lie off the centre, as a fraction of the room there is (1: anywhere);
            where the area exceeds 1 the border is repeated.
        rotate: largest rotation in degrees, either way.
        jitter: brightness offset and contrast factor are drawn from [-jitter, jitter] and
            [1 - jitter, 1 + jitter].
    """

    flip: float = 0.5
    area: tuple[float, float] = (1.0, 1.0)
    ratio: tuple[float, float] = (1.0, 1.0)
    shift: float = 1.0
    rotate: float = 0.0
    jitter: float = 0.0

    DRAWS = 8

    def __post_init__(self) -> None:
        for name, (low, high) in {"area": self.area, "ratio": self.ratio}.items():
            if not 0 < low <= high:
                raise InputError(f"{name}: {[low, high]}; allowed: two numbers, 0 < low <= high")
        for name, value in {"flip": self.flip, "shift": self.shift, "jitter": self.jitter}.items():
            if not 0 <= value <= 1:
                raise InputError(f"{name}: {value}; allowed: 0 to 1")

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """One random view of each image.

        Args:
            images: [n, C, H, W] in [0, 1].
            draws: [n, DRAWS] uniforms in [0, 1).

        Returns:
            [n, C, H, W], differentiable in `images`.
        """
        if self.still:
            return images
        u = draws.to(images)
        grid = _grid(self._affine(u, images), *images.shape[2:])
        views = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        if not self.jitter:
            return views
        contrast = (1 + self.jitter * (2 * u[:, 6] - 1)).view(-1, 1, 1, 1)
        offset = (self.jitter * (2 * u[:, 7] - 1)).view(-1, 1, 1, 1)
        return ((views - 0.5) * contrast + 0.5 + offset).clamp(0, 1)

    @property
    def still(self) -> bool:
        """Whether every view is the image itself."""
        same = self.area == self.ratio == (1.0, 1.0)
        return same and not (self.flip or self.rotate or self.jitter)

    def _affine(self, u: Tensor, images: Tensor) -> Tensor:
        """[n, 2, 3] maps from output to input coordinates, both in [-1, 1]."""
        area = self.area[0] + (self.area[1] - self.area[0]) * u[:, 0]
        low, high = (math.log(r) for r in self.ratio)
        ratio = torch.exp(low + (high - low) * u[:, 1])
        width, height = (area * ratio).sqrt(), (area / ratio).sqrt()
        # A crop of a narrow area at a wide ratio would stand over the edge: take the widest that fits.
        if self.area[1] <= 1:
            width, height = width.clamp(max=1), height.clamp(max=1)
        right = self.shift * (1 - width).abs() * (2 * u[:, 2] - 1)
        down = self.shift * (1 - height).abs() * (2 * u[:, 3] - 1)
        angle = math.radians(self.rotate) * (2 * u[:, 4] - 1)
        sign = torch.where(u[:, 5] < self.flip, -1.0, 1.0).to(u)
        cos, sin = angle.cos(), angle.sin()
        rows = [sign * width * cos, -height * sin, right, sign * width * sin, height * cos, down]
        return torch.stack(rows, 1).view(-1, 2, 3)


def _grid(affine: Tensor, height: int, width: int) -> Tensor:
    """Where to look [n, H, W, 2] under maps [n, 2, 3]: `affine_grid`, but no product of matrices 3 wide."""
    x, y = ((2 * torch.arange(size).to(affine) + 1) / size - 1 for size in (width, height))
    a = affine[..., None, None]
    return torch.stack([a[:, i, 0] * x + a[:, i, 1] * y[:, None] + a[:, i, 2] for i in (0, 1)], -1)


def mirrored(images: Tensor) -> Tensor:
    """Each image turned left to right: [n, C, H, W] to the same shape."""
    return images.flip(-1)
