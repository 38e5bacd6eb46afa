"""Layers and networks of StyleGAN2 (Karras et al., CVPR 2020), in plain PyTorch. No plug-in."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2
GAIN = math.sqrt(2)  # keeps the variance of what a leaky ReLU halves


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2, scaled to keep the variance."""
    return F.leaky_relu(x, SLOPE) * GAIN


class Linear(nn.Module):
    """Equalised fully connected layer: weights of unit variance, scaled where they are used.

    Args:
        size_in: inputs.
        size: outputs.
        rate: multiplier of the learning rate of weights and biases.
        start: initial bias.
    """

    def __init__(self, size_in: int, size: int, rate: float = 1.0, start: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size, size_in) / rate)
        self.bias = nn.Parameter(torch.full((size,), start / rate))
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """[n, size_in] to [n, size]."""
        return F.linear(x, self.weight * (self.rate / self.weight.shape[1] ** 0.5), self.bias * self.rate)


class Blur(nn.Module):
    """The binomial filter 1 3 3 1 both ways on every channel, times `gain`, after zero padding."""

    kernel: Tensor

    def __init__(self, padding: tuple[int, int], gain: float = 1.0) -> None:
        super().__init__()
        row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", gain * torch.outer(row, row)[None, None], persistent=False)
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] to [n, c, h + p, w + p] with p = sum(padding) - 3."""
        before, after = self.padding
        channels = x.shape[1]
        padded = F.pad(x, (before, after, before, after))
        return F.conv2d(padded, self.kernel.expand(channels, 1, 4, 4), groups=channels)


class Upsample(nn.Module):
    """Doubles an image: zeros between its pixels, then the binomial filter."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
        self.register_buffer("kernel", torch.outer(row, row)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] to [n, c, 2h, 2w]."""
        channels = x.shape[1]
        kernel = self.kernel.expand(channels, 1, 4, 4)
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=channels)


class Modulated(nn.Module):
    """A convolution whose input channels each image's style scales (eq. 1 to 3).

    The weights w_oi of an image with scales s_i are w_oi s_i, divided by their norm over inputs and
    kernel where demodulated. Both factors commute with the convolution: s scales the input, the norm the
    output, and one convolution with shared weights serves all images. A grouped convolution with
    weights of every image's own computes the same, but copies the weights n times and is slow on a CPU.

    Args:
        style_dim: of the style vector.
        channels_in: of the input.
        channels: of the output.
        size: of the kernel, 1 or 3.
        up: whether the image is doubled on the way.
        demodulate: whether outputs are brought to unit variance.
    """

    def __init__(
        self,
        style_dim: int,
        channels_in: int,
        channels: int,
        size: int = 3,
        up: bool = False,
        demodulate: bool = True,
    ) -> None:
        super().__init__()
        self.affine = Linear(style_dim, channels_in, start=1.0)
        self.weight = nn.Parameter(torch.randn(channels, channels_in, size, size))
        self.blur = Blur((1, 1), gain=4.0) if up else None
        self.demodulate = demodulate

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """[n, channels_in, h, w] and [n, style_dim] to [n, channels, h, w], doubled if `up`."""
        # Demodulation undoes any scale; without it the weights' own must stand in.
        scale = 1.0 if self.demodulate else self.weight[0].numel() ** -0.5
        s = self.affine(style) * scale
        x = x * s[:, :, None, None]
        if self.blur is None:
            y = F.conv2d(x, self.weight, padding=self.weight.shape[2] // 2)
        else:
            y = self.blur(F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2))
        if not self.demodulate:
            return y
        power = s.square() @ self.weight.square().sum((2, 3)).T
        demodulated: Tensor = y * (power + 1e-8).rsqrt()[:, :, None, None]
        return demodulated


class Layer(nn.Module):
    """Modulated convolution, noise of learnt strength, bias, activation.

    The noise of an image is the buffer `noise` unless other noise is given, so that the layer is a
    function of its input alone.
    """

    noise: Tensor

    def __init__(self, style_dim: int, channels_in: int, channels: int, size: int, up: bool) -> None:
        super().__init__()
        self.conv = Modulated(style_dim, channels_in, channels, up=up)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("noise", torch.randn(1, 1, size, size))

    def forward(self, x: Tensor, style: Tensor, random: torch.Generator | None) -> Tensor:
        """[n, channels_in, h, w] and [n, style_dim] to [n, channels, size, size]; see `Synthesis.forward`."""
        noise = self.noise
        if random is not None:
            noise = torch.randn(len(x), *noise.shape[1:], generator=random).to(noise)
        x = self.conv(x, style) + self.strength * noise
        return activate(x + self.bias[:, None, None])


class ToRGB(nn.Module):
    """A modulated 1x1 convolution to image channels, without demodulation."""

    def __init__(self, style_dim: int, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv = Modulated(style_dim, channels_in, channels, size=1, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """[n, channels_in, h, w] and [n, style_dim] to [n, channels, h, w]."""
        image: Tensor = self.conv(x, style) + self.bias[:, None, None]
        return image


class Mapping(nn.Module):
    """z brought to unit length a dimension, then fully connected layers that learn slowly: w."""

    def __init__(self, latent_dim: int, style_dim: int, layers: int) -> None:
        super().__init__()
        sizes = [latent_dim, *[style_dim] * layers]
        pairs = itertools.pairwise(sizes)
        self.layers = nn.ModuleList([Linear(before, after, rate=0.01) for before, after in pairs])

    def forward(self, z: Tensor) -> Tensor:
        """[n, latent_dim] to [n, style_dim]."""
        w = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            w = activate(layer(w))
        return w


class Synthesis(nn.Module):
    """A learnt constant of 4x4, doubled to the image's size; every size adds to the image (skip toRGB).

    Args:
        style_dim: of w.
        widths: channels at 4, 8, ... up to the image's side.
        image_channels: 1 or 3.
    """

    def __init__(self, style_dim: int, widths: list[int], image_channels: int) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        layers = [Layer(style_dim, widths[0], widths[0], 4, up=False)]
        images = [ToRGB(style_dim, widths[0], image_channels)]
        for i, (before, after) in enumerate(itertools.pairwise(widths)):
            layers.append(Layer(style_dim, before, after, 8 * 2**i, up=True))
            layers.append(Layer(style_dim, after, after, 8 * 2**i, up=False))
            images.append(ToRGB(style_dim, after, image_channels))
        self.layers, self.images = nn.ModuleList(layers), nn.ModuleList(images)
        self.upsample = Upsample()

    @property
    def styles(self) -> int:
        """How many style vectors an image takes: one a layer, and one for the last toRGB."""
        return len(self.layers) + 1

    def forward(self, styles: Tensor, random: torch.Generator | None = None) -> Tensor:
        """Images [n, C, H, W] about [-1, 1] of style vectors [n, styles, style_dim].

        Args:
            styles: one a layer; a toRGB shares that of the layer after it.
            random: draws the noise of every image; None: the buffers'.
        """
        x = self.layers[0](self.constant.expand(len(styles), -1, -1, -1), styles[:, 0], random)
        image: Tensor = self.images[0](x, styles[:, 1])
        for i in range(1, len(self.images)):
            x = self.layers[2 * i - 1](x, styles[:, 2 * i - 1], random)
            x = self.layers[2 * i](x, styles[:, 2 * i], random)
            image = self.upsample(image) + self.images[i](x, styles[:, 2 * i + 1])
        return image


class Conv(nn.Module):
    """Equalised convolution of odd size; if `down`, the filter first, then a stride of 2."""

    def __init__(self, channels_in: int, channels: int, size: int, down: bool, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels_in, size, size))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        margin = (size + 1) // 2
        self.blur = Blur((margin, margin)) if down else None

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels_in, h, w] to [n, channels, h, w], halved if `down`."""
        weight = self.weight / self.weight[0].numel() ** 0.5
        if self.blur is None:
            return F.conv2d(x, weight, self.bias, padding=weight.shape[2] // 2)
        return F.conv2d(self.blur(x), weight, self.bias, stride=2)


class Halving(nn.Module):
    """A residual block of the discriminator: (activations of two convolutions + 1x1) / sqrt 2."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.first = Conv(channels_in, channels_in, 3, down=False, bias=True)
        self.second = Conv(channels_in, channels, 3, down=True, bias=True)
        self.skip = Conv(channels_in, channels, 1, down=True, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels_in, h, w] to [n, channels, h / 2, w / 2]."""
        y: Tensor = (activate(self.second(activate(self.first(x)))) + self.skip(x)) / GAIN
        return y


class Discriminator(nn.Module):
    """Residual blocks down to 4x4, the deviation within groups of images as one more channel, a score.

    Args:
        widths: channels at 4, 8, ... up to the image's side.
        image_channels: 1 or 3.
    """

    def __init__(self, widths: list[int], image_channels: int) -> None:
        super().__init__()
        down = widths[::-1]
        self.entry = Conv(image_channels, down[0], 1, down=False, bias=True)
        pairs = itertools.pairwise(down)
        self.blocks = nn.Sequential(*[Halving(before, after) for before, after in pairs])
        self.last = Conv(widths[0] + 1, widths[0], 3, down=False, bias=True)
        self.hidden = Linear(widths[0] * 16, widths[0])
        self.score = Linear(widths[0], 1)

    def forward(self, images: Tensor, group: int) -> Tensor:
        """Scores [n] of images [n, C, H, W] about [-1, 1]; n is a multiple of `group`.

        With a group of one the added channel is constant, and a row depends on itself alone.
        """
        x = self.blocks(activate(self.entry(images)))
        x = activate(self.last(torch.cat([x, deviation(x, group)], 1)))
        score: Tensor = self.score(activate(self.hidden(x.flatten(1))))
        return score.squeeze(1)


def deviation(x: Tensor, group: int) -> Tensor:
    """Minibatch standard deviation (Karras et al., ICLR 2018, section 3): one channel [n, 1, h, w].

    The standard deviation over `group` images that lie n / group rows apart, averaged over channels and
    pixels, the same for all of them.
    """
    parts = x.view(group, -1, *x.shape[1:])
    spread = ((parts - parts.mean(0)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3))
    return spread.repeat(group).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
