"""Stage `prototypes`: images of model inversion held against the very images that a server recovers.

Model inversion draws what stands for a person; whoever sees features recovers what was sent. The headline of
PEEL (Arif et al., SaTML 2025) compares the two: here the ratio of their squared errors on the same images of
the same victim. Inversion never aims at one image: how well it shows the person is the table's of `evaluate`.
"""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor

from mipriv import stats
from mipriv.data.dataset import Dataset
from mipriv.metrics.reconstruction import mse, psnr
from mipriv.stats import Figure
from tasks import invert, reconstruct
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch
from tasks.evaluation.referee import Values, people
from tasks.knowledge import Targets, targets_of
from tasks.leakage import FILE, MSE, PSNR, Line
from tasks.page.clients import strips
from tasks.page.pictures import wall
from tasks.tables import write_csv

RATIO = "ratio of mse"
PICTURE = "prototypes.png"


class Row(Block):
    """`reconstruction`, a row of `reconstruct` on a whole victim; `inversions`, rows of `invert` on it."""

    reconstruction: str
    inversions: Annotated[list[str], Field(min_length=1)]


class Prototypes(Block):
    """`rows`."""

    rows: dict[str, Row]


def run(stage: Stage[Prototypes]) -> None:
    """Table and picture of one row, first training seed."""
    row = stage.params.rows[stage.row or ""]
    attacks = stage.block("reconstruct", reconstruct.Reconstruct)
    attacked = attacks.rows[row.reconstruction]
    own = targets_of(Dataset.open(stage.path("data")), attacks.most(attacked))
    seed = f"seed-{attacked.seeds[0]}"
    from_features = {
        layer: load_file(stage.path("reconstruction") / layer / seed / reconstruct.RECOVERED)["images"]
        for layer in attacked.layers or []
    }
    drawn = {name: _prototypes(stage.path("inversions") / name / seed, own) for name in row.inversions}
    lines = []
    for name, images in (*from_features.items(), *drawn.items()):
        for figure, measure in ((MSE, mse), (PSNR, psnr)):
            value = stats.mean(people(_row(measure(images, own.images)), own.labels))
            lines.append(Line(name, "prototype", figure, "", attacked.victim, value))
    for name, images in drawn.items():
        for layer, recovered in from_features.items():
            above, below = (people(_row(mse(one, own.images)), own.labels) for one in (images, recovered))
            lines.append(Line(name, "prototype", RATIO, "", layer, _ratio(stats.gain(above, below))))
    write_csv(stage.out / FILE, [line.flat() for line in lines])
    rows = {f"after {layer}": images for layer, images in from_features.items()}
    names = [f"person {int(label)}" for label in own.labels]
    (stage.out / PICTURE).write_bytes(wall(strips(own.images, {**rows, **drawn}), names))
    for line in lines:
        stage.events.metric(
            f"{line.subject}/{line.figure} {line.against}".replace(" ", "_"), line.value.point
        )
    for file in (FILE, PICTURE):
        stage.events.artifact(stage.out / file)


def _prototypes(folder: Path, own: Targets) -> Tensor:
    """For each target the first image that an inversion made of its person, [n, C, H, W]."""
    cells = [load_file(cell / invert.RECONSTRUCTIONS) for cell in sorted(folder.iterdir())]
    images = torch.cat([cell["images"][:, 0] for cell in cells])
    people = torch.cat([cell["identities"] for cell in cells])
    places = {int(person): place for place, person in enumerate(people)}
    return images[[places[int(label)] for label in own.labels]]


def _row(values: Tensor) -> Values:
    """Figures [n] of one training seed as [1, n]."""
    return values.double()[None].numpy()


def _ratio(gain: Figure) -> Figure:
    return Figure(1 + gain.point, 1 + gain.low, 1 + gain.high, gain.n, gain.seeds, gain.method)


if __name__ == "__main__":
    raise SystemExit(launch(run, ["data", "reconstruction", "inversions"], Prototypes))
