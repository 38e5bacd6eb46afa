"""Stage `audit`: a model that a user brings, attacked by whatever applies to it; one row a model.

Nothing of the model's file is executed. What does not apply is left out, and the table says why.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mipriv.attacks.inversion import offer
from mipriv.data.dataset import Dataset
from mipriv.data.files import sha256
from mipriv.data.splits import PUBLIC
from mipriv.device import environment, place, resolve
from mipriv.models.fold import folded
from tasks.audits import answers, figures, threats
from tasks.audits.rows import Audit, Row, Victim
from tasks.engine import params
from tasks.engine.cells import Cell, Progress
from tasks.engine.events import Events
from tasks.engine.params import plugin_knobs
from tasks.engine.stage import Stage, launch
from tasks.page import audits
from tasks.reconstruct import behind, recover, save_facts

ANSWERS, ANSWERS_FACTS = "answers.safetensors", "answers.json"
INVERTED = "inverted.safetensors"


def answer(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    row: dict[str, Any],
    device: str,
) -> None:
    """Cell: logits of every private image of the data and, where they are given, of the training images."""
    where, wanted, data = torch.device(device), _row(row), Dataset.open(inputs["data"])
    victim = _victim(wanted, inputs, data)
    model = place(victim.model, where)
    found: dict[str, Tensor] = {}
    sets = {"data": data}
    if "training" in inputs:
        sets["training"] = Dataset.open(inputs["training"])
        answers.refuse_shared(sets["training"], data)
    for done, (name, own) in enumerate(sets.items(), 1):
        said, labels = answers.answered(model, own)
        outputs = torch.tensor(victim.outputs(own.names("private")))
        found |= {f"{name}.logits": said.contiguous(), f"{name}.labels": outputs[labels]}
        progress(done, len(sets))
    save_file(found, out / ANSWERS)
    facts = {"classes": victim.classes, "environment": environment(where)}
    (out / ANSWERS_FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def reconstruct(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    row: dict[str, Any],
    attack: str,
    knobs: dict[str, Any],
    layer: str,
    device: str,
) -> None:
    """Cell: images recovered from what the victim has after one layer."""
    where, wanted, data = torch.device(device), _row(row), Dataset.open(inputs["data"])
    model = place(folded(_victim(wanted, inputs, data).model, data.image_shape), where)
    facts = recover(
        out,
        events,
        progress,
        plugin_knobs("reconstruction", attack, knobs, f"audit.attacks.{attack}"),
        behind(model, f"network.{layer}", data.image_shape),
        [model],
        data,
        knowledge=wanted.knowledge,
        repeats=1,
        targets=wanted.targets,
        seed=wanted.seed,
        device=where,
    )
    save_facts(out, {"attack": attack, **facts})


def invert(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    row: dict[str, Any],
    attack: str,
    knobs: dict[str, Any],
    prior: str,
    prior_knobs: dict[str, Any],
    device: str,
) -> None:
    """Cell: images of every class from the victim alone, under a prior of public images."""
    where, wanted, data = torch.device(device), _row(row), Dataset.open(inputs["data"])
    victim = _victim(wanted, inputs, data)
    public = torch.cat([data.split(name)[0] for name in PUBLIC])
    learner = plugin_knobs("prior", prior, prior_knobs, "audit.inversion.prior_knobs")
    generator, _ = learner.fit(public, seed=wanted.seed, device=where)
    attacker = plugin_knobs("inversion", attack, knobs, "audit.inversion.knobs")
    model = place(folded(victim.model, data.image_shape), where)
    outputs = torch.tensor(victim.outputs(data.names("private")))
    handed = offer(model, attacker.access)
    found = attacker(handed, place(generator, where), outputs, seed=wanted.seed, progress=progress)
    save_file({name: getattr(found, name).cpu().contiguous() for name in ("images", "start")}, out / INVERTED)
    events.metrics({"score": found.scores.mean().item(), "queries": found.queries})


def _row(values: dict[str, Any]) -> Row:
    return params.validate(Row, values, "audit.rows")


def _victim(row: Row, inputs: dict[str, Path], data: Dataset) -> Victim:
    return Victim.load(row, inputs["weights"], data.image_shape, data.names("private"))


def run(stage: Stage[Audit]) -> None:
    """Attack one victim by all that applies; leave table, metrics and page."""
    name, row = stage.row or "", stage.params.rows[stage.row or ""]
    data = Dataset.open(stage.path("data"))
    left = threats.left_out(stage.params, name, row, data)
    with row.brought(stage.root) as weights:
        Victim.load(row, weights, data.image_shape, data.names("private"))  # refused before any work
        stage.events.input("weights", sha256(weights), weights)
        folders = stage.cells(_work(stage, row, data, weights))
    told = figures.Told(stage.params, name, row, data, folders)
    lines = [*told.accuracy(), *told.reconstruction()]
    lines += told.membership(left, stage.root)
    lines += told.inversion(left, resolve(stage.cost.device))
    figures.leave(stage, lines, left)
    audits.leave(stage, told, lines, left)


def _work(stage: Stage[Audit], row: Row, data: Dataset, weights: Path) -> list[Cell]:
    """Cells of whatever applies."""
    # What is computed of one layer does not depend on which others are asked for.
    plain = {**stage.plain("rows", stage.row or ""), "layers": [], "attacks": [], "shadows": None}
    inputs = {"data": stage.path("data"), "weights": weights}
    shared = {"row": plain, "device": str(resolve(stage.cost.device))}
    own = {} if threats.membership(row) else {"training": stage.path("training")}
    work = [Cell("answers", "tasks.audit:answer", shared, {**inputs, **own})]
    if threats.features(row, data) is None:
        for attack in row.attacks:
            knobs = {"attack": attack, "knobs": stage.plain("attacks", attack)}
            for layer in row.layers:
                kwargs = {**shared, **knobs, "layer": layer}
                work.append(Cell(f"{attack}/{layer}", "tasks.audit:reconstruct", kwargs, inputs))
    if threats.inversion(stage.params, row, data) is None:
        asked = stage.plain("inversion")
        kwargs = {key: asked[key] for key in ("attack", "knobs", "prior", "prior_knobs")}
        work.append(Cell("inversion", "tasks.audit:invert", {**shared, **kwargs}, inputs))
    return work


if __name__ == "__main__":
    raise SystemExit(launch(run, ["data", "training"], Audit))
