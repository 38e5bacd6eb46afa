"""A classifier in two parties: a client that sees images, and a server that sees what the client releases."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from mipriv.errors import InputError
from mipriv.models import classifiers
from mipriv.models.bottleneck import Bottleneck
from mipriv.models.classifiers import Architecture
from mipriv.models.split import split

Shape = tuple[int, int, int]


class SplitClassifier(nn.Module):
    """`server(release(client(x)))`.

    Args:
        client: images [n, C, H, W] in [0, 1] to features [n, *feature_shape].
        server: released features to logits [n, K].
        feature_shape: of one image's features.
        num_classes: K.

    Attributes:
        release: features to what leaves the client; nothing is done to them unless a defence is set here.
        features: of the last forward pass, with their graph, before release.
        sent: the same, after release.
    """

    def __init__(
        self, client: nn.Module, server: nn.Module, feature_shape: tuple[int, ...], num_classes: int
    ) -> None:
        super().__init__()
        self.client, self.server = client, server
        self.feature_shape, self.num_classes = feature_shape, num_classes
        self.release: Callable[[Tensor], Tensor] = _whole
        self.features: Tensor | None = None
        self.sent: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, K] of images [n, C, H, W] in [0, 1]."""
        self.features = self.client(x)
        self.sent = self.release(self.features)
        logits: Tensor = self.server(self.sent)
        return logits

    def take(self) -> tuple[Tensor, Tensor]:
        """`features` and `sent` of the last forward pass, handed over once."""
        assert self.features is not None and self.sent is not None, "a forward pass comes first"
        taken = self.features, self.sent
        self.features = self.sent = None
        return taken

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: not the last pass, whose graph cannot be copied."""
        return {**self.__dict__, "features": None, "sent": None}

    @property
    def width(self) -> int:
        """D, the number of features of an image."""
        return math.prod(self.feature_shape)


def _whole(features: Tensor) -> Tensor:
    return features


def required(model: nn.Module, who: str) -> SplitClassifier:
    """`model` itself, where it is one of two parties.

    Raises:
        InputError: it is whole, and `who` works on what a client sends.
    """
    if not isinstance(model, SplitClassifier):
        raise InputError(f"{who}: {type(model).__name__} sends no features; allowed: a split classifier")
    return model


def build(
    architecture: Architecture,
    num_classes: int,
    image_shape: Shape,
    cut: str,
    bottleneck: str | None,
    seed: int,
) -> SplitClassifier:
    """An untrained classifier, cut after a module, with a bottleneck at the cut where one is named.

    Args:
        architecture: of the whole network.
        num_classes: K.
        image_shape: (C, H, W).
        cut: name of the client's last module.
        bottleneck: as in `Bottleneck.parse`, or None.
        seed: all that the initial weights depend on.

    Raises:
        InputError: the network cannot be cut there, or there is no such bottleneck.
    """
    whole = classifiers.build(architecture, num_classes, image_shape, seed)
    parts = split(whole, cut, image_shape)
    if bottleneck is None:
        return SplitClassifier(parts.client, parts.server, parts.feature_shape, num_classes)
    narrow = Bottleneck.parse(bottleneck).build(parts.feature_shape, seed)
    return SplitClassifier(
        nn.Sequential(parts.client, narrow.client),
        nn.Sequential(narrow.server, parts.server),
        narrow.feature_shape,
        num_classes,
    )
