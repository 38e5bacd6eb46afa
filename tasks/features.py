"""Stage `features`: what a frozen backbone makes of every private image, once for thousands of heads.

Training images become the pool that members are drawn from; test images the population, in no training set.
"""

from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors.torch import save_file

from mipriv.attacks.search.rows import in_chunks
from mipriv.data.dataset import Dataset
from mipriv.device import place, resolve
from mipriv.models.pretrained import import_trunk
from tasks import classifier
from tasks.engine.cells import Cell, Progress
from tasks.engine.events import Events
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch

FILE = "features.safetensors"
PARTS = {"pool": "private/train", "population": "private/test"}
CHUNK = 100


class Row(Block):
    """A backbone on `data`, a row of `prepare`: `arch` with `knobs`; `weights` to import, or null for the
    initial ones of `seed`."""

    data: str
    arch: str
    knobs: dict[str, Any]
    weights: str | None
    seed: int = Field(ge=0)


class Features(Block):
    """`rows`."""

    rows: dict[str, Row]


@torch.no_grad()
def embed(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    arch: str,
    knobs: dict[str, Any],
    weights: str | None,
    seed: int,
    device: str,
) -> None:
    """Cell: penultimate features float32 [n, d] and labels int64 [n] of both parts, in evaluation mode."""
    data, where = Dataset.open(inputs["data"]), torch.device(device)
    model = classifier.build(arch, knobs, data.num_classes("private"), data, seed, "features.rows")
    if weights is not None:
        import_trunk(model, weights)
    place(model, where).eval()
    found: dict[str, torch.Tensor] = {}
    for done, (name, split) in enumerate(PARTS.items(), 1):
        images, labels = data.split(split)
        features = in_chunks(lambda x: model.embed(x.to(where)).flatten(1).float().cpu(), images, CHUNK)
        found |= {name: features.contiguous(), f"{name}_labels": labels.contiguous()}
        events.metric(f"{name}/images", len(labels))
        progress(done, len(PARTS))
    events.metric("dimensions", found["pool"].shape[1])
    save_file(found, out / FILE)


def run(stage: Stage[Features]) -> None:
    """One cell, the backbone of this row."""
    row = stage.params.rows[stage.row or ""]
    kwargs = {**row.model_dump(exclude={"data"}), "device": str(resolve(stage.cost.device))}
    stage.cells([Cell("model", "tasks.features:embed", kwargs, {"data": stage.path("data")})])


if __name__ == "__main__":
    raise SystemExit(launch(run, ["data"], Features))
