"""Attributes: what else of a person is told by the features that a client sends.

Each module here is a plug-in: an *auditor*, trained from scratch on what a client that is done and frozen, in
evaluation mode, sends of the auditor's own images. It is no part of any training, as a simulated attacker
is. What its call is handed is its threat model: with `access` to `features` it has pairs of features and
classes and no client (an `Auditor`); with `weights` it has the client itself and the images, too (an
`OpenAuditor`).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from torch import Tensor, nn

from mipriv.errors import InputError

Access = Literal["features", "weights"]


@dataclass(frozen=True, eq=False)
class Known:
    """What an auditor has of its own images, of which none is a target.

    Attributes:
        training: [q, n, *feature_shape] float: what the client sent of n images, each q times over.
        training_classes: [n] int64, of the attribute.
        validation: [q, v, *feature_shape], of other images, to stop and to choose knobs by.
        validation_classes: [v] int64.
        classes: K, of the attribute; some may be on none of the images.

    Raises:
        InputError: shapes that do not belong together, or a class outside 0 to K-1.
    """

    training: Tensor
    training_classes: Tensor
    validation: Tensor
    validation_classes: Tensor
    classes: int

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise InputError(f"classes: {self.classes}; allowed: 2 or more")
        _paired("training", self.training, self.training_classes, self.classes)
        _paired("validation", self.validation, self.validation_classes, self.classes)
        one, other = (list(part.shape[:1] + part.shape[2:]) for part in (self.training, self.validation))
        if one != other:
            raise InputError(f"validation: [queries, *feature_shape] {other}; allowed: {one}, as in training")


@dataclass(frozen=True, eq=False)
class Opened:
    """The client of an attacker who has its weights, and the images behind the features.

    Attributes:
        network: images [n, C, H, W] to features [n, *feature_shape] before the defence draws anything, in
            evaluation mode; to be copied, never changed.
        training: [n, C, H, W], as in `Known.training`.
        validation: [v, C, H, W].
    """

    network: nn.Module
    training: Tensor
    validation: Tensor


@dataclass(frozen=True, eq=False)
class Told:
    """Scores of classes, higher for likelier, at equal prior odds of all classes; the largest is the guess.

    Attributes:
        validation: [v, K] float32, of the auditor's own validation images.
        observed: [m, K] float32, of the targets.
        notes: what was chosen on the way, by name.
    """

    validation: Tensor
    observed: Tensor
    notes: dict[str, float]


class Auditor(Protocol):
    """An attacker who has seen features and classes of some images."""

    access: ClassVar[Literal["features"]]

    def __call__(self, known: Known, observed: Tensor, *, seed: int) -> Told:
        """Tell the classes of targets.

        Args:
            known: see `Known`.
            observed: [q, m, *feature_shape], what m targets sent, q times over.
            seed: of every random draw.

        Raises:
            InputError: features that differ in shape or number of queries from what is known.
        """
        ...


class OpenAuditor(Protocol):
    """An attacker who has the client, too: an application that is shipped can be opened."""

    access: ClassVar[Literal["weights"]]

    def __call__(self, known: Known, observed: Tensor, *, opened: Opened, seed: int) -> Told:
        """See `Auditor`; targets' images are not shown."""
        ...


def _paired(name: str, features: Tensor, classes: Tensor, count: int) -> None:
    if features.ndim < 3 or not features.shape[0] or not features.shape[1]:
        raise InputError(f"{name}: {list(features.shape)}; allowed: [queries, images, *feature_shape]")
    if tuple(classes.shape) != tuple(features.shape[1:2]):
        said = f"{name}_classes: {list(classes.shape)}; allowed: [{features.shape[1]}]"
        raise InputError(f"{said}, one of every image")
    if int(classes.min()) < 0 or int(classes.max()) >= count:
        raise InputError(
            f"{name}_classes: from {int(classes.min())} to {int(classes.max())}; allowed: 0 to {count - 1}"
        )
