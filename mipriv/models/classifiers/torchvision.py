"""Any classifier of torchvision by its name there."""

from dataclasses import dataclass

import torchvision
from torch import nn

from mipriv.errors import InputError
from mipriv.models.classifiers import IMAGENET_MEAN, IMAGENET_STD, Classifier, Normalise
from mipriv.plugin import one_of

AUXILIARY = ("AuxLogits", "aux1", "aux2")


@dataclass(frozen=True)
class TorchVision:
    """`torchvision.models.get_model(name)` with its last linear layer replaced by the head.

    Auxiliary classifiers (`inception_v3`, `googlenet`) are left out, so that one network has one output
    in training as in evaluation; the same two shift their input from ImageNet's statistics to their own.

    Attributes:
        name: as torchvision spells it, e.g. `resnet18`, `vgg16_bn`, `vit_b_16`.
        input_size: side the images are resized to, where the network fixes one (vision transformers;
            299 for `inception_v3`).
    """

    name: str
    input_size: int | None = None

    def __post_init__(self) -> None:
        one_of(self.name, torchvision.models.list_models(torchvision.models), "torchvision model")

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> Classifier:
        """See `Architecture.build`.

        Raises:
            InputError: the network has no linear layer to put a head in the place of.
        """
        net = torchvision.models.get_model(self.name, weights=None)
        _one_output(net)
        linear = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise InputError(f"torchvision model {self.name!r} has no linear layer to replace by a head")
        parent, _, child = linear[-1].rpartition(".")
        last = net.get_submodule(linear[-1])
        setattr(net.get_submodule(parent), child, nn.Identity())
        normalise: nn.Module = Normalise(IMAGENET_MEAN, IMAGENET_STD)
        if self.input_size:
            normalise = nn.Sequential(
                nn.Upsample((self.input_size, self.input_size), mode="bilinear"), normalise
            )
        return Classifier(net, nn.Linear(last.in_features, num_classes), normalise)


def _one_output(net: nn.Module) -> None:
    """Take auxiliary classifiers out of a network of the Inception family, and have it shift its input."""
    if not isinstance(net, torchvision.models.Inception3 | torchvision.models.GoogLeNet):
        return
    net.aux_logits = False
    net.transform_input = True
    for name in AUXILIARY:
        if hasattr(net, name):
            setattr(net, name, None)
