"""MobileNetV2 (Sandler et al., CVPR 2018), the architecture of the importable ImageNet trunk."""

from dataclasses import dataclass

from torch import nn
from torchvision.models import mobilenet_v2

from mipriv.models import small_maps
from mipriv.models.classifiers import IMAGENET_MEAN, IMAGENET_STD, Classifier, Normalise


@dataclass(frozen=True)
class MobileNetV2:
    """torchvision's MobileNetV2 trunk, pooled to [n, 1280 * max(1, width)], under a linear head.

    Attributes:
        width: multiplier of every layer's channels.
        dropout: rate before the head.
    """

    width: float = 1.0
    dropout: float = 0.2

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> Classifier:
        """See `Architecture.build`; one grey channel is repeated to three by the normalisation."""
        net = mobilenet_v2(width_mult=self.width)
        for layer in net.modules():
            if isinstance(layer, nn.ReLU6):
                layer.inplace = False  # in place, training would copy what it clips first
        trunk = nn.Sequential()
        trunk.add_module("features", net.features)
        trunk.add_module("pool", nn.AdaptiveAvgPool2d(1))
        trunk.add_module("flatten", nn.Flatten())
        trunk.add_module("dropout", nn.Dropout(self.dropout))
        small_maps.adopt(trunk)
        return Classifier(
            trunk, nn.Linear(net.last_channel, num_classes), Normalise(IMAGENET_MEAN, IMAGENET_STD)
        )
