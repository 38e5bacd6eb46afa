"""The residual decoder that defences of split inference are measured with (ResSFL, Li et al., CVPR 2022)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv.models.decoders import LEAST, flat


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions behind batch normalisation and ReLU, and a shortcut past both.

    Activations come first (He et al., "Identity Mappings", ECCV 2016), so a block may end a network.

    Args:
        before: channels that come.
        after: channels that leave; where they differ the shortcut is a 1x1 convolution.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.ReLU(),
            nn.Conv2d(before, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1),
        )
        self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, before, h, w] to [n, after, h, w]."""
        out: Tensor = self.shortcut(x) + self.body(x)
        return out


class ResidualDecoder(nn.Module):
    """Residual blocks at the features' size, then transposed convolutions that double it.

    `res_normN8C64` of CEM (Xia et al., CVPR 2025) is width 64 and 8 blocks. Features that are no maps pass
    through a linear layer to 4x4 first; where doubling misses the image's size the image is resized.

    Args:
        feature_shape: of one image's features.
        image_shape: (C, H, W).
        width: channels.
        blocks: between the first block, to `width` channels, and the doublings.
        bounded: a sigmoid ends it; otherwise images may be any number.
    """

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        image_shape: tuple[int, int, int],
        width: int = 64,
        blocks: int = 8,
        bounded: bool = True,
    ) -> None:
        super().__init__()
        channels, *size = image_shape
        placed = len(feature_shape) == 3
        side = min(feature_shape[1:]) if placed else LEAST
        entering = nn.Identity() if placed else flat(feature_shape, width)
        layers: list[nn.Module] = [entering, ResidualBlock(feature_shape[0] if placed else width, width)]
        layers += [ResidualBlock(width, width) for _ in range(blocks)]
        for _ in range(max(0, math.ceil(math.log2(min(size) / side)))):
            doubling = nn.ConvTranspose2d(width, width, 4, 2, 1, bias=False)
            layers += [doubling, nn.BatchNorm2d(width), nn.ReLU()]
        self.body = nn.Sequential(*layers, ResidualBlock(width, channels))
        self.image_shape, self.bounded = image_shape, bounded

    def forward(self, features: Tensor) -> Tensor:
        """Images [n, C, H, W] of features [n, *feature_shape]."""
        images: Tensor = self.body(features)
        if images.shape[2:] != self.image_shape[1:]:
            images = F.interpolate(images, self.image_shape[1:], mode="bilinear", align_corners=False)
        return torch.sigmoid(images) if self.bounded else images
