"""A model in a folder: weights as safetensors, and a card that says how to build it again."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mipriv import plugin
from mipriv.draws import seeded
from mipriv.errors import InputError
from mipriv.models import classifiers, heads, weights
from mipriv.models.classifiers import Classifier
from mipriv.models.generators import Generator

WEIGHTS = "model.safetensors"
CARD = "model.json"


@dataclass(frozen=True)
class Card:
    """How a model is built, before its weights are filled in.

    Attributes:
        family: `classifier` or `prior`.
        name: of the plug-in.
        knobs: JSON values.
        image_shape: (C, H, W).
        num_classes: of a classifier; None for a prior.
        facts: whatever else is worth knowing of it.
        head: of a classifier, as `heads.name` has it; linear also where an older card does not say.
    """

    family: str
    name: str
    knobs: dict[str, Any]
    image_shape: tuple[int, int, int]
    num_classes: int | None
    facts: dict[str, Any]
    head: str = "linear"


def save(model: Classifier | Generator, card: Card, folder: Path) -> None:
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
