"""LOMMA's company of a victim (Nguyen et al., CVPR 2023): students of it, and how features spread.

An image that only one network takes for the target is overfitted to that network; students of other
architectures, taught by the victim's answers on public images, vote beside it. A target for penultimate
features is drawn from how those of public images spread.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv import draws, plugin
from mipriv.attacks.search import rows as engine
from mipriv.attacks.search.latents import at_least_one
from mipriv.errors import InputError
from mipriv.models.classifiers import Architecture, Classifier

Progress = Callable[[int, int], None]
EFFICIENT = ("torchvision:efficientnet_b0", "torchvision:efficientnet_b1", "torchvision:efficientnet_b2")


@dataclass(frozen=True)
class Distillation:
    """Who the students are and how they learn: KL(victim, student) at temperature 1, by SGD.

    Defaults are the published constants; batches and momentum are not stated.

    Attributes:
        students: classifier plug-ins; `torchvision:NAME` is torchvision's network of that name.
        epochs: passes over the public images.
        batch_size: images a step, and images in memory together when the victim is asked.
        lr: of SGD.
        momentum: of SGD.
        images: public images, at most, that the statistics of features are taken of.
    """

    students: tuple[str, ...] = EFFICIENT
    epochs: int = 20
    batch_size: int = 64
    lr: float = 0.01
    momentum: float = 0.9
    images: int = 5_000

    def __post_init__(self) -> None:
        at_least_one(self, "epochs", "batch_size", "images")
        self.architectures()

    def architectures(self) -> list[Architecture]:
        """The plug-ins behind the names.

        Raises:
            InputError: a name that is none.
        """
        split = [name.partition(":") for name in self.students]
        return [plugin.load("classifier", kind, **({"name": of} if of else {})) for kind, _, of in split]


class Spread(nn.Module):
    """Mean and standard deviation, an entry each, of the features of one model."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.zeros(width))

    def measure(self, features: Tensor) -> None:
        """Take the statistics of features [m, width]; the deviation is that of the m themselves."""
        self.mean.copy_(features.mean(0))
        self.deviation.copy_(features.std(0, correction=0))


class Surrogates(nn.Module):
    """Students, and the spread of public features of the victim and of each student.

    All that is known of a victim is in the weights of one of these: nothing is kept elsewhere, so that no
    victim can be attacked with the statistics of another.

    Args:
        recipe: names the students.
        num_classes: K of the victim.
        image_shape: (C, H, W).
        width: of the victim's penultimate features.
    """

    def __init__(
        self, recipe: Distillation, num_classes: int, image_shape: tuple[int, int, int], width: int
    ) -> None:
        super().__init__()
        made = [architecture.build(num_classes, image_shape) for architecture in recipe.architectures()]
        self.students = nn.ModuleList(made)
        self.spreads = nn.ModuleList(Spread(d) for d in [width, *(s.head.in_features for s in made)])

    def company(self, victim: Classifier) -> list[Classifier]:
        """The victim and its students."""
        return [victim, *(cast(Classifier, student) for student in self.students)]

    def targets(self, identities: Tensor, seed: int, sample: bool) -> list[Tensor]:
        """Features h_reg to come near to, of the victim and of each student.

        Args:
            identities: [n] int64.
            seed: with the identity, the key of a draw.
            sample: whether to draw h_reg ~ N(mean, deviation^2), once an identity; else it is the mean.

        Returns:
            A table [max(identities) + 1, d] for each model, to be looked up by identity.
        """
        tables = []
        for place, spread in enumerate(cast(list[Spread], [*self.spreads])):
            table = spread.mean.repeat(int(identities.max()) + 1, 1)
            for identity in identities.tolist() if sample else []:
                noise = draws.normal((table.shape[1],), seed, identity, "feature target", place)
                table[identity] += spread.deviation * noise.to(table)
            tables.append(table)
        return tables


