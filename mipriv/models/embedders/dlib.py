"""dlib's face network: photographs of faces to 128 numbers.

King, "High quality face recognition with deep metric learning", blog.dlib.net, 2017: a residual network of 29
convolutions (He et al., "Deep residual learning for image recognition", CVPR 2016, with fewer layers and half
the filters), trained from about three million faces of 7,485 people with a pairwise hinge loss on distances.
It knows neither the classifiers judged here nor their labels; celebrities may have been among its people.
Its threshold of 0.6 is for chips that dlib aligned to the eyes; where faces are small or lie otherwise in
their images, points crowd together, and the nearest person tells more than the threshold.

The weights, in the public domain, are read from the PyPI package ``face_recognition_models``, which is not
imported: it wants a module that setuptools no longer has.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv.draws import seeded
from mipriv.errors import InputError
from mipriv.models.classifiers import Normalise
from mipriv.models.embedders import Embedder
from mipriv.models.embedders._dlib_file import BLOCKS, DIM, KERNEL, MEAN, SIDE, STEM, WIDTH, Convolution, read

PACKAGE = "face_recognition_models"
FILE = "dlib_face_recognition_resnet_model_v1.dat"


@dataclass(frozen=True)
class Dlib:
    """The published network, loaded; it has no knobs."""

    def build(self) -> "FaceResNet":
        """See `Embedding.build`."""
        convolutions, head = read(_file())
        with seeded(0, "overwritten"):  # so that torch's global generator stays as it is
            model = FaceResNet()
        for own, published in zip(model.convolutions(), convolutions, strict=True):
            own.load_state_dict(_fold(published))
        model.head.load_state_dict({"weight": torch.from_numpy(head).T})
        return model.eval().requires_grad_(False)


class FaceResNet(Embedder):
    """The network, each affine layer folded into the convolution before it; `Dlib` fills it."""

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.threshold = DIM, 0.6
        # (255 x - mean) / 256; grey is repeated.
        self.normalise = Normalise(tuple(mean / 255 for mean in MEAN), (256 / 255,) * 3)
        self.stem = nn.Conv2d(3, STEM, KERNEL, 2)
        self.blocks = nn.Sequential()
        given = STEM
        for made, halves in BLOCKS:
            self.blocks.append(Residual(given, made, halves))
            given = made
        self.head = nn.Linear(WIDTH, DIM, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """See `Embedder.forward`: all sizes but 150 x 150 are resized; points are not normalised."""
        if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
            raise InputError(f"embedder dlib, images: {list(images.shape)}; allowed: [n, 1 or 3, H, W]")
        x = F.relu(self.stem(self.normalise(resized(images, SIDE))))
        x = self.blocks(F.max_pool2d(x, 3, 2))
        embeddings: Tensor = self.head(x.mean((2, 3)))
        return embeddings

    def convolutions(self) -> list[nn.Conv2d]:
        """From the image up, the order of the published file."""
        return [layer for layer in self.modules() if isinstance(layer, nn.Conv2d)]


class Residual(nn.Module):
    """relu(second(relu(first(x))) + shortcut(x)); where the block halves, the shortcut is averaged 2 x 2."""

    def __init__(self, given: int, made: int, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        self.first = nn.Conv2d(given, made, 3, 2, 0) if halves else nn.Conv2d(given, made, 3, 1, 1)
        self.second = nn.Conv2d(made, made, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, given, h, w] to [n, made, h', w']."""
        shortcut = F.avg_pool2d(x, 2) if self.halves else x
        return F.relu(padded_sum(self.second(F.relu(self.first(x))), shortcut))


def padded_sum(a: Tensor, b: Tensor) -> Tensor:
    """The sum of two [n, c, h, w], in each dimension as long as the longer of them.

    The shorter is followed by zeros: in channels, and in rows and columns too, for a convolution without
    padding makes one fewer than a pooling layer does of an even number.
    """
    size = [max(pair) for pair in zip(a.shape[1:], b.shape[1:], strict=True)]
    return _grown(a, size) + _grown(b, size)


def _grown(x: Tensor, size: list[int]) -> Tensor:
    lacking = [n - m for n, m in zip(size, x.shape[1:], strict=True)]
    return F.pad(x, (0, lacking[2], 0, lacking[1], 0, lacking[0])) if any(lacking) else x


def resized(images: Tensor, side: int) -> Tensor:
    """Images [n, c, h, w] at side x side: bilinear, and antialiased where they shrink."""
    # As products with matrices, for the gradient of torch's own resizing is not deterministic on CUDA.
    rows, columns = (_triangles(length, side).to(images) for length in images.shape[2:])
    return images if images.shape[2:] == (side, side) else rows @ images @ columns.T


def _triangles(length: int, side: int) -> Tensor:
    """[side, length] weights: a triangle about each new centre, a pixel of the coarser grid a side."""
    step = length / side
    centres = (torch.arange(side, dtype=torch.float64) + 0.5) * step
    distance = (torch.arange(length, dtype=torch.float64) + 0.5 - centres[:, None]).abs()
    weights = (1 - distance / max(step, 1.0)).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)


def _fold(published: Convolution) -> dict[str, Tensor]:
    """scale * (weight * x + bias) + shift as one convolution, in double precision before it is rounded."""
    weight, bias, scale, shift = (torch.from_numpy(array).double() for array in published)
    return {"weight": weight * scale[:, None, None, None], "bias": bias * scale + shift}


def _file() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError(
            f"embedder dlib: needs {PACKAGE}; run `pip install --no-deps {PACKAGE}` (extra `faces`)"
        )
    return Path(spec.origin).parent / "models" / FILE
