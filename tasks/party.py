"""A split victim as stages build it, leave it and find it again: network, host defence, CEM around it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mipriv import draws
from mipriv.defenses import Defense
from mipriv.device import place
from mipriv.models import checkpoint
from mipriv.models.fold import folded
from mipriv.models.split_classifier import SplitClassifier
from tasks.engine.params import Block, plugin_knobs


class Network(Block):
    """`arch` with its `knobs`, cut after the module `cut`, with a `bottleneck` there or none."""

    arch: str
    knobs: dict[str, Any]
    cut: str
    bottleneck: str | None


def defended(defense: str, knobs: dict[str, Any], cem: dict[str, Any] | None, where: str) -> Defense:
    """A host defence, with CEM around it where `cem` holds its knobs."""
    host: Defense = plugin_knobs("defense", defense, knobs, f"{where}.knobs")
    if cem is None:
        return host
    around: Defense = plugin_knobs("defense", "cem", cem, f"{where}.cem", host=host)
    return around


@dataclass(frozen=True)
class Party:
    """A trained split victim, and the defence that is at work whenever its client releases features."""

    model: SplitClassifier
    defense: Defense

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> "Party":
        """The one that a cell of `split` left, in evaluation mode."""
        facts = checkpoint.read_card(folder).facts
        defense = defended(facts["defense"], facts["defense_knobs"], None, str(folder))
        model = place(checkpoint.load_split(folder, defense.prepare), device)
        return cls(model, defense)

    def release(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """What leaves the client for images [n, C, H, W]: [n, *shape]; gradients pass."""
        return self.defense.release(self.model.client(images), generator)

    def composed(self, image_shape: tuple[int, int, int], *key: draws.Key) -> SplitClassifier:
        """The victim as it is deployed: logits of images [n, C, H, W] through client, release and server.

        Args:
            image_shape: (C, H, W).
            key: of what the release draws, anew with every query.

        Returns:
            This party's model, its client's normalisation folded; gradients pass.
        """
        model, random = self.model, draws.generator(*key)
        device = next(model.parameters()).device
        model.client = place(folded(model.client, image_shape), device)
        model.requires_grad_(False)
        model.release = lambda features: self.defense.release(features, random)
        return model
