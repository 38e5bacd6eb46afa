"""A network that undoes a client, learnt on what the client sends of the attacker's own images.

Fresh randomness of the client goes into every batch. The network is judged, and used, in evaluation mode
alone.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv import draws
from mipriv.attacks.reconstruction import Knowledge, Progress
from mipriv.attacks.search import rows as engine
from mipriv.attacks.search.latents import at_least_one
from mipriv.attacks.search.releases import CHUNK, Releases
from mipriv.errors import InputError
from mipriv.models.decoders import Decoder
from mipriv.models.residual_decoder import ResidualDecoder
from mipriv.plugin import one_of


class Inverse(nn.Module):
    """A decoder, and the scale of its images.

    Where pixels may be any number the decoder's output is in standard deviations from the mean pixel, so
    that no unit of theirs is easier to learn than another.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        """Images [n, C, H, W] of features [n, *feature_shape]."""
        images: Tensor = self.mean + self.deviation * self.decoder(features)
        return images

    def decode(self, features: Tensor) -> Tensor:
        """The same in evaluation mode, in chunks and without gradients."""
        with engine.attacked(self):
            return engine.in_chunks(self, features, CHUNK)


class Pairs:
    """What an attacker learns from and selects by: images, and releases of them averaged as the targets' are.

    Args:
        asked: the client.
        known: the attacker's images.
        batch_size: images a step; a last batch of one is joined to the one before it.
        random: of the order of images.

    Attributes:
        steps: an epoch.
    """

    def __init__(self, asked: Releases, known: Knowledge, batch_size: int, random: torch.Generator) -> None:
        self._asked, self._known, self._size, self._random = asked, known, batch_size, random
        self._held = asked.mean(known.validation), known.validation.to(asked.targets)
        self.steps = len(self._split(torch.arange(len(known.training))))

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Features and images of every training image once, in random order, released afresh."""
        images = self._known.training
        for part in self._split(torch.randperm(len(images), generator=self._random)):
            batch = images[part.to(images.device)].to(self._asked.targets)
            yield self._asked.mean(batch), batch

    def error(self, model: Inverse) -> float:
        """Mean squared error a pixel on the validation images, whose releases are drawn once."""
        features, images = self._held
        return F.mse_loss(model.decode(features), images).item()

    def _split(self, order: Tensor) -> list[Tensor]:
        parts = list(order.split(self._size))
        if len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2:] = [torch.cat(parts[-2:])]
        return parts


class Best:
    """The weights that erred least so far.

    Attributes:
        error: of them, on validation images.
    """

    def __init__(self) -> None:
        self.error = float("inf")
        self._weights: dict[str, Tensor] | None = None

    def offer(self, model: nn.Module, error: float) -> None:
        """Keep the model's weights if they err less; a tie keeps the earlier ones."""
        if error < self.error or self._weights is None:
            self.error, self._weights = error, copy.deepcopy(model.state_dict())

    def restore(self, model: nn.Module) -> None:
        """Give the model the weights kept."""
        assert self._weights is not None, "something was offered"
        model.load_state_dict(self._weights)


@dataclass(frozen=True)
class InverseRecipe:
    """How an inverse is built and learnt: the mean squared error a pixel, by Adam.

    Defaults are the published constants of CEM's decoder `res_normN8C64` (Xia et al., CVPR 2025). They keep
    the last epoch; here the epoch of least validation error is kept.

    Attributes:
        network: `residual`, or `plain` (see `mipriv.models.decoders.Decoder`).
        width: channels; of a plain one at half the image's side.
        blocks: of a residual one.
        epochs: passes over the training images.
        batch_size: images a step.
        lr: learning rate at the start.
        final_lr: at the end of a half cosine over the steps.
        weight_decay: L2 penalty.
    """

    network: str = "residual"
    width: int = 64
    blocks: int = 8
    epochs: int = 50
    batch_size: int = 256
    lr: float = 1e-3
    final_lr: float = 1e-5
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        one_of(self.network, ("residual", "plain"), "network")
        at_least_one(self, "width", "epochs")
        if self.batch_size < 2:
            raise InputError(f"batch_size: {self.batch_size}; allowed: 2 or more")
        if not 0 <= self.final_lr <= self.lr or not self.lr:
            raise InputError(f"lr, final_lr: {self.lr}, {self.final_lr}; allowed: 0 <= final_lr <= lr > 0")
        for name in ("blocks", "weight_decay"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: 0 or more")

    def build(self, asked: Releases, known: Knowledge, seed: int) -> Inverse:
        """An unlearnt inverse, on the device and of the dtype of the work; the seed is of its weights."""
        features: tuple[int, ...] = tuple(asked.targets.shape[1:])
        shape: tuple[int, int, int] = tuple(known.training.shape[1:])  # type: ignore[assignment]
        decoder: nn.Module
        with draws.seeded(seed, "initial weights"):
            if self.network == "plain":
                decoder = Decoder(features, shape, self.width, known.bounded)
            else:
                decoder = ResidualDecoder(features, shape, self.width, self.blocks, known.bounded)
        model = Inverse(decoder).to(asked.targets)
        if not known.bounded:
            pixels = known.training.to(asked.targets)
            model.mean.copy_(pixels.mean())
            model.deviation.copy_(pixels.std().clamp(min=1e-6))
        return model

    @torch.enable_grad()
    def learn(
        self, asked: Releases, known: Knowledge, *, seed: int, progress: Progress | None = None
    ) -> tuple[Inverse, float, list[dict[str, float]]]:
        """Learn to undo what is asked.

        Args:
            asked: the client, without gradients.
            known: the attacker's images.
            seed: of initial weights and order.
            progress: called with (epochs done, epochs).

        Returns:
            The inverse, its mean squared error a pixel on the validation images, and figures an epoch.
        """
        pairs = Pairs(asked, known, self.batch_size, draws.generator(seed, "order"))
        model, best = self.build(asked, known, seed).train(), Best()
        adam = torch.optim.Adam(model.parameters(), self.lr, weight_decay=self.weight_decay)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, self.epochs * pairs.steps, self.final_lr)
        log = []
        for epoch in range(self.epochs):
            losses = []
            for features, images in pairs.epoch():
                loss = F.mse_loss(model(features), images)
                adam.zero_grad(set_to_none=True)
                loss.backward()
                adam.step()
                falling.step()
                losses.append(loss.detach())
            error = pairs.error(model)
            best.offer(model, error)
            mean = torch.stack(losses).mean().item()
            log.append({"step": float(epoch), "training_error": mean, "validation_error": error})
            if progress:
                progress(epoch + 1, self.epochs)
        best.restore(model)
        return model.eval().requires_grad_(False), best.error, log
