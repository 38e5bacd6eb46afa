"""Convolutional decoders: images from the features that a part of a network makes of them.

The decoder is learnt on public images alone, as in inversion by a second network (Dosovitskiy and Brox,
"Inverting Visual Representations with Convolutional Networks", CVPR 2016).
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv import draws
from mipriv.data.augment import Augment
from mipriv.errors import InputError

Progress = Callable[[int, int], None]
Encode = Callable[[Tensor], Tensor]

LEAST = 4  # side at which upsampling begins where features have no larger one of their own


class Decoder(nn.Module):
    """Features through convolutions that double the side, to images.

    Features [n, c, h, w] keep their places, unless h or w is below 4. Those, and features of any other
    shape, pass through a linear layer to 4x4 first. A side doubles by a convolution to four times the
    channels, rearranged (Shi et al., CVPR 2016): no convolution runs at the largest side.

    Args:
        feature_shape: of one image's features.
        image_shape: (C, H, W).
        width: channels at half the image's side; doubled with every halving of it, up to 8 times as many.
        bounded: pixels lie in [0, 1], through a sigmoid; otherwise they may be any number.
    """

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        image_shape: tuple[int, int, int],
        width: int,
        bounded: bool = True,
    ) -> None:
        super().__init__()
        channels, *size = image_shape
        placed = len(feature_shape) == 3 and min(feature_shape[1:]) >= LEAST
        side = min(feature_shape[1:]) if placed else LEAST
        doublings = max(1, math.ceil(math.log2(min(size) / side)))
        widths = [width * 2 ** min(i, 3) for i in range(doublings - 1, -1, -1)]
        self.image_shape, self.bounded = image_shape, bounded
        self.enter = _placed(feature_shape[0], widths[0]) if placed else flat(feature_shape, widths[0])
        up: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            up += [nn.BatchNorm2d(before), nn.LeakyReLU(0.2), *_doubled(before, after)]
        self.up = nn.Sequential(*up, nn.LeakyReLU(0.2), *_doubled(widths[-1], channels))

    def forward(self, features: Tensor) -> Tensor:
        """Images [n, C, H, W] of features [n, *feature_shape], in [0, 1] where bounded."""
        images: Tensor = self.up(self.enter(features))
        if images.shape[2:] != self.image_shape[1:]:
            images = F.interpolate(images, self.image_shape[1:], mode="bilinear", align_corners=False)
        return torch.sigmoid(images) if self.bounded else images


def _placed(channels: int, width: int) -> nn.Module:
    return nn.Conv2d(channels, width, 3, 1, 1)


def flat(feature_shape: tuple[int, ...], width: int) -> nn.Module:
    """Features of any shape, through a linear layer, to maps [n, width, LEAST, LEAST]."""
    linear = nn.Linear(math.prod(feature_shape), width * LEAST**2)
    return nn.Sequential(nn.Flatten(), linear, nn.Unflatten(1, (width, LEAST, LEAST)))


def _doubled(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, 4 * after, 3, 1, 1), nn.PixelShuffle(2)]


@dataclass(frozen=True)
class ConvDecoder:
    """How a decoder is built, and learnt on pairs of a random view of a public image and its features.

    The loss is the squared error a pixel, and with `feature_weight` that of the features of the decoded
    image, over the features' variance.

    Attributes:
        width: channels at half the image's side.
        steps: of Adam.
        batch_size: images a step.
        lr: learning rate at the start; it falls to zero by a half cosine.
        feature_weight: of the feature error; 0 leaves the term out.
        augment: random view of every image.
    """

    width: int = 32
    steps: int = 2_000
    batch_size: int = 32
    lr: float = 4e-3
    feature_weight: float = 0.01
    augment: Augment = field(default_factory=lambda: Augment(area=(0.8, 1.0)))

    def __post_init__(self) -> None:
        for name in ("width", "steps", "lr"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: above 0")
        if self.batch_size < 2:
            raise InputError(f"batch_size: {self.batch_size}; allowed: 2 or more")
        if self.feature_weight < 0:
            raise InputError(f"feature_weight: {self.feature_weight}; allowed: 0 or more")

    @property
    def evaluations(self) -> int:
        """How many images `fit` has encoded."""
        return 2 + self.steps * self.batch_size * (2 if self.feature_weight else 1)

    def build(self, feature_shape: tuple[int, ...], image_shape: tuple[int, int, int]) -> Decoder:
        """An unlearnt decoder, initialised from torch's global generator."""
        return Decoder(feature_shape, image_shape, self.width)

    def fit(
        self, encode: Encode, images: Tensor, *, seed: int, progress: Progress | None = None
    ) -> tuple[Decoder, list[dict[str, float]]]:
        """Learn to undo `encode`.

        Args:
            encode: images [n, C, H, W] to features [n, ...], deterministic; differentiable where
                `feature_weight` is not 0. Its parameters gather no gradients if they want none.
            images: [m, C, H, W] in [0, 1], on the device and of the dtype of the work.
            seed: of initial weights, order and views.
            progress: called with (steps done, steps).

        Returns:
            The decoder in evaluation mode, and one row of figures a logged step: `image_error`, the mean
            squared error a pixel, and `feature_error`, relative to the features' variance, where it is used.
        """
        with torch.no_grad():
            sample = encode(images[:2])
        with draws.seeded(seed, "initial weights"):
            model = self.build(tuple(sample.shape[1:]), tuple(images.shape[1:])).to(images)  # type: ignore[arg-type]
        adam = torch.optim.Adam(model.parameters(), self.lr)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, self.steps)
        random = draws.generator(seed, "order and views")
        log = []
        for step in range(self.steps):
            errors = self._errors(model, encode, images, random)
            loss = errors["image_error"] + self.feature_weight * errors.get("feature_error", torch.zeros(()))
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            falling.step()
            if step % max(1, self.steps // 50) == 0 or step == self.steps - 1:
                log.append({"step": float(step), **{k: v.item() for k, v in errors.items()}})
            if progress:
                progress(step + 1, self.steps)
        return model.eval(), log

    def _errors(
        self, model: Decoder, encode: Encode, images: Tensor, random: torch.Generator
    ) -> dict[str, Tensor]:
        rows = torch.randint(len(images), (self.batch_size,), generator=random)
        uniforms = torch.rand(self.batch_size, Augment.DRAWS, generator=random)
        with torch.no_grad():
            views = self.augment(images[rows.to(images.device)], uniforms)
            features = encode(views)
        decoded = model(features)
        errors = {"image_error": F.mse_loss(decoded, views)}
        if self.feature_weight:
            spread = features.var(0).mean().clamp(min=1e-12)
            errors["feature_error"] = F.mse_loss(encode(decoded), features) / spread
        return errors
