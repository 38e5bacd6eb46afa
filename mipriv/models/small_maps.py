"""Convolutions over maps of few pixels, where a CPU's convolution kernels do not pay.

Images of 64 pixels a side leave the last blocks of an ImageNet network maps of 2 by 2. There oneDNN reorders
more weights than it multiplies: a matrix product is up to three times as fast as a 1 by 1 convolution, and
the gradient of a depthwise one's weights is five times as fast over maps of 3 by 3 as over 2 by 2. What lies
behind gets maps and gradients pixel by pixel: batch normalisation takes ten times as long over others.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PRODUCT = 64  # pixels of a map, up to which a matrix product is no slower
PADDED = 3  # side to which maps that are smaller are padded


class Pointwise(nn.Conv2d):
    """A 1 by 1 convolution, as a product of pixels [n H W, C] and weights where maps are small."""

    def forward(self, input: Tensor) -> Tensor:
        """[n, C, H, W] to [n, C', H, W]."""
        n, channels, height, width = input.shape
        if height * width > PRODUCT or input.device.type != "cpu":
            return super().forward(input)
        pixels = input.permute(0, 2, 3, 1).reshape(-1, channels)
        product = F.linear(pixels, self.weight.flatten(1), self.bias)
        return product.view(n, height, width, -1).permute(0, 3, 1, 2)


class Depthwise(nn.Conv2d):
    """A 3 by 3 depthwise convolution of stride 1, with zeros around small maps while its weights are trained.

    It has zeros there in any case: what it computes is the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[n, C, H, W] to the same shape."""
        height, width = input.shape[2:]
        trained = self.weight.requires_grad and torch.is_grad_enabled()
        if max(height, width) >= PADDED or not trained or input.device.type != "cpu":
            return super().forward(input)
        padded = F.pad(input, (0, PADDED - width, 0, PADDED - height))
        pixels = super().forward(padded).permute(0, 2, 3, 1)[:, :height, :width]
        return pixels.contiguous().permute(0, 3, 1, 2)


class Mean(nn.AdaptiveAvgPool2d):
    """The mean over all pixels, whose gradient lies pixel by pixel."""

    def forward(self, input: Tensor) -> Tensor:
        """[n, C, H, W] to [n, C, 1, 1]."""
        return input.permute(0, 2, 3, 1).flatten(1, 2).mean(1)[..., None, None]


def adopt(network: nn.Module) -> None:
    """Let layers of these kinds choose by the maps that come; weights stay where they are."""
    for module in network.modules():
        # The object itself changes its kind: names, weights and hooks are those that others hold already.
        if type(module) is nn.Conv2d:
            module.__class__ = _kind(module)
        elif type(module) is nn.AdaptiveAvgPool2d and module.output_size in (1, (1, 1)):
            module.__class__ = Mean


def _kind(conv: nn.Conv2d) -> type[nn.Conv2d]:
    plain = conv.stride == (1, 1) and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    if plain and conv.kernel_size == (1, 1) and conv.groups == 1 and conv.padding in ((0, 0), "valid"):
        return Pointwise
    depthwise = conv.groups == conv.in_channels == conv.out_channels
    if plain and depthwise and conv.kernel_size == (3, 3) and conv.padding in ((1, 1), "same"):
        return Depthwise
    return nn.Conv2d
