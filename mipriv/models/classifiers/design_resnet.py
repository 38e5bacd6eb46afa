"""A residual network whose choices of design are knobs, to ask which of them make features leak."""

from dataclasses import dataclass

from torch import Tensor, nn

from mipriv.errors import InputError
from mipriv.models.classifiers import Classifier, Normalise
from mipriv.plugin import one_of

ACTIVATIONS = {"relu": nn.ReLU, "prelu": nn.PReLU, "gelu": nn.GELU}
DOWN = ("stride", "max", "average", "none")
INITS = ("default", "kaiming", "orthogonal")


@dataclass(frozen=True)
class DesignResNet:
    """A 3x3 stem, then stages of basic blocks as in He et al. (CVPR 2016), but for the knobs.

    Attributes:
        widths: channels of the stages; the stem has those of the first.
        depth: blocks a stage.
        skip: whether a block adds what it is given.
        down: how each stage but the first halves the image: `stride` 2 of its first block, `max` or `average`
            pooling in front of it, or `none`.
        activation: `relu`, `prelu` or `gelu`.
        init: of convolutions: torch's `default`, `kaiming` normal, or `orthogonal`.
    """

    widths: tuple[int, ...] = (16, 32, 64)
    depth: int = 1
    skip: bool = True
    down: str = "stride"
    activation: str = "relu"
    init: str = "default"

    def __post_init__(self) -> None:
        one_of(self.down, DOWN, "down")
        one_of(self.activation, ACTIVATIONS, "activation")
        one_of(self.init, INITS, "init")
        if not self.widths or min(self.widths) < 1 or self.depth < 1:
            raise InputError(
                f"widths, depth: {list(self.widths)}, {self.depth}; allowed: one or more, from 1"
            )

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> Classifier:
        """See `Architecture.build`."""
        first = self.widths[0]
        trunk = nn.Sequential()
        stem = [nn.Conv2d(image_shape[0], first, 3, 1, 1, bias=False), nn.BatchNorm2d(first)]
        trunk.add_module("stem", nn.Sequential(*stem, ACTIVATIONS[self.activation]()))
        channels = first
        for i, width in enumerate(self.widths, 1):
            layers: list[nn.Module] = []
            if i > 1 and self.down in ("max", "average"):
                layers.append(nn.MaxPool2d(2) if self.down == "max" else nn.AvgPool2d(2))
            for place in range(self.depth):
                stride = 2 if i > 1 and not place and self.down == "stride" else 1
                layers.append(DesignBlock(channels, width, stride, self.skip, self.activation))
                channels = width
            trunk.add_module(f"stage{i}", nn.Sequential(*layers))
        trunk.add_module("pool", nn.AdaptiveAvgPool2d(1))
        trunk.add_module("flatten", nn.Flatten())
        model = Classifier(trunk, nn.Linear(channels, num_classes), Normalise((0.5,), (0.25,)))
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and self.init == "kaiming":
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.Conv2d) and self.init == "orthogonal":
                nn.init.orthogonal_(module.weight)
        return model


class DesignBlock(nn.Module):
    """Two 3x3 convolutions, and what comes in added or not.

    Args:
        before, after: channels.
        stride: of the first convolution.
        skip: whether there is a shortcut; a 1x1 convolution where shapes differ.
        activation: behind the first convolution and at the end.
    """

    def __init__(self, before: int, after: int, stride: int, skip: bool, activation: str) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            ACTIVATIONS[activation](),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut: nn.Module | None = None
        if skip:
            same = before == after and stride == 1
            self.shortcut = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """[n, before, h, w] to [n, after, h / stride, w / stride]."""
        out: Tensor = self.body(x)
        if self.shortcut is not None:
            out = out + self.shortcut(x)
        found: Tensor = self.activation(out)
        return found
