"""ResNet-20 for small images (He et al., CVPR 2016), as CEM (Xia et al., CVPR 2025) widens it."""

from dataclasses import dataclass

from torch import nn

from mipriv.errors import InputError
from mipriv.models.classifiers import Classifier, Normalise
from mipriv.models.classifiers._residual import Block, Shortcut
from mipriv.plugin import one_of


@dataclass(frozen=True)
class ResNet20:
    """A stem, three stages of three basic blocks, the mean over places, and a linear head.

    CEM cuts it after `trunk.stage2.0`: behind `noRELU_C8S1` images of 64 pixels leave 8 x 16 x 16 features.
    He et al. (section 4.2) have `widths` (16, 16, 32, 64), `strides` (1, 2, 2) and `stem` 3.

    Attributes:
        widths: channels of the stem, and then of every stage.
        strides: of the stages, each in its first block.
        depth: blocks a stage; 2 x 3 x depth + 2 layers with the published three stages.
        stem: side of the first convolution, odd.
        shortcut: where shapes change, as in `Block`: `A` (zeros) or `B` (projection).
    """

    widths: tuple[int, ...] = (16, 32, 64, 128)
    strides: tuple[int, ...] = (2, 2, 2)
    depth: int = 3
    stem: int = 5
    shortcut: Shortcut = "A"

    def __post_init__(self) -> None:
        one_of(self.shortcut, ("A", "B"), "shortcut")
        if len(self.strides) != len(self.widths) - 1:
            counts = f"{len(self.widths)} widths and {len(self.strides)} strides"
            raise InputError(f"resnet20: {counts}; allowed: one width more (the stem's) than strides")
        if self.stem % 2 == 0:
            raise InputError(f"resnet20, stem: {self.stem}; allowed: an odd number")
        if self.shortcut == "A" and list(self.widths) != sorted(self.widths):
            widths = list(self.widths)
            raise InputError(
                f"resnet20, widths: {widths}; allowed with shortcut A: none below the one before"
            )

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> Classifier:
        """See `Architecture.build`."""
        trunk, channels = nn.Sequential(), self.widths[0]
        conv = nn.Conv2d(image_shape[0], channels, self.stem, 1, self.stem // 2, bias=False)
        trunk.add_module("stem", nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU()))
        for i, (width, stride) in enumerate(zip(self.widths[1:], self.strides, strict=True), 1):
            first = Block(channels, width, stride, self.shortcut)
            rest = [Block(width, width, 1) for _ in range(self.depth - 1)]
            trunk.add_module(f"stage{i}", nn.Sequential(first, *rest))
            channels = width
        trunk.add_module("pool", nn.AdaptiveAvgPool2d(1))
        trunk.add_module("flatten", nn.Flatten())
        return Classifier(trunk, nn.Linear(channels, num_classes), Normalise((0.5,), (0.25,)))
