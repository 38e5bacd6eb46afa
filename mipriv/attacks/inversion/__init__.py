"""Model inversion: images of a class recovered from a classifier that learnt it.

Each module here is a plug-in. What its call is handed is its threat model: `access` says whether
that is the module itself, or a function that answers queries with scores or with labels alone. Every
attacker holds a prior learnt on public images and the list of identities; none is handed a private
image. An attack that has a `study` may first learn from public images what one victim is like; the
result serves every identity.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from mipriv.models.generators import Generator

Access = Literal["weights", "scores", "labels"]
Progress = Callable[[int, int], None]
Query = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Reconstructions:
    """What an attack recovered for n identities, k images each, best first by the attack's own score.

    Attributes:
        images: [n, k, C, H, W] in [0, 1].
        start: [n, k, C, H, W], where the search began: the floor of selection without optimisation.
        latents: [n, k, d] of the space that was searched.
        scores: [n, k], the attack's own belief in each image; larger is better.
        queries: forward evaluations of the victim, in images, over the whole call.
    """

    images: Tensor
    start: Tensor
    latents: Tensor
    scores: Tensor
    queries: int


@dataclass(frozen=True)
class Studied:
    """What a study left.

    Attributes:
        knowledge: a module whose weights are all that was learnt.
        queries: forward evaluations of the victim, in images.
        log: figures by step, each row with its `step`.
    """

    knowledge: nn.Module
    queries: int
    log: list[dict[str, float]]


class Inversion(Protocol):
    """An attacker. `victim` is what `access` grants: see `offer`."""

    access: ClassVar[Access]

    def __call__(
        self,
        victim: nn.Module | Query,
        prior: Generator,
        identities: Tensor,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Reconstructions:
        """Attack some of the victim's classes.

        Args:
            victim: images [n, C, H, W] in [0, 1] to logits [n, K], or to what the access grants; left as it
                was found.
            prior: of the public domain.
            identities: [n] int64 classes.
            seed: with identity and restart, the key of every random draw.
            progress: called with (row steps done, row steps).
        """
        ...


class PreparedInversion(Protocol):
    """An attacker who studies the victim on public images first, once for all identities.

    `learns` names the knobs that the study depends on.
    """

    access: ClassVar[Access]
    learns: ClassVar[tuple[str, ...]]

    def study(
        self,
        victim: nn.Module | Query,
        prior: Generator,
        public: Tensor,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Studied:
        """Learn on public images [m, C, H, W] what the attack will need of this victim.

        Raises:
            InputError: a prior or a victim that the attack cannot use.
        """
        ...

    def blank(
        self,
        victim: nn.Module | Query,
        prior: Generator,
        num_classes: int,
        image_shape: tuple[int, int, int],
    ) -> nn.Module:
        """An unlearnt module of the kind that `study` leaves, to be filled with its weights.

        Raises:
            InputError: a prior that the attack cannot use.
        """
        ...

    def __call__(
        self,
        victim: nn.Module | Query,
        prior: Generator,
        identities: Tensor,
        *,
        knowledge: nn.Module,
        seed: int,
        progress: Progress | None = None,
    ) -> Reconstructions:
        """See `Inversion`; `knowledge` is what `study` left."""
        ...


def offer(victim: nn.Module, access: Access) -> nn.Module | Query:
    """What an attacker with some access is handed of a victim.

    Returns:
        The module itself; or a function of images [n, C, H, W] to softmax scores [n, K], or to labels [n]
        int64, without gradients and in evaluation mode.
    """
    if access == "weights":
        return victim

    @torch.no_grad()
    def ask(images: Tensor) -> Tensor:
        modes = [(module, module.training) for module in victim.modules()]
        victim.eval()
        logits: Tensor = victim(images)
        for module, mode in modes:
            module.training = mode
        return logits.softmax(1) if access == "scores" else logits.argmax(1)

    return ask
