"""Stage `finetune`: victims, one a training seed, from a public backbone and private images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mipriv.data.dataset import Dataset
from mipriv.defenses import Defense
from mipriv.device import resolve
from mipriv.models import checkpoint, heads
from mipriv.models.checkpoint import Card
from mipriv.models.classifiers import Classifier
from mipriv.models.cut import account
from mipriv.models.weights import fill
from mipriv.training import History, Pair, Recipe
from tasks import classifier
from tasks.engine.cells import Cell, Progress
from tasks.engine.events import Events
from tasks.engine.params import Block, plugin_knobs
from tasks.engine.stage import Stage, launch
from tasks.tables import write_csv


class Row(Block):
    """A victim: `backbone`, a row of `pretrain`; `defense` and its `knobs`; `recipe`, by name; `seeds`."""

    backbone: str
    defense: str
    knobs: dict[str, Any]
    recipe: str
    seeds: list[int]


class Finetune(Block):
    """`recipes` by name; `rows`."""

    recipes: dict[str, Recipe]
    rows: dict[str, Row]


def victim(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    backbone: str,
    defense: str,
    knobs: dict[str, Any],
    recipe: dict[str, Any],
    seed: int,
    device: str,
) -> None:
    """Cell: one victim as a model folder, with its account of trainable and frozen parameters."""
    data = Dataset.open(inputs["data"])
    public = checkpoint.read_card(inputs["backbone"])
    classes = data.num_classes("private")
    pairs = data.split("private/train"), data.split("private/validation")
    model, _, history = trained(
        data,
        pairs,
        inputs=inputs,
        defense=defense,
        knobs=knobs,
        recipe=recipe,
        seed=seed,
        device=device,
        progress=progress,
        events=events,
    )
    layers = account(model, data.image_shape)
    totals = {kind: sum(int(layer[kind]) for layer in layers) for kind in ("trainable", "frozen")}
    events.metrics({f"parameters/{kind}": count for kind, count in totals.items()})
    facts = {"backbone": backbone, "defense": defense, "defense_knobs": knobs, "seed": seed, **totals}
    head = heads.name(model.head)  # the defence may have put in another
    card = Card("classifier", public.name, public.knobs, data.image_shape, classes, facts, head)
    classifier.leave(model, card, history, out, device)
    write_csv(out / "account.csv", layers)


def trained(
    data: Dataset,
    pairs: tuple[Pair, Pair],
    *,
    inputs: Mapping[str, Path],
    defense: str,
    knobs: dict[str, Any],
    recipe: dict[str, Any],
    seed: int,
    device: str,
    progress: Progress,
    events: Events,
) -> tuple[Classifier, Defense, History]:
    """The network of the folder `backbone` of the inputs, fine-tuned on a pair under a defence."""
    model, plan = untrained(data, inputs=inputs, defense=defense, knobs=knobs, seed=seed)
    history = classifier.fit(model, pairs, recipe, plan, seed, device, progress, events)
    return model, plan, history


def untrained(
    data: Dataset, *, inputs: Mapping[str, Path], defense: str, knobs: dict[str, Any], seed: int
) -> tuple[Classifier, Defense]:
    """What fine-tuning starts with: the network of the folder `backbone` with a new head, and a defence."""
    public = checkpoint.read_card(inputs["backbone"])
    classes = data.num_classes("private")
    model = classifier.build(public.name, public.knobs, classes, data, seed, "finetune.rows")
    weights = checkpoint.load_classifier(inputs["backbone"]).trunk.state_dict()
    fill(model.trunk, weights, str(inputs["backbone"]))
    plan: Defense = plugin_knobs("defense", defense, knobs, "finetune.rows")
    return model, plan


def run(stage: Stage[Finetune]) -> None:
    """One cell a training seed."""
    row = stage.params.rows[stage.row or ""]
    stage.events.tags({"victim": stage.row or "", "defense": row.defense, "backbone": row.backbone})
    shared = {
        **row.model_dump(exclude={"recipe", "seeds"}),
        "recipe": stage.plain("recipes", row.recipe),
        "device": str(resolve(stage.cost.device)),
    }
    inputs = {"data": stage.path("data"), "backbone": stage.path("backbone") / "model"}
    stage.cells(
        [
            Cell(f"seed-{seed}", "tasks.finetune:victim", {**shared, "seed": seed}, inputs)
            for seed in row.seeds
        ]
    )


if __name__ == "__main__":
    raise SystemExit(launch(run, ["data", "backbone"], Finetune))
