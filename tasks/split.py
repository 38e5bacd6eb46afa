"""Stage `split`: classifiers in two parties, trained under a host defence; one cell an arm and training seed.

The arms of a row differ in what they state alone, such as CEM around the host or the strength of a knob: all
else, the noise and the initial weights among it, is the row's.
"""

from pathlib import Path
from typing import Any

from pydantic import Field

from mipriv.data.dataset import Dataset
from mipriv.device import resolve
from mipriv.models import checkpoint, split_classifier
from mipriv.models.checkpoint import Card
from mipriv.models.cost import client_cost
from mipriv.training import Recipe
from tasks import classifier
from tasks.engine.cells import Cell, Progress
from tasks.engine.events import Events
from tasks.engine.params import Block, plugin_knobs
from tasks.engine.stage import Stage, launch
from tasks.party import Network, defended


class Arm(Block):
    """How an arm differs from its row: `knobs` of the host, and CEM's where it is around it."""

    knobs: dict[str, Any] = Field(default_factory=dict)
    cem: dict[str, Any] | None = None


class Row(Block):
    """A host defence.

    `data`, a row of `prepare`; `network`, by name; `defense` and its `knobs`; `arms` by name; `recipe`, by
    name; `seeds`.
    """

    data: str
    network: str
    defense: str
    knobs: dict[str, Any]
    arms: dict[str, Arm]
    recipe: str
    seeds: list[int]


class Splits(Block):
    """`networks` and `recipes` by name; `rows`."""

    networks: dict[str, Network]
    recipes: dict[str, Recipe]
    rows: dict[str, Row]


def victim(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    network: dict[str, Any],
    defense: str,
    knobs: dict[str, Any],
    cem: dict[str, Any] | None,
    recipe: dict[str, Any],
    seed: int,
    device: str,
) -> None:
    """Cell: one split victim as a model folder, with what its client costs."""
    data = Dataset.open(inputs["data"])
    wanted, classes = Network.model_validate(network), data.num_classes("private")
    architecture = plugin_knobs("classifier", wanted.arch, wanted.knobs, "split.networks")
    model = split_classifier.build(
        architecture, classes, data.image_shape, wanted.cut, wanted.bottleneck, seed
    )
    plan = defended(defense, knobs, cem, "split.rows")
    pairs = data.split("private/train"), data.split("private/validation")
    history = classifier.fit(model, pairs, recipe, plan, seed, device, progress, events)
    cost = client_cost(model, data.image_shape)
    events.metrics({f"client/{name}": value for name, value in vars(cost).items()})
    facts = {"defense": defense, "defense_knobs": knobs, "cem": cem, "seed": seed, "client": vars(cost)}
    facts |= classifier.recorded(history, out, device)
    card = Card(
        "split",
        wanted.arch,
        wanted.knobs,
        data.image_shape,
        classes,
        facts,
        cut=wanted.cut,
        bottleneck=wanted.bottleneck,
    )
    checkpoint.save_split(model, card, out)


def run(stage: Stage[Splits]) -> None:
    """Cells of one row: `ARM/seed-N`."""
    wanted, row = stage.params, stage.params.rows[stage.row or ""]
    stage.events.tags({"victim": stage.row or "", "defense": row.defense, "data": row.data})
    shared = {
        "network": wanted.networks[row.network].model_dump(),
        "defense": row.defense,
        "recipe": stage.plain("recipes", row.recipe),
        "device": str(resolve(stage.cost.device)),
    }
    inputs = {"data": stage.path("data")}
    stage.cells(
        [
            Cell(
                f"{name}/seed-{seed}",
                "tasks.split:victim",
                {**shared, "knobs": {**row.knobs, **arm.knobs}, "cem": arm.cem, "seed": seed},
                inputs,
            )
            for name, arm in row.arms.items()
            for seed in row.seeds
        ]
    )


if __name__ == "__main__":
    raise SystemExit(launch(run, ["data"], Splits))
