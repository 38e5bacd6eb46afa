"""VGG11 with batch normalisation (Simonyan and Zisserman, ICLR 2015) as split inference uses it."""

from dataclasses import dataclass

from torch import nn

from mipriv.errors import InputError
from mipriv.models.classifiers import Classifier, Normalise

PLAN = (1, 1, 2, 2, 2)  # convolutions a stage
LEAST = 16  # pixels a side


@dataclass(frozen=True)
class VGG11:
    """Five stages of 3x3 convolutions, each max-pooled, and a head of three layers, as ResSFL has it.

    ResSFL (Li et al., CVPR 2022) and CEM (Xia et al., CVPR 2025) cut it after `trunk.stage2`, which ends in
    the second pooling. A pooling is left out where a side of one pixel is all that comes to it: at less
    than 32 pixels the last one. With 32x32 colour images, 10 classes and the bottleneck `noRELU_C8S1` the
    client has 85,256 parameters and the server 9,689,738.

    Attributes:
        widths: channels of the five stages.
        hidden: units of the two layers before the decision.
        dropout: rate before each of the two.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    hidden: int = 512
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if len(self.widths) != len(PLAN):
            raise InputError(f"vgg11, widths: {list(self.widths)}; allowed: {len(PLAN)} of them, one a stage")

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> Classifier:
        """See `Architecture.build`.

        Raises:
            InputError: images of less than 16 pixels a side.
        """
        channels, height, width = image_shape
        if min(height, width) < LEAST:
            raise InputError(f"vgg11: images of {height}x{width}; allowed: at least {LEAST}x{LEAST}")
        trunk = nn.Sequential()
        for i, (wide, depth) in enumerate(zip(self.widths, PLAN, strict=True), 1):
            stage = nn.Sequential()
            for j in range(1, depth + 1):
                stage.add_module(f"conv{j}", nn.Conv2d(channels, wide, 3, padding=1))
                stage.add_module(f"bn{j}", nn.BatchNorm2d(wide))
                stage.add_module(f"relu{j}", nn.ReLU())
                channels = wide
            if min(height, width) > 1:
                stage.add_module("pool", nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            trunk.add_module(f"stage{i}", stage)
        trunk.add_module("flatten", nn.Flatten())
        layers: list[nn.Module] = []
        for inside in (channels * height * width, self.hidden):
            layers += [nn.Dropout(self.dropout), nn.Linear(inside, self.hidden), nn.ReLU()]
        trunk.add_module("mlp", nn.Sequential(*layers))
        return Classifier(trunk, nn.Linear(self.hidden, num_classes), Normalise((0.5,), (0.25,)))
