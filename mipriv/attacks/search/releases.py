"""A split network's client as an attacker asks it: with fresh randomness every time, and counted."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mipriv import draws
from mipriv.attacks.reconstruction import Client, Knowledge, opened
from mipriv.errors import InputError

CHUNK = 256  # images in memory together, where nothing else says how many


class Releases:
    """What a client sends of images of the attacker's own, on the device and of the dtype of `observed`.

    Args:
        client: see `Client`.
        known: images of the attacker's own.
        observed: [n, r, *feature_shape], what n targets sent.
        seed: of all that the client draws.

    Attributes:
        queries: images that the client has seen through this.
        repeats: r, releases of every target; what an attacker learns from is averaged over as many.
        targets: [n, *feature_shape], `observed` averaged over its releases.

    Raises:
        InputError: images or observations that are not of these shapes, or none.
    """

    def __init__(self, client: Client, known: Knowledge, observed: Tensor, seed: int) -> None:
        if observed.ndim < 3 or not observed.numel() or not observed.is_floating_point():
            found = f"{observed.dtype} {list(observed.shape)}"
            raise InputError(f"observed: {found}; allowed: floats [n, r, *feature_shape], none of them 0")
        for name, images, least in (("training", known.training, 2), ("validation", known.validation, 1)):
            if images.ndim != 4 or len(images) < least:
                allowed = f"{least} or more images [m, C, H, W]"
                raise InputError(f"{name}: {list(images.shape)}; allowed: {allowed}")
        if known.training.shape[1:] != known.validation.shape[1:]:
            one, other = list(known.validation.shape[1:]), list(known.training.shape[1:])
            raise InputError(f"validation: images {one}; allowed: {other}, as in training")
        self.queries, self.repeats, self.targets = 0, observed.shape[1], observed.mean(1)
        self._client, self._random = client, draws.generator(seed, "releases")

    def once(self, images: Tensor, random: torch.Generator | None = None) -> Tensor:
        """One release [n, *feature_shape] of each of images [n, C, H, W].

        Raises:
            InputError: the client sends other features than those observed.
        """
        self.queries += len(images)
        return self._checked(self._client(images.to(self.targets), random or self._random))

    def times(self, images: Tensor, randoms: Sequence[torch.Generator], draws: int) -> Tensor:
        """Releases [n, draws, *feature_shape] of images [n, C, H, W], each with a generator of its own.

        The network sees an image once, however often its features are released.

        Raises:
            InputError: the client shows no network, or sends other features than those observed.
        """
        sender = opened(self._client)
        self.queries += len(images)
        features = sender.network(images.to(self.targets))
        rows = zip(features, randoms, strict=True)
        return torch.stack(
            [self._checked(sender.release(row.expand(draws, *row.shape), random)) for row, random in rows]
        )

    def _checked(self, sent: Tensor) -> Tensor:
        if sent.shape[1:] != self.targets.shape[1:]:
            found, allowed = list(sent.shape[1:]), list(self.targets.shape[1:])
            raise InputError(f"client: sends {found}; allowed: {allowed}, as observed")
        return sent.to(self.targets)

    @torch.no_grad()
    def mean(self, images: Tensor) -> Tensor:
        """`repeats` fresh releases of each of images [n, C, H, W], averaged: [n, *feature_shape]."""
        parts = []
        for part in images.split(CHUNK):
            total = self.once(part)
            for _ in range(self.repeats - 1):
                total = total + self.once(part)
            parts.append(total / self.repeats)
        return torch.cat(parts)
