"""What the stages that train a classifier share: building it, training it, leaving it in a folder."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mipriv import training
from mipriv.data.dataset import Dataset
from mipriv.defenses import Defense
from mipriv.device import environment, place
from mipriv.models import checkpoint, classifiers
from mipriv.models.checkpoint import Card
from mipriv.models.classifiers import Architecture, Classifier
from mipriv.training import History, Pair, Recipe, Views
from tasks.engine.cells import Progress
from tasks.engine.events import Events
from tasks.engine.params import plugin_knobs, validate
from tasks.tables import write_csv


def build(
    arch: str, knobs: dict[str, Any], num_classes: int, data: Dataset, seed: int, where: str
) -> Classifier:
    """A classifier of a named architecture for a dataset's images."""
    architecture: Architecture = plugin_knobs("classifier", arch, knobs, where)
    return classifiers.build(architecture, num_classes, data.image_shape, seed)


def fit(
    model: nn.Module,
    pairs: tuple[Pair, Pair],
    recipe: dict[str, Any],
    defense: Defense,
    seed: int,
    device: str,
    progress: Progress,
    events: Events,
    attributes: Mapping[str, Tensor] | None = None,
    views: Views | None = None,
) -> History:
    """Train on the first pair, select on the second, and record every epoch; see `training.train`."""
    place(model, torch.device(device))
    wanted = validate(Recipe, recipe, "recipe")
    history = training.train(
        model, *pairs, wanted, defense, seed=seed, attributes=attributes, views=views, progress=progress
    )
    for epoch in history.epochs:
        events.metrics(
            {key: value for key, value in asdict(epoch).items() if key != "epoch"}, step=epoch.epoch
        )
    events.metric("kept_epoch", history.kept.epoch)
    return history


def leave(model: Classifier, card: Card, history: History | None, out: Path, device: str) -> None:
    """Write weights, card and, of a model that was trained here, its history."""
    facts = card.facts | recorded(history, out, device)
    checkpoint.save(model, Card(**{**asdict(card), "facts": facts}), out)


def recorded(history: History | None, out: Path, device: str) -> dict[str, Any]:
    """Facts for a card of how a model was made, its history written beside it."""
    facts: dict[str, Any] = {"environment": environment(torch.device(device))}
    if history is not None:
        facts["kept"] = asdict(history.kept)
        write_csv(out / "history.csv", [asdict(epoch) for epoch in history.epochs])
    return facts
