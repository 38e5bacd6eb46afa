"""Image classifiers: a trunk that embeds, a head that decides.

Each module here is a plug-in whose `build` makes one architecture.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from mipriv.draws import seeded
from mipriv.models.heads import Head

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """(x - mean) / std a channel; one grey channel is repeated where three are wanted.

    Constants of the architecture, not weights: they are left out of the state dict.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Classifier(nn.Module):
    """`head(trunk(normalise(x)))`.

    Args:
        trunk: [n, C, H, W] to [n, d].
        head: [n, d] to [n, K] logits.
        normalise: applied to images in [0, 1] first.

    Attributes:
        published: the part of the trunk that published weights fill; empty: all of it.
    """

    published: str = ""

    def __init__(self, trunk: nn.Module, head: Head, normalise: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.trunk = trunk
        self.head: Head = head

    def embed(self, x: Tensor) -> Tensor:
        """Penultimate features [n, d] of images [n, C, H, W] in [0, 1]."""
        features: Tensor = self.trunk(self.normalise(x))
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, K] of images [n, C, H, W] in [0, 1]."""
        logits: Tensor = self.head(self.embed(x))
        return logits

    @property
    def num_classes(self) -> int:
        """K, the number of classes the head tells apart."""
        return self.head.out_features


class Architecture(Protocol):
    """What a plug-in of this family offers."""

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> Classifier:
        """An untrained classifier for images of [C, H, W], initialised from torch's global generator."""
        ...


def build(
    architecture: Architecture, num_classes: int, image_shape: tuple[int, int, int], seed: int
) -> Classifier:
    """An untrained classifier whose initial weights depend on `seed` alone."""
    with seeded(seed, "initial weights"):
        return architecture.build(num_classes, image_shape)
