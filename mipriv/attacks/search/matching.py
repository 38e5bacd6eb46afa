"""How far what a network makes of an image is from what was observed, as equations that a solver can use."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from mipriv.attacks.search.rows import in_chunks
from mipriv.errors import InputError

CHUNK = 64
RELU = (F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)
Map = Callable[[Tensor], Tensor]


class Matching:
    """Equations between images and the features that were observed of them, in units of the features' norm.

    Behind a closing ReLU a feature of 0 says only that what came in was not above it. So an equation stands
    where a feature is positive, and an inequality where it is zero: ReLU's own gradient would be blind
    where a positive feature was observed and the image makes none. Observations with features below zero
    carry noise: there the features themselves are compared.

    Args:
        network: images [n, C, H, W] to features [n, *feature_shape], in evaluation mode.
        observed: [n, *feature_shape].

    Attributes:
        one_sided: whether the network ends in a ReLU.
        unit: [n, 1], norms of what was observed, above 0.
    """

    def __init__(self, network: Map, observed: Tensor, image_shape: tuple[int, ...]) -> None:
        self._network = network
        self._target: Tensor = observed.flatten(1)
        self._clean = (self._target >= 0).all(1, keepdim=True)
        self.unit: Tensor = self._target.norm(dim=1).clamp(min=torch.finfo(observed.dtype).tiny)[:, None]
        with torch.no_grad():
            probe = torch.full((1, *image_shape), 0.5, dtype=observed.dtype, device=observed.device)
            self.one_sided = before_relu(network, probe)[1]

    def __call__(self, images: Tensor, places: Tensor) -> Tensor:
        """What is not right yet, [k, m], of images [k, C, H, W] at those places of the observed."""
        target, unit = self._target[places], self.unit[places]
        if not self.one_sided:
            return (self._network(images).flatten(1) - target) / unit
        before = before_relu(self._network, images)[0].flatten(1)
        after = before.clamp(min=0)
        sided = torch.where(target > 0, before - target, after)
        gaps: Tensor = torch.where(self._clean[places], sided, after - target) / unit
        return gaps

    def relative(self, images: Tensor) -> Tensor:
        """|network(image) - observed| / |observed| [k] of images [k, C, H, W] of the first k observed."""
        features = in_chunks(lambda x: self._network(x).flatten(1), images, CHUNK)
        gaps: Tensor = (features - self._target[: len(images)]).norm(dim=1) / self.unit[: len(images), 0]
        return gaps


class _LastReLU(TorchFunctionMode):
    """Remembers what went into the last ReLU, and what came out."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Tensor | None = None
        self.after: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Passes every call on; see the class."""
        kwargs = dict(kwargs or {})
        if func not in RELU:
            return func(*args, **kwargs)
        before = args[0] if args else kwargs["input"]
        # In place it would overwrite what is wanted.
        self.before, self.after = before, F.relu(before)
        return self.after


def before_relu(network: Map, images: Tensor) -> tuple[Tensor, bool]:
    """What the network returns, or what goes into the ReLU that it ends with, and whether it does."""
    with _LastReLU() as last:
        features = network(images)
    if last.after is not None and features is last.after:
        assert last.before is not None
        return last.before, True
    return features, False


def roughness(images: Tensor) -> Tensor:
    """Differences between neighbouring pixels [n, k], over the root of the number of pixels.

    Their square sum is the total variation of exponent two (Rudin, Osher and Fatemi's with a square) a pixel.
    """
    across, down = images.diff(dim=3).flatten(1), images.diff(dim=2).flatten(1)
    found: Tensor = torch.cat([across, down], 1) / float(images[0].numel()) ** 0.5
    return found


def deterministic(module: nn.Module, where: str) -> None:
    """Refuse a network that computes differently in training mode and is in that mode.

    Raises:
        InputError: names the first normalisation that takes statistics of the batch, or active dropout.
    """
    for name, part in module.named_modules():
        batch = isinstance(part, nn.modules.batchnorm._BatchNorm) and (
            part.training or part.running_mean is None
        )
        if batch or (isinstance(part, nn.modules.dropout._DropoutNd) and part.training and part.p > 0):
            what = "normalises by its batch" if batch else "drops features"
            raise InputError(f"{where}: {name or type(part).__name__} {what}; allowed: evaluation mode")
