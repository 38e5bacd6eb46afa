"""Stage `fisher`: which layers classification and inversion are sensitive to, the analysis behind TL-DMI.

Both see one victim that nothing defends in particular: classification private validation images with their
true labels, inversion the reconstructions of an attack on it with the attack's own identity loss. The test
set stays closed.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file
from torch import Tensor

from mipriv import draws as randomness
from mipriv import stats
from mipriv.analysis.fisher import Fisher, Information, Layer, parts
from mipriv.attacks.search.identity import LOSSES, cross_entropy
from mipriv.data.dataset import Dataset
from mipriv.device import environment, resolve
from mipriv.models import checkpoint
from mipriv.plugin import one_of
from tasks import invert
from tasks.engine.cells import Cell, Progress
from tasks.engine.events import Events
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch
from tasks.information import (
    CLASSIFICATION,
    DIFFERENCE,
    FIRST,
    INVERSION,
    LAST,
    LAYERS,
    MEAN,
    PICTURE,
    SHARE,
    THIRDS,
    Score,
    Third,
    said,
)
from tasks.page.depth import depth
from tasks.tables import write_csv

SUMS, FACTS = "sums.safetensors", "layers.json"
KINDS = ("true", "empirical")
Seen = dict[tuple[str, str], Information]  # by task and kind


class Row(Block):
    """`victim`, a row of `finetune`; one training `seed` of it; `attack`, the row of `invert` on it."""

    victim: str
    seed: int
    attack: str


class Analysis(Block):
    """What is analysed, and how.

    `images` a task at most; `draws`, labels that the true information samples an image (null: the exact
    expectation over all classes); `chunk`, most gradients in memory together; `loss`, the identity loss of
    the inversion; `rows`.
    """

    images: Annotated[int, Field(gt=1)]
    draws: Annotated[int, Field(gt=0)] | None
    chunk: Annotated[int, Field(gt=0)]
    loss: str
    rows: dict[str, Row]


def information(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    images: int,
    draws: int | None,
    chunk: int,
    loss: str,
    seed: int,
    device: str,
) -> None:
    """Cell: Fisher information of every image and layer, for both tasks and of both kinds."""
    where = torch.device(device)
    one_of(loss, LOSSES, "params.yaml: fisher.loss")
    model = checkpoint.load_classifier(inputs["victim"]).to(where)
    validation = Dataset.open(inputs["data"]).split("private/validation")
    asked = {
        CLASSIFICATION: (*_some(*validation, images, CLASSIFICATION), cross_entropy),
        INVERSION: (*_some(*_reconstructions(inputs["reconstructions"]), images, INVERSION), LOSSES[loss]),
    }
    fisher, total = Fisher(draws, chunk), len(KINDS) * sum(len(x) for x, _, _ in asked.values())
    found: Seen = {}
    done = 0

    def report(images_done: int, _: int) -> None:
        progress(done + images_done, total)

    for task, (x, y, measure) in asked.items():
        x, y = x.to(where), y.to(where)
        found[task, "true"] = fisher.true(model, x, measure, seed=seed, progress=report)
        done += len(x)
        found[task, "empirical"] = fisher.empirical(model, x, y, measure, progress=report)
        done += len(x)
    _leave(found, out, where)


def _some(images: Tensor, labels: Tensor, most: int, task: str) -> tuple[Tensor, Tensor]:
    """At most so many images with their labels, chosen by a key."""
    chosen = np.sort(randomness.stream("fisher", task).permutation(len(images))[:most])
    return images[torch.from_numpy(chosen)], labels[torch.from_numpy(chosen)]


def _reconstructions(folder: Path) -> tuple[Tensor, Tensor]:
    """The best image of every person, and who it is: images of one person are not independent."""
    stored = [load_file(path / invert.RECONSTRUCTIONS) for path in sorted(folder.iterdir())]
    images, people = ([part[name] for part in stored] for name in ("images", "identities"))
    return torch.cat(images)[:, 0], torch.cat(people)


def _leave(found: Seen, out: Path, device: torch.device) -> None:
    save_arrays({"/".join(key): seen.sums for key, seen in found.items()}, out / SUMS)
    layers = [asdict(layer) for layer in next(iter(found.values())).layers]
    facts = {"layers": layers, "environment": environment(device)}
    (out / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _found(folder: Path) -> Seen:
    layers = json.loads((folder / FACTS).read_text(encoding="utf-8"))["layers"]
    owned = tuple(Layer(**layer) for layer in layers)
    sums = load_arrays(folder / SUMS)
    tasks = (CLASSIFICATION, INVERSION)
    return {(task, kind): Information(owned, sums[f"{task}/{kind}"]) for task in tasks for kind in KINDS}


def run(stage: Stage[Analysis]) -> None:
    """One cell, the information of every image; then its tables, the picture and what they say."""
    wanted, row = stage.params, stage.params.rows[stage.row or ""]
    stage.events.tags({"victim": row.victim, "attack": row.attack, "loss": wanted.loss})
    kwargs = {
        **wanted.model_dump(exclude={"rows"}),
        "seed": row.seed,
        "device": str(resolve(stage.cost.device)),
    }
    inputs = {"data": stage.path("data")}
    for option in ("victim", "reconstructions"):
        inputs[option] = stage.path(option) / f"seed-{row.seed}"
    folders = stage.cells([Cell("information", "tasks.fisher:information", kwargs, inputs)])
    found = _found(folders["information"])
    layers = [line for key, seen in found.items() for line in scores(row.victim, *key, seen)]
    ends = [line for key, seen in found.items() for line in thirds(row.victim, *key, seen)]
    write_csv(stage.out / LAYERS, [line.flat() for line in layers])
    write_csv(stage.out / THIRDS, [line.flat() for line in ends])
    (stage.out / PICTURE).write_bytes(depth(layers))
    _record(stage, row, ends)


def scores(victim: str, task: str, kind: str, seen: Information) -> list[Score]:
    """A line a layer, in the order of execution."""
    rows = zip(seen.layers, seen.means(), seen.shares(), strict=True)
    return [
        Score(victim, task, kind, layer.name, i, layer.group, layer.parameters, mean, share)
        for i, (layer, mean, share) in enumerate(rows)
    ]


def thirds(victim: str, task: str, kind: str, seen: Information) -> list[Third]:
    """First and last third of each group's layers, and their difference, under both normalisations."""
    lines = []
    sizes = np.array([layer.parameters for layer in seen.layers])
    for group in dict.fromkeys(layer.group for layer in seen.layers):
        own = [i for i, layer in enumerate(seen.layers) if layer.group == group]
        for normalisation, sums in ((MEAN, seen.sums / sizes), (SHARE, seen.sums)):
            figures = zip((FIRST, LAST, DIFFERENCE), stats.of_rows(sums[:, own], _ends), strict=True)
            lines += [Third(victim, task, kind, group, normalisation, part, value) for part, value in figures]
    return lines


