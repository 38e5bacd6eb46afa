"""The improved residual networks that face recognition trains (ArcFace, Deng et al., CVPR 2019, section 3.1).

No plug-in: `ir152`, `facenet64` and `facenet112` are depths and sizes of this one network.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mipriv.errors import InputError
from mipriv.models.classifiers import Classifier, Normalise


class Block(nn.Module):
    """x + bn(conv(prelu(conv(bn(x))))): nothing follows the sum, and the second convolution strides.

    The shortcut subsamples where channels stay, and is a projection with normalisation where they change.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.shortcut: nn.Module = nn.MaxPool2d(1, stride)
        if channels_in != channels:
            conv = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(channels))
        self.residual = nn.Sequential(
            nn.BatchNorm2d(channels_in),
            nn.Conv2d(channels_in, channels, 3, 1, 1, bias=False),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels_in, h, w] to [n, channels, h / stride, w / stride]."""
        y: Tensor = self.residual(x) + self.shortcut(x)
        return y


def build(
    depths: Sequence[int],
    width: int,
    embedding: int,
    dropout: float,
    num_classes: int,
    image_shape: tuple[int, int, int],
    input_size: int | None = None,
) -> Classifier:
    """An improved residual network under a linear head, to be cut at `trunk.blocks.N` (N from 0).

    The trunk is `stem`, `blocks` (all stages in one sequence, each stage's first block strides) and
    `output`, which maps the whole last feature map to the embedding. Images are taken as they are, in
    [0, 1]; one grey channel is repeated to three.

    Args:
        depths: blocks of the stages, whose channels are `width` times 1, 2, 4, 8.
        width: channels of the stem and the first stage.
        embedding: dimensions the head reads.
        dropout: rate before the embedding.
        num_classes: K.
        image_shape: (C, H, W) of the images.
        input_size: side the images are resized to first (bilinearly); None: taken as they are.

    Raises:
        InputError: images too small to leave a pixel after every stage's halving.
    """
    height, width_in = image_shape[1:] if input_size is None else (input_size, input_size)
    if min(height, width_in) < 2 ** len(depths):
        least = 2 ** len(depths)
        raise InputError(f"images of {height}x{width_in}; allowed: at least {least}x{least}")
    blocks, channels = [], width
    for stage, depth in enumerate(depths):
        for i in range(depth):
            blocks.append(Block(channels, width * 2**stage, 2 if i == 0 else 1))
            channels = width * 2**stage
    for _ in depths:
        height, width_in = (height + 1) // 2, (width_in + 1) // 2
    trunk = nn.Sequential()
    stem = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width)]
    trunk.add_module("stem", nn.Sequential(*stem))
    trunk.add_module("blocks", nn.Sequential(*blocks))
    trunk.add_module(
        "output",
        nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(channels * height * width_in, embedding),
            nn.BatchNorm1d(embedding),
        ),
    )
    _initialise(trunk)
    normalise: nn.Module = Normalise((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    if input_size is not None:
        normalise = nn.Sequential(nn.Upsample((input_size, input_size), mode="bilinear"), normalise)
    return Classifier(trunk, nn.Linear(embedding, num_classes), normalise)


@torch.no_grad()
def _initialise(trunk: nn.Module) -> None:
    """Glorot's uniform weights and no biases; normalisation and PReLU keep torch's start."""
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
