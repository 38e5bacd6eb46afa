"""Stage `judge`: an evaluation classifier of an architecture that no victim has."""

from pathlib import Path
from typing import Any

from mipriv.data.dataset import Dataset
from mipriv.defenses import Defense
from mipriv.device import resolve
from mipriv.models.checkpoint import Card
from mipriv.training import Recipe
from tasks import classifier
from tasks.engine.cells import Cell, Progress
from tasks.engine.events import Events
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch


class Row(Block):
    """A judge: `arch`, its `knobs`, a `seed` of its own."""

    arch: str
    knobs: dict[str, Any]
    seed: int


class Judges(Block):
    """`recipe`; `rows`."""

    recipe: Recipe
    rows: dict[str, Row]


def judge(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    arch: str,
    knobs: dict[str, Any],
    recipe: dict[str, Any],
    seed: int,
    device: str,
) -> None:
    """Cell: one judge as a model folder, trained on private training images, selected on validation."""
    data = Dataset.open(inputs["data"])
    classes = data.num_classes("private")
    model = classifier.build(arch, knobs, classes, data, seed, "judge.rows")
    pairs = data.split("private/train"), data.split("private/validation")
    history = classifier.fit(model, pairs, recipe, Defense(), seed, device, progress, events)
    card = Card("classifier", arch, knobs, data.image_shape, classes, {"seed": seed})
    classifier.leave(model, card, history, out, device)


def run(stage: Stage[Judges]) -> None:
    """One cell, the judge of this row."""
    row = stage.params.rows[stage.row or ""]
    kwargs = {**row.model_dump(), "recipe": stage.plain("recipe"), "device": str(resolve(stage.cost.device))}
    stage.cells([Cell("model", "tasks.judge:judge", kwargs, {"data": stage.path("data")})])


if __name__ == "__main__":
    raise SystemExit(launch(run, ["data"], Judges))
