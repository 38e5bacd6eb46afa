"""A narrow densely connected network (Huang et al., CVPR 2017)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mipriv.models.classifiers import Classifier, Normalise


class DenseLayer(nn.Module):
    """Concatenates its input with `growth` new channels: [n, c, h, w] to [n, c + growth, h, w]."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return torch.cat([x, self.conv(torch.relu(self.bn(x)))], 1)


@dataclass(frozen=True)
class SlimDenseNet:
    """A stem of stride 2, then dense blocks joined by halving transitions.

    Attributes:
        growth: channels a layer adds.
        blocks: layers of each dense block.
        dropout: rate before the head.
    """

    growth: int = 16
    blocks: tuple[int, ...] = (3, 3, 3)
    dropout: float = 0.2

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> Classifier:
        """See `Architecture.build`."""
        channels = 2 * self.growth
        trunk = nn.Sequential()
        trunk.add_module("stem", nn.Conv2d(image_shape[0], channels, 5, 2, 2, bias=False))
        for i, depth in enumerate(self.blocks, 1):
            layers = [DenseLayer(channels + j * self.growth, self.growth) for j in range(depth)]
            channels += depth * self.growth
            trunk.add_module(f"block{i}", nn.Sequential(*layers))
            squeeze = nn.Conv2d(channels, channels // 2, 1, bias=False)
            channels //= 2
            trunk.add_module(f"transition{i}", nn.Sequential(squeeze, nn.AvgPool2d(2)))
        trunk.add_module("norm", nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()))
        trunk.add_module("pool", nn.AdaptiveAvgPool2d(2))
        trunk.add_module("flatten", nn.Flatten())
        trunk.add_module("dropout", nn.Dropout(self.dropout))
        return Classifier(trunk, nn.Linear(4 * channels, num_classes), Normalise((0.5,), (0.25,)))
