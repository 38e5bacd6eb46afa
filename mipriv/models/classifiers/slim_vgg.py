"""A narrow plain convolutional network in the manner of VGG (Simonyan and Zisserman, ICLR 2015)."""

from dataclasses import dataclass

from torch import nn

from mipriv.models.classifiers import Classifier, Normalise


@dataclass(frozen=True)
class SlimVGG:
    """A 5x5 stem, then 3x3 convolutions with batch normalisation, max-pooled after each.

    Attributes:
        widths: channels of the convolutions; the first belongs to the stem.
        dropout: rate before the head.
    """

    widths: tuple[int, ...] = (24, 48, 96, 128)
    dropout: float = 0.2

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> Classifier:
        """See `Architecture.build`."""
        trunk = nn.Sequential()
        channels = image_shape[0]
        for i, width in enumerate(self.widths, 1):
            kernel = 5 if i == 1 else 3
            conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
            trunk.add_module(
                f"conv{i}", nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2))
            )
            channels = width
        trunk.add_module("pool", nn.AdaptiveAvgPool2d(2))
        trunk.add_module("flatten", nn.Flatten())
        trunk.add_module("dropout", nn.Dropout(self.dropout))
        return Classifier(trunk, nn.Linear(4 * channels, num_classes), Normalise((0.5,), (0.25,)))
