"""One linear map of the pixels, and a small network behind it: a client whose leakage has a closed form."""

from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from mipriv.errors import InputError
from mipriv.models.classifiers import Classifier


@dataclass(frozen=True)
class LinearEncoder:
    """`head(mlp(W x))` of images x in any range, to be cut after `trunk.encode`.

    W, `trunk.encode.weight`, is [features, C * H * W], without bias, its rows orthonormal at the start. The
    client then sends W x and the defence's noise, of which mutual information and the best reconstruction
    are known exactly where the law of x is. Images are taken as they are.

    Attributes:
        features: rows of W.
        hidden: units of the layers behind it, each under a ReLU; none: the head decides by W x.
        fixed: W is not trained.
    """

    features: int = 16
    hidden: tuple[int, ...] = (64,)
    fixed: bool = False

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> Classifier:
        """See `Architecture.build`.

        Raises:
            InputError: no features, or more than pixels, which no orthonormal rows have.
        """
        pixels = image_shape[0] * image_shape[1] * image_shape[2]
        if not 1 <= self.features <= pixels:
            raise InputError(f"linear_encoder, features: {self.features}; allowed: 1 to {pixels}, the pixels")
        encode = nn.Linear(pixels, self.features, bias=False)
        nn.init.orthogonal_(encode.weight)
        encode.weight.requires_grad_(not self.fixed)
        widths = (self.features, *self.hidden)
        layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
        trunk = nn.Sequential()
        trunk.add_module("flatten", nn.Flatten())
        trunk.add_module("encode", encode)
        trunk.add_module("mlp", nn.Sequential(*layers))
        return Classifier(trunk, nn.Linear(widths[-1], num_classes), nn.Identity())