def _ends(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """[b, layers] to what first and last third have of their sum, and the difference: [b, 3]."""
    held, size = parts(means), max(1, means.shape[1] // 3)
    first, last = held[:, :size].sum(1), held[:, -size:].sum(1)
    return np.stack([first, last, first - last], 1)


def _record(stage: Stage[Analysis], row: Row, ends: list[Third]) -> None:
    """One finding a task and kind, with the thirds of convolution and linear layers; and the words."""
    findings: dict[tuple[str, str], dict[str, float]] = {}
    for line in ends:
        if line.group == "weights":
            key = f"{line.normalisation}_{line.part.replace(' ', '_')}"
            values = {key: line.value.point, f"{key}_low": line.value.low, f"{key}_high": line.value.high}
            findings.setdefault((line.task, line.kind), {}).update(values)
    for (task, kind), values in findings.items():
        tags = {"victim": row.victim, "attack": row.attack, "task": task, "fisher": kind}
        stage.events.finding(f"{row.victim} {task} {kind}", tags, values)
    stage.events.text("said", said(ends))
    for name in (LAYERS, THIRDS):
        stage.events.artifact(stage.out / name)
    stage.events.artifact(stage.out / PICTURE, "image")


if __name__ == "__main__":
    raise SystemExit(launch(run, ["data", "victim", "reconstructions"], Analysis))