def admit(victim: object) -> Classifier:
    """The victim, if its features can be had.

    Raises:
        InputError: it is no classifier of a trunk and a head.
    """
    if not isinstance(victim, Classifier):
        raise InputError(f"victim: {type(victim).__name__}; allowed: a Classifier, which embeds")
    return victim


def blank(
    victim: Classifier, recipe: Distillation, num_classes: int, image_shape: tuple[int, int, int]
) -> Surrogates:
    """Surrogates that have learnt nothing, on the device of the victim."""
    like = next(victim.parameters())
    with engine.attacked(victim), torch.no_grad():
        width = victim.embed(torch.zeros(1, *image_shape).to(like)).shape[1]
    with draws.seeded(0, "initial weights"):
        return Surrogates(recipe, num_classes, image_shape, width).to(like).eval()


def learn(
    victim: Classifier,
    public: Tensor,
    recipe: Distillation,
    *,
    seed: int,
    progress: Progress | None = None,
) -> tuple[Surrogates, Tensor, list[dict[str, float]]]:
    """Distil students and measure how features of public images spread; the victim sees each image once.

    Args:
        victim: left as it was, whatever its mode.
        public: [m, C, H, W] in [0, 1]; nothing else is ever shown to victim or students.
        recipe: see `Distillation`.
        seed: of initial weights, dropout, order, and of which images the statistics are taken.
        progress: called with (epochs done, epochs of all students).

    Returns:
        The surrogates in evaluation mode, the victim's logits [m, K], and figures a student and epoch.
    """
    with engine.attacked(victim):
        features = engine.in_chunks(victim.embed, public, recipe.batch_size)
        logits = engine.in_chunks(victim.head, features, recipe.batch_size)
    shape = (public.shape[1], public.shape[2], public.shape[3])
    with draws.seeded(seed, "initial weights"):
        made = Surrogates(recipe, logits.shape[1], shape, features.shape[1]).to(public)
    count, log = len(made.students), []
    for place, student in enumerate(made.students):
        report = (
            None if progress is None else _shifted(progress, place * recipe.epochs, count * recipe.epochs)
        )
        with draws.seeded(seed, "dropout", place):
            order = draws.generator(seed, "order", place)
            losses = distil(student, public, logits, recipe, order, report)
        log += [{"step": epoch, f"student_{place}_kl": loss} for epoch, loss in enumerate(losses)]
    some = torch.randperm(len(public), generator=draws.generator(seed, "statistics"))[: recipe.images]
    some = some.to(public.device)
    _, *students = made.eval().company(victim)
    seen = [engine.in_chunks(student.embed, public[some], recipe.batch_size) for student in students]
    for spread, own in zip(cast(list[Spread], [*made.spreads]), [features[some], *seen], strict=True):
        spread.measure(own)
    return made, logits, log


def distil(
    student: nn.Module,
    images: Tensor,
    logits: Tensor,
    recipe: Distillation,
    order: torch.Generator,
    progress: Progress | None = None,
) -> list[float]:
    """Teach a student in place the softmax of logits [m, K] on images [m, C, H, W].

    Returns:
        KL(victim, student) in nats, the mean over images, of every epoch.
    """
    descent = torch.optim.SGD(student.parameters(), recipe.lr, recipe.momentum)
    told = logits.log_softmax(1)
    losses = []
    student.train()
    for epoch in range(recipe.epochs):
        total = 0.0
        parts = torch.randperm(len(images), generator=order).split(recipe.batch_size)
        # Batch normalisation has no variance over one image.
        parts = tuple(part for part in parts if len(part) > 1) or parts
        for part in (part.to(images.device) for part in parts):
            said = student(images[part]).log_softmax(1)
            loss = F.kl_div(said, told[part], reduction="batchmean", log_target=True)
            descent.zero_grad(set_to_none=True)
            loss.backward()
            descent.step()
            total += loss.item() * len(part)
        losses.append(total / sum(len(part) for part in parts))
        if progress:
            progress(epoch + 1, recipe.epochs)
    descent.zero_grad(set_to_none=True)
    return losses


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _: progress(before + done, total)
