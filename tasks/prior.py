"""Stage `prior`: an attacker's image prior, learnt from public images only."""

from pathlib import Path
from typing import Any

import torch

from mipriv.data.dataset import Dataset
from mipriv.data.splits import PUBLIC
from mipriv.device import environment, resolve
from mipriv.models import checkpoint
from mipriv.models.checkpoint import Card
from mipriv.models.generators import Prior
from tasks.engine.cells import Cell, Progress
from tasks.engine.events import Events
from tasks.engine.params import Block, plugin_knobs
from tasks.engine.stage import Stage, launch


class Row(Block):
    """A prior: `generator`, a plug-in of `mipriv.models.generators`, with its `knobs`; `seed`."""

    generator: str
    knobs: dict[str, Any]
    seed: int


class Priors(Block):
    """`rows`."""

    rows: dict[str, Row]


def prior(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    generator: str,
    knobs: dict[str, Any],
    seed: int,
    device: str,
) -> None:
    """Cell: one generator as a model folder."""
    data = Dataset.open(inputs["data"])
    images = torch.cat([data.split(name)[0] for name in PUBLIC])
    learner: Prior = plugin_knobs("prior", generator, knobs, "prior.rows")
    model, log = learner.fit(images, seed=seed, device=torch.device(device), progress=progress)
    for line in log:
        step = line.pop("step", None)
        events.metrics(line, step=None if step is None else int(step))
    facts = {"images": len(images), "seed": seed, "environment": environment(torch.device(device))}
    checkpoint.save(model, Card("prior", generator, knobs, data.image_shape, None, facts), out)


def run(stage: Stage[Priors]) -> None:
    """One cell, the prior of this row."""
    row = stage.params.rows[stage.row or ""]
    kwargs = {**row.model_dump(), "device": str(resolve(stage.cost.device))}
    stage.cells([Cell("model", "tasks.prior:prior", kwargs, {"data": stage.path("data")})])


if __name__ == "__main__":
    raise SystemExit(launch(run, ["data"], Priors))
