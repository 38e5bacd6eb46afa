"""Stage `pretrain`: a public backbone, imported or trained on the public people."""

from pathlib import Path
from typing import Any

from mipriv.data.dataset import Dataset
from mipriv.defenses import Defense
from mipriv.device import resolve
from mipriv.models.checkpoint import Card
from mipriv.models.pretrained import import_trunk
from mipriv.training import Recipe
from tasks import classifier
from tasks.engine.cells import Cell, Progress
from tasks.engine.events import Events
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch


class Row(Block):
    """A backbone.

    `arch` and its `knobs`; `weights` to import, or null for training on the public people; `seed`.
    """

    arch: str
    knobs: dict[str, Any]
    weights: str | None
    seed: int


class Pretrain(Block):
    """`recipe` of backbones trained here; `rows`."""

    recipe: Recipe
    rows: dict[str, Row]


def backbone(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    arch: str,
    knobs: dict[str, Any],
    weights: str | None,
    recipe: dict[str, Any],
    seed: int,
    device: str,
) -> None:
    """Cell: one backbone as a model folder."""
    data = Dataset.open(inputs["data"])
    classes = data.num_classes("public")
    model = classifier.build(arch, knobs, classes, data, seed, "pretrain.rows")
    history = None
    if weights is not None:
        import_trunk(model, weights)
    else:
        pairs = data.split("public/train"), data.split("public/validation")
        history = classifier.fit(model, pairs, recipe, Defense(), seed, device, progress, events)
    facts = {"weights": weights or "trained on the public people", "seed": seed}
    card = Card("classifier", arch, knobs, data.image_shape, classes, facts)
    classifier.leave(model, card, history, out, device)


def run(stage: Stage[Pretrain]) -> None:
    """One cell, the backbone of this row."""
    row = stage.params.rows[stage.row or ""]
    kwargs = {**row.model_dump(), "recipe": stage.plain("recipe"), "device": str(resolve(stage.cost.device))}
    work = Cell("model", "tasks.pretrain:backbone", kwargs, {"data": stage.path("data")})
    stage.cells([work])


if __name__ == "__main__":
    raise SystemExit(launch(run, ["data"], Pretrain))
