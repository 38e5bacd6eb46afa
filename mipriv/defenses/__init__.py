"""Training-time defences: what they change about training a classifier.

Each module here is a plug-in that subclasses `Defense`. Every step is a no-op by default, so a
defence states only what it changes. Defences know nothing of attacks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv.models.freeze import Freeze
from mipriv.models.simulator import Simulator


@dataclass(frozen=True)
class Batch:
    """What a training step offers a defence's loss.

    Attributes:
        images: [n, C, H, W], augmented.
        labels: [n] int64.
        logits: [n, K].
        epoch: from 0.
        epochs: in all.
        features: of a split network, [n, *feature_shape] as its client makes them; None for a whole one.
        sent: the same as they left the client.
        attributes: classes [n] int64 by name of what the defence asks for by `private`, -1 where unknown.
    """

    images: Tensor
    labels: Tensor
    logits: Tensor
    epoch: int
    epochs: int
    features: Tensor | None = None
    sent: Tensor | None = None
    attributes: Mapping[str, Tensor] = field(default_factory=dict)


class Defense:
    """A defence; as it stands, none at all. It may hold optimisers and modules of its own.

    Attributes:
        freeze: what stays as the public backbone has it; a defence that offers TL-DMI beside itself has a
            knob of this name, and extends `prepare` and `before_epoch` rather than replace them.
        sigma: standard deviation of Gaussian noise that `release` adds; a defence of split networks has a
            knob of this name, and extends `release` rather than replace it.
        private: the attribute of images that it hides, whose classes training hands to its loss; None: it
            hides none.
        classes: how many it takes that attribute to have.
    """

    freeze: Freeze | None = None
    sigma: float = 0.0
    private: str | None = None
    classes: int = 0

    def prepare(self, model: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """Change the model before training: freeze, insert, replace.

        New weights are initialised from torch's global generator, which `train` has seeded.

        Raises:
            InputError: the model does not have what the defence names.
        """
        if self.freeze is not None:
            self.freeze.apply(model, image_shape)

    def head_alone(self, model: nn.Module, image_shape: tuple[int, int, int]) -> bool:
        """Whether of a classifier only the head is trained, by the plain loss.

        Then what lies in front of the head is the same function of images, whoever is trained on them.
        """
        return False

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        """Called once the model is in training mode, at the start of every epoch."""
        if self.freeze is not None:
            self.freeze.hold(model)

    def loss(self, batch: Batch, step: int) -> Tensor:
        """Scalar to be minimised; the mean cross-entropy unless a defence says otherwise."""
        return F.cross_entropy(batch.logits, batch.labels)

    def after_step(self, model: nn.Module, step: int) -> None:
        """Called after every optimiser step."""

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        """Called after every epoch; may replace parameters."""

    def finish(self, model: nn.Module) -> None:
        """Called when training ends, be it by an error, prepared or not: hooks and the like are removed."""

    def release(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """What leaves the client when `features` are sent; active whenever the defence is attacked.

        Args:
            features: [n, *feature_shape].
            generator: on the CPU, of every random draw, so that devices draw alike.
        """
        if not self.sigma:
            return features
        return features + self.sigma * torch.randn(features.shape, generator=generator).to(features)

    def simulator(self) -> Simulator | None:
        """Attackers that it was trained against, for a diagnosis: what they score is no leakage."""
        return None

    def state(self) -> dict[str, Any]:
        """The defence's own state, as tensors and numbers."""
        return {}
