"""The one supervised training loop: victims, judges and public backbones all pass through it."""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv import draws
from mipriv.data.augment import Augment
from mipriv.defenses import Batch, Defense
from mipriv.errors import InputError
from mipriv.models.split_classifier import SplitClassifier
from mipriv.plugin import one_of

Pair = tuple[Tensor, Tensor]
Views = Callable[[Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step; a last batch of one is joined to the one before it.
        optimizer: `sgd` or `adam`.
        lr: learning rate at the start.
        momentum: of SGD (Nesterov off); Adam's first decay rate.
        weight_decay: L2 penalty.
        schedule: `constant`, or `cosine` to zero over the steps.
        select: which epoch's weights are kept: `last`, or `best` on validation accuracy (ties: lower
            validation loss). The test set is never read.
        precision: `fp32`, or `bf16` autocast of the forward pass.
        augment: random view of every training image.
    """

    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"
    select: str = "best"
    precision: str = "fp32"
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        one_of(self.optimizer, ("sgd", "adam"), "optimizer")
        one_of(self.schedule, ("constant", "cosine"), "schedule")
        one_of(self.select, ("last", "best"), "select")
        one_of(self.precision, ("fp32", "bf16"), "precision")
        for name in ("epochs", "batch_size", "lr"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: above 0")


@dataclass(frozen=True)
class Epoch:
    """What one epoch measured; losses are means over images, accuracies fractions."""

    epoch: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class History:
    """Every epoch, and the one whose weights were kept."""

    epochs: list[Epoch]
    kept: Epoch


def train(
    model: nn.Module,
    training: Pair,
    validation: Pair,
    recipe: Recipe,
    defense: Defense,
    *,
    seed: int,
    attributes: Mapping[str, Tensor] | None = None,
    views: Views | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> History:
    """Train a classifier in place, on the device it lies on.

    Args:
        model: [n, C, H, W] to logits [n, K], whole or split; left in evaluation mode with the selected
            weights.
        training: images [n, C, H, W] in [0, 1] and labels [n] int64.
        validation: the same, for selection.
        recipe: see `Recipe`.
        defense: prepared on the model and finished by this call, even where it fails; use `Defense()`
            for plain training.
        seed: of what the defence inserts, the order of images, their views, dropout and other noise.
        attributes: of training images, classes [n] int64 by name, for a defence that hides one.
        views: what the model is shown of training images at places [b] int64, by uniforms [b, Augment.DRAWS],
            in an epoch; None: the recipe's views of them.
        progress: called with (epochs done, epochs).
    """
    try:
        with draws.seeded(seed, "defense"):
            defense.prepare(model, tuple(training[0].shape[1:]))  # type: ignore[arg-type]
        with draws.seeded(seed, "dropout"), released(model, defense, seed, "release"):
            shown = views or _views(model, training[0], recipe)
            return _epochs(
                model, training, validation, recipe, defense, seed, attributes or {}, shown, progress
            )
    finally:
        defense.finish(model)


@contextlib.contextmanager
def released(model: nn.Module, defense: Defense, *key: draws.Key) -> Iterator[None]:
    """Inside the block a split network's features leave its client as the defence releases them."""
    if not isinstance(model, SplitClassifier):
        yield
        return
    random, before = draws.generator(*key), model.release
    model.release = lambda features: defense.release(features, random)
    try:
        yield
    finally:
        model.release = before


def _epochs(
    model: nn.Module,
    training: Pair,
    validation: Pair,
    recipe: Recipe,
    defense: Defense,
    seed: int,
    attributes: Mapping[str, Tensor],
    views: Views,
    progress: Callable[[int, int], None] | None,
) -> History:
    order = draws.generator(seed, "order and views")
    batches = max(1, math.ceil(len(training[0]) / recipe.batch_size))
    optimizer, scheduler = _optimizer(model, recipe, recipe.epochs * batches)
    history: list[Epoch] = []
    kept: tuple[Epoch, dict[str, Tensor]] | None = None
    step = 0
    for epoch in range(recipe.epochs):
        model.train()
        defense.before_epoch(model, epoch)
        total = torch.zeros(2, dtype=torch.float64)
        for rows in _batches(len(training[0]), recipe.batch_size, order):
            uniforms = torch.rand(len(rows), Augment.DRAWS, generator=order)
            batch = _forward(model, views(rows, uniforms, epoch), training[1][rows], recipe, epoch)
            own = {name: classes[rows].to(batch.labels.device) for name, classes in attributes.items()}
            batch = replace(batch, attributes=own)
            loss = defense.loss(batch, step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scheduler.step()
            defense.after_step(model, step)
            step += 1
            hits = (batch.logits.argmax(1) == batch.labels).sum()
            total += torch.tensor([loss.item() * len(rows), hits.item()])
        defense.after_epoch(model, epoch)
        means = (total / len(training[0])).tolist()
        history.append(Epoch(epoch, means[0], means[1], *score(model, validation)))
        if recipe.select == "last" or kept is None or _rank(history[-1]) >= _rank(kept[0]):
            kept = history[-1], copy.deepcopy(model.state_dict())
        if progress:
            progress(epoch + 1, recipe.epochs)
    assert kept is not None
    model.load_state_dict(kept[1])
    model.eval()
    return History(history, kept[0])


@torch.no_grad()
def logits(model: nn.Module, images: Tensor, chunk: int = 256) -> Tensor:
    """Logits [n, K] in evaluation mode, computed in chunks; the model's mode is restored."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    out = torch.cat([model(part.to(device)).float() for part in images.split(chunk)])
    model.train(was_training)
    return out


def score(model: nn.Module, pair: Pair) -> tuple[float, float]:
    """Mean cross-entropy and accuracy on images and labels."""
    out = logits(model, pair[0])
    labels = pair[1].to(out.device)
    accuracy = (out.argmax(1) == labels).double().mean().item()
    return F.cross_entropy(out, labels).item(), accuracy


def _rank(epoch: Epoch) -> tuple[float, float]:
    return epoch.validation_accuracy, -epoch.validation_loss


def _views(model: nn.Module, images: Tensor, recipe: Recipe) -> Views:
    device = next(model.parameters()).device
    return lambda rows, uniforms, _: recipe.augment(images[rows].to(device), uniforms)


def _forward(model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, epoch: int) -> Batch:
    device = images.device
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        out = model(images)
    batch = Batch(images, labels.to(device), out.float(), epoch, recipe.epochs)
    if not isinstance(model, SplitClassifier):
        return batch
    features, sent = model.take()
    return replace(batch, features=features.float(), sent=sent.float())


def _batches(count: int, size: int, generator: torch.Generator) -> list[Tensor]:
    parts = list(torch.randperm(count, generator=generator).split(size))
    # Batch normalisation has no variance over one image.
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _optimizer(
    model: nn.Module, recipe: Recipe, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(weights, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
    else:
        betas = (recipe.momentum, 0.999)
        # Fused: a third of the time over millions of weights, which it reads once.
        optimizer = torch.optim.Adam(weights, recipe.lr, betas, weight_decay=recipe.weight_decay, fused=True)

    def factor(step: int) -> float:
        return 1.0 if recipe.schedule == "constant" else (1 + math.cos(math.pi * min(step / steps, 1))) / 2

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
