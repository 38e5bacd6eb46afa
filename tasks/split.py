"""Stage `split`: classifiers in two parties, trained under a host defence; one cell an arm and training seed.

The arms of a row differ in what they state alone, such as CEM around the host or the strength of a knob: all
else, the noise and the initial weights among it, is the row's.
"""

from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor

from mipriv.data.dataset import UNKNOWN, Dataset
from mipriv.defenses import Defense
from mipriv.device import resolve
from mipriv.models import checkpoint, split_classifier
from mipriv.models.checkpoint import Card
from mipriv.models.cost import client_cost
from mipriv.training import Pair, Recipe
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
    name; `seeds`; `task`, an attribute that the network tells, null: who is on an image.
    """

    data: str
    network: str
    defense: str
    knobs: dict[str, Any]
    arms: dict[str, Arm]
    recipe: str
    seeds: list[int]
    task: str | None = None


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
    task: str | None,
    seed: int,
    device: str,
) -> None:
    """Cell: one split victim as a model folder, with what its client costs."""
    data = Dataset.open(inputs["data"])
    wanted, classes = Network.model_validate(network), data.task_classes(task)
    architecture = plugin_knobs("classifier", wanted.arch, wanted.knobs, "split.networks")
    model = split_classifier.build(
        architecture, classes, data.image_shape, wanted.cut, wanted.bottleneck, seed
    )
    plan = defended(defense, knobs, cem, "split.rows")
    pairs = labelled(data, "private/train", task), labelled(data, "private/validation", task)
    history = classifier.fit(
        model, pairs, recipe, plan, seed, device, progress, events, _hidden(data, plan, task)
    )
    cost = client_cost(model, data.image_shape)
    events.metrics({f"client/{name}": value for name, value in vars(cost).items()})
    facts = {"defense": defense, "defense_knobs": knobs, "cem": cem, "seed": seed, "client": vars(cost)}
    facts |= {"task": task, "private": plan.private}
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
    if (simulator := plan.simulator()) is not None:
        simulator.save(out)


def labelled(data: Dataset, split: str, task: str | None) -> Pair:
    """Images of a split whose class of the task is known, and these classes."""
    images, classes = data.split(split)[0], data.task(split, task)
    known = classes != UNKNOWN
    return images[known], classes[known]


def _hidden(data: Dataset, plan: Defense, task: str | None) -> dict[str, Tensor]:
    """Classes of the attribute that a defence hides, on the images of `labelled`."""
    if plan.private is None:
        return {}
    known = data.task("private/train", task) != UNKNOWN
    return {plan.private: data.attribute("private/train", plan.private)[known]}


def run(stage: Stage[Splits]) -> None:
    """Cells of one row: `ARM/seed-N`."""
    wanted, row = stage.params, stage.params.rows[stage.row or ""]
    stage.events.tags({"victim": stage.row or "", "defense": row.defense, "data": row.data})
    shared = {
        "network": wanted.networks[row.network].model_dump(),
        "defense": row.defense,
        "recipe": stage.plain("recipes", row.recipe),
        "task": row.task,
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
