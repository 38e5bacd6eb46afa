"""A model in a folder: weights as safetensors, and a card that says how to build it again."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mipriv import plugin
from mipriv.draws import seeded
from mipriv.errors import InputError
from mipriv.models import classifiers, heads, split_classifier, weights
from mipriv.models.classifiers import Classifier
from mipriv.models.generators import Generator
from mipriv.models.split_classifier import Shape, SplitClassifier

WEIGHTS = "model.safetensors"
CARD = "model.json"


@dataclass(frozen=True)
class Card:
    """How a model is built, before its weights are filled in.

    Attributes:
        family: `classifier`, `prior` or `split`.
        name: of the plug-in; of a split network, that of the classifier which was cut.
        knobs: JSON values.
        image_shape: (C, H, W).
        num_classes: of a classifier, whole or split; None for a prior.
        facts: whatever else is worth knowing of it.
        head: of a classifier, as `heads.name` has it; linear also where an older card does not say.
        cut: of a split network, the client's last module.
        bottleneck: at the cut, as in `Bottleneck.parse`; None: none.
    """

    family: str
    name: str
    knobs: dict[str, Any]
    image_shape: tuple[int, int, int]
    num_classes: int | None
    facts: dict[str, Any]
    head: str = "linear"
    cut: str | None = None
    bottleneck: str | None = None


def save(model: Classifier | Generator | SplitClassifier, card: Card, folder: Path) -> None:
    """Write a model into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    weights.save(model, folder / WEIGHTS)
    (folder / CARD).write_text(json.dumps(asdict(card), indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_card(folder: Path) -> Card:
    """The card in a folder.

    Raises:
        InputError: none there, or not one.
    """
    try:
        values = json.loads((folder / CARD).read_text(encoding="utf-8"))
        return Card(**{**values, "image_shape": tuple(values["image_shape"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder / CARD}: no readable model card ({error})") from error


def load_classifier(folder: Path) -> Classifier:
    """A classifier in evaluation mode, on the CPU.

    Raises:
        InputError: no card of a classifier, or weights that do not fit it exactly.
    """
    card = read_card(folder)
    if card.family != "classifier" or card.num_classes is None:
        raise InputError(f"{folder / CARD}: family {card.family!r}; allowed: classifier")
    architecture = plugin.load("classifier", card.name, **card.knobs)
    model = classifiers.build(architecture, card.num_classes, card.image_shape, seed=0)
    if card.head != heads.name(model.head):
        with seeded(0, "head"):  # its first weights, which are overwritten, draw from nobody's generator
            model.head = heads.make(card.head, model.head.in_features, card.num_classes)
    weights.load_into(model, folder / WEIGHTS)
    return model.eval()


def save_split(model: SplitClassifier, card: Card, folder: Path) -> None:
    """Write a split network into a folder, which is made.

    Raises:
        InputError: a card that says too little to cut it again.
    """
    _refuse_whole(card, "card")
    save(model, card, folder)


def load_split(
    folder: Path, prepare: Callable[[SplitClassifier, Shape], None] | None = None
) -> SplitClassifier:
    """A split network in evaluation mode, on the CPU; nothing is done to what it sends.

    Args:
        folder: see `save_split`.
        prepare: changes the untrained network as it was changed before training, so that the weights find
            their places: a defence's `prepare`. What it draws is overwritten.

    Raises:
        InputError: no card of a split network, or weights that do not fit it exactly.
    """
    card = read_card(folder)
    classes, cut = _refuse_whole(card, str(folder / CARD))
    architecture = plugin.load("classifier", card.name, **card.knobs)
    model = split_classifier.build(architecture, classes, card.image_shape, cut, card.bottleneck, seed=0)
    if prepare is not None:
        with seeded(0, "defense"):
            prepare(model, card.image_shape)
    weights.load_into(model, folder / WEIGHTS)
    return model.eval()


def _refuse_whole(card: Card, where: str) -> tuple[int, str]:
    if card.family != "split" or card.num_classes is None or card.cut is None:
        said = f"family {card.family!r}, {card.num_classes} classes, cut {card.cut!r}"
        raise InputError(f"{where}: {said}; allowed: family 'split' with its classes and its cut")
    return card.num_classes, card.cut


def load_prior(folder: Path) -> Generator:
    """A generator in evaluation mode, on the CPU.

    Raises:
        InputError: no card of a prior, or weights that do not fit it exactly.
    """
    card = read_card(folder)
    if card.family != "prior":
        raise InputError(f"{folder / CARD}: family {card.family!r}; allowed: prior")
    model: Generator = plugin.load("prior", card.name, **card.knobs).build(card.image_shape)
    weights.load_into(model, folder / WEIGHTS)
    return model.eval()
