"""Reconstruction: images recovered from the features that a client sends.

Each module here is a plug-in. What its call is handed is its threat model: `access` says whether the
client is a function that answers queries, or one that gradients pass through; `Knowledge` holds
images of the targets' kind, never a target; `observed` is all that the targets sent. The client is
as it is in use: whatever its defence draws, it draws for the attacker too.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from mipriv.errors import InputError

Access = Literal["queries", "weights"]
Progress = Callable[[int, int], None]
# Images [n, C, H, W] and a source of randomness, to what leaves the client: [n, *feature_shape].
Client = Callable[[Tensor, torch.Generator], Tensor]


# (features [n, *feature_shape], generator) -> what is sent of them, the defence at work.
Release = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True, eq=False)
class Sender:
    """A client that an attacker with `weights` may open: release(network(images), generator).

    Attributes:
        network: images [n, C, H, W] to features [n, *feature_shape] before the defence draws anything, in
            evaluation mode.
        release: see `Release`.
        truth: the targets themselves [n, C, H, W], shown to an attack with `oracle_reset` alone, to repeat
            what others reported with their help.
    """

    network: nn.Module
    release: Release
    truth: Tensor | None = None

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """See `Client`."""
        return self.release(self.network(images), generator)


@dataclass(frozen=True)
class Knowledge:
    """Images that an attacker has.

    Attributes:
        training: [m, C, H, W], to learn from.
        validation: [v, C, H, W], to select by.
        bounded: pixels lie in [0, 1]; otherwise they may be any number.
    """

    training: Tensor
    validation: Tensor
    bounded: bool


@dataclass(frozen=True)
class Recovered:
    """What an attack recovered.

    Attributes:
        images: [n, C, H, W], in [0, 1] where `Knowledge.bounded` says so.
        validation_error: mean squared error a pixel of what was selected, on the validation images; None
            where nothing was selected by it.
        queries: forward evaluations of the client, in images, over the whole call.
        log: figures by step, each row with its `step`.
        notes: what else the attack says of how it went, by name.
    """

    images: Tensor
    validation_error: float | None
    queries: int
    log: list[dict[str, float]]
    notes: dict[str, str | float] = field(default_factory=dict)


class Reconstruction(Protocol):
    """An attacker."""

    access: ClassVar[Access]

    def __call__(
        self,
        client: Client,
        known: Knowledge,
        observed: Tensor,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Recovered:
        """Recover what targets looked like.

        Args:
            client: see `Client`; without gradients where `access` is `queries`.
            known: images of the attacker's own.
            observed: [n, r, *feature_shape], what n targets sent, each r times over with fresh randomness.
            seed: of every random draw.
            progress: called with (steps done, steps).

        Raises:
            InputError: a client or images that the attack cannot use.
        """
        ...


def opened(client: Client) -> Sender:
    """A client in its two parts.

    Raises:
        InputError: it does not show them.
    """
    network, release = getattr(client, "network", None), getattr(client, "release", None)
    if network is None or release is None:
        raise InputError(f"client: {type(client).__name__} shows no network; allowed: a Sender")
    return Sender(network, release, getattr(client, "truth", None))


def offer(client: Client, access: Access) -> Client:
    """What an attacker with some access is handed of a client."""
    if access == "weights":
        return client

    @torch.no_grad()
    def ask(images: Tensor, generator: torch.Generator) -> Tensor:
        return client(images, generator)

    return ask
