"""A narrow residual network (He et al., CVPR 2016) for images of 32 to 64 pixels."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from mipriv.models.classifiers import Classifier, Normalise


class Block(nn.Module):
    """Basic block: relu(x + bn(conv(relu(bn(conv(x)))))), the shortcut projected where shapes change."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            conv = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels_in, h, w] to [n, channels, h / stride, w / stride]."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


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
