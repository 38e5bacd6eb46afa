"""Stage `design`: which choices in a network's design make the features behind a cut give an image away.

Skip connection, stride, pooling, activation, initialisation and training, each changed by itself (the
claim of PEEL, Arif et al., SaTML 2025), and the image searched for by the same solver.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from mipriv import stats
from mipriv.attacks.reconstruction import Knowledge, Sender
from mipriv.data.dataset import Dataset
from mipriv.defenses import Defense
from mipriv.device import place, resolve
from mipriv.metrics.reconstruction import psnr, residual
from mipriv.models.fold import folded
from mipriv.models.split import split
from mipriv.stats import Figure
from tasks import classifier
from tasks.engine.cells import Cell, Progress
from tasks.engine.events import Events
from tasks.engine.params import Block, plugin_knobs
from tasks.engine.stage import Stage, launch
from tasks.knowledge import known_by, targets_of
from tasks.page.design import Leak, design
from tasks.tables import write_csv

FIGURES, TABLE, PICTURE = "figures.json", "design.csv", "design.png"


class Variant(Block):
    """`knobs` of the architecture that differ, whether it is `trained`, and the `factor` that it is shown
    under beside the first variant."""

    knobs: dict[str, Any] = Field(default_factory=dict)
    trained: bool = False
    factor: str


class Row(Block):
    """`arch` with `knobs`, cut after each of `cuts`; `recipe` of trained ones, a row of `split.recipes`, on
    `data`, a row of `prepare`; `targets`, at most; `peel`, knobs of the attack; `seed`; `variants`."""

    data: str
    arch: str
    knobs: dict[str, Any]
    cuts: list[str]
    recipe: str
    targets: Annotated[int, Field(gt=1)]
    peel: dict[str, Any]
    seed: Annotated[int, Field(ge=0)]
    variants: Annotated[dict[str, Variant], Field(min_length=1)]


class Design(Block):
    """`rows`."""

    rows: dict[str, Row]


def leak(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    arch: str,
    knobs: dict[str, Any],
    recipe: dict[str, Any] | None,
    cuts: list[str],
    targets: int,
    peel: dict[str, Any],
    seed: int,
    device: str,
) -> None:
    """Cell: what is recovered behind every cut of one variant."""
    where, data = torch.device(device), Dataset.open(inputs["data"])
    model = classifier.build(arch, knobs, data.num_classes("private"), data, seed, "design.knobs")
    if recipe is not None:
        pairs = data.split("private/train"), data.split("private/validation")
        classifier.fit(model, pairs, recipe, Defense(), seed, device, lambda *_: None, events)
    whole = place(folded(model.eval(), data.image_shape), where)
    truth = targets_of(data, targets).images.to(where)
    learnt, held = (images.to(where) for images in known_by(data, "inference"))
    attack = plugin_knobs("reconstruction", "peel", peel, "design.peel")
    found = []
    for done, cut in enumerate(cuts, 1):
        client = split(whole, cut, data.image_shape).client
        with torch.no_grad():
            observed = client(truth)
        sender = Sender(client, lambda features, _: features)
        got = attack(sender, Knowledge(learnt, held, data.bounded), observed[:, None], seed=seed)
        with torch.no_grad():
            gaps = residual(client(got.images), observed)
        found.append(
            {
                "cut": cut,
                "features": observed[0].numel(),
                "psnr": psnr(got.images, truth).tolist(),
                "residual": gaps.tolist(),
                "solver": got.notes["solver"],
            }
        )
        progress(done, len(cuts))
    (out / FIGURES).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def run(stage: Stage[Design]) -> None:
    """Cells of one row, a variant each; the table and the picture beside them."""
    row = stage.params.rows[stage.row or ""]
    recipes = stage.values["split"]["recipes"]
    shared = {key: getattr(row, key) for key in ("arch", "cuts", "targets", "peel", "seed")}
    work = []
    for name, variant in row.variants.items():
        own: dict[str, Any] = {"knobs": {**row.knobs, **variant.knobs}}
        own |= {"recipe": recipes[row.recipe] if variant.trained else None}
        own |= {"device": str(resolve(stage.cost.device))}
        work.append(Cell(name, "tasks.design:leak", {**shared, **own}, {"data": stage.path("data")}))
    folders = stage.cells(work)
    data = Dataset.open(stage.path("data"))
    pixels, truth = len(data.split("private/test")[0][0].flatten()), targets_of(data, row.targets).images
    floor = psnr(known_by(data, "inference")[0].mean(0, keepdim=True).expand_as(truth), truth)
    leaks = [
        _leak(name, variant.factor, one, pixels)
        for name, variant in row.variants.items()
        for one in json.loads((folders[name] / FIGURES).read_text(encoding="utf-8"))
    ]
    write_csv(stage.out / TABLE, [one.flat() for one in leaks])
    (stage.out / PICTURE).write_bytes(design(leaks, floor.median().item()))
    for one in leaks:
        stage.events.metric(f"{one.variant}/{one.cut}/psnr_median", one.psnr.point)
    for file in (TABLE, PICTURE):
        stage.events.artifact(stage.out / file)


def _leak(name: str, factor: str, one: dict[str, Any], pixels: int) -> Leak:
    return Leak(
        name,
        factor,
        one["cut"],
        one["features"] / pixels,
        _median(one["psnr"]),
        _median(one["residual"]),
        one["solver"],
    )


def _median(values: list[float]) -> Figure:
    rows = torch.tensor([values], dtype=torch.float64).numpy()
    return stats.quantile(rows, 0.5, groups=torch.arange(len(values)).numpy())


if __name__ == "__main__":
    raise SystemExit(launch(run, ["data"], Design))
