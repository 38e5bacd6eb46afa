"""The basic block of residual networks (He et al., CVPR 2016), with either shortcut.

No plug-in: `slim_resnet` and `resnet20` are stages of this one block.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

Shortcut = Literal["A", "B"]


class Padded(nn.Module):
    """Option A: every `stride`-th pixel, and zeros for new channels, half in front. It has no weights."""

    def __init__(self, new: int, stride: int) -> None:
        super().__init__()
        self.new, self.stride = new, stride

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] to [n, c + new, h / stride, w / stride], sides rounded up."""
        before = self.new // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.new - before))


class Block(nn.Module):
    """Basic block: relu(shortcut(x) + bn(conv(relu(bn(conv(x)))))), the shortcut x itself where shapes stay.

    Args:
        channels_in: of x.
        channels: of what comes out; with option A no fewer.
        stride: of the first convolution.
        shortcut: where shapes change: `A` subsamples and pads with zeros, `B` projects and normalises.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, shortcut: Shortcut = "B") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            if shortcut == "A":
                self.shortcut = Padded(channels - channels_in, stride)
            else:
                conv = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
                self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels_in, h, w] to [n, channels, h / stride, w / stride], sides rounded up."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))
