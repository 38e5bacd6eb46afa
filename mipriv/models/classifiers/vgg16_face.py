"""VGG16 with batch normalisation (Simonyan and Zisserman, ICLR 2015) as 64x64 inversion studies use it."""

from dataclasses import dataclass

import torch
from torch import nn

from mipriv.errors import InputError
from mipriv.models.classifiers import Classifier, Normalise

PLAN = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))  # (multiple of the width, convolutions) a stage


@dataclass(frozen=True)
class VGG16Face:
    """torchvision's VGG16-BN features, flattened, normalised, under a linear head (Zhang et al., CVPR 2020).

    `trunk.features.N` is torchvision's `features.N`; published weights fill these alone. A cut names the
    batch normalisation that ends a convolution's layers (to freeze up to the activation 26, name 25). The
    last normalisation's bias stays zero and frozen. Images are taken as they are, in [0, 1]; one grey
    channel is repeated to three. With 64x64 images and 1,000 classes: 16.78M parameters, 13.86M behind
    the cut `trunk.features.25`.

    Attributes:
        width: channels of the first stage; the others are 2, 4, 8 and 8 times as wide.
    """

    width: int = 64

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> Classifier:
        """See `Architecture.build`.

        Raises:
            InputError: images of less than 32 pixels a side, of which five halvings leave nothing.
        """
        _, height, width = image_shape
        halvings = 2 ** len(PLAN)
        if min(height, width) < halvings:
            raise InputError(
                f"vgg16_face: images of {height}x{width}; allowed: at least {halvings}x{halvings}"
            )
        layers: list[nn.Module] = []
        channels = 3
        for multiple, depth in PLAN:
            for _ in range(depth):
                conv = nn.Conv2d(channels, multiple * self.width, 3, padding=1)
                channels = multiple * self.width
                layers += [conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
            layers.append(nn.MaxPool2d(2))
        _initialise(layers)
        flat = channels * (height // halvings) * (width // halvings)
        norm = nn.BatchNorm1d(flat)
        norm.bias.requires_grad_(False)
        trunk = nn.Sequential()
        trunk.add_module("features", nn.Sequential(*layers))
        trunk.add_module("flatten", nn.Flatten())
        trunk.add_module("norm", norm)
        as_it_is = Normalise((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        model = Classifier(trunk, nn.Linear(flat, num_classes), as_it_is)
        model.published = "features"
        return model


@torch.no_grad()
def _initialise(layers: list[nn.Module]) -> None:
    """He's normal weights over the fan out, and no biases, as torchvision starts these layers."""
    for module in layers:
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)
