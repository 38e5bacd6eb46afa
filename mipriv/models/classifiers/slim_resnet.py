"""A narrow residual network (He et al., CVPR 2016) for images of 32 to 64 pixels."""

from dataclasses import dataclass

from torch import nn

from mipriv.models.classifiers import Classifier, Normalise
from mipriv.models.classifiers._residual import Block


@dataclass(frozen=True)
class SlimResNet:
    """Stem of stride 2, then stages of basic blocks, each after the first halving the image.

    Attributes:
        widths: channels of the stages.
        depth: blocks a stage.
    """

    widths: tuple[int, ...] = (16, 32, 64, 128)
    depth: int = 2

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> Classifier:
        """See `Architecture.build`."""
        trunk = nn.Sequential()
        stem = [
            nn.Conv2d(image_shape[0], self.widths[0], 3, 2, 1, bias=False),
            nn.BatchNorm2d(self.widths[0]),
        ]
        trunk.add_module("stem", nn.Sequential(*stem, nn.ReLU()))
        channels = self.widths[0]
        for i, width in enumerate(self.widths, 1):
            first = Block(channels, width, 1 if i == 1 else 2)
            rest = [Block(width, width, 1) for _ in range(self.depth - 1)]
            trunk.add_module(f"stage{i}", nn.Sequential(first, *rest))
            channels = width
        trunk.add_module("pool", nn.AdaptiveAvgPool2d(1))
        trunk.add_module("flatten", nn.Flatten())
        return Classifier(trunk, nn.Linear(channels, num_classes), Normalise((0.5,), (0.25,)))
