"""Stage `reconstruct`: images recovered from features that a client sends; one cell an arm and training seed.

Of a split victim, whose defence is at work; or of a whole one, cut at a named layer.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn

from mipriv import draws
from mipriv.attacks.reconstruction import Client, Knowledge, Recovered, Sender, offer
from mipriv.attacks.search.rows import in_chunks
from mipriv.data.dataset import Dataset
from mipriv.device import environment, place, resolve
from mipriv.metrics.reconstruction import mse, residual
from mipriv.models import checkpoint, simulator
from mipriv.models.fold import folded
from mipriv.models.split import split
from tasks.engine.cells import Cell, Progress
from tasks.engine.events import Events
from tasks.engine.params import Block, plugin_knobs
from tasks.engine.stage import Stage, launch
from tasks.knowledge import Setting, known_by, targets_of
from tasks.party import Party

RECOVERED = "recovered.safetensors"
FACTS = "attack.json"
SIMULATED = "simulated.safetensors"
CHUNK = 256


class Row(Block):
    """An attack on a victim's features.

    `attack`, a plug-in whose knobs stand under `attacks`, and the `knobs` that this row has otherwise; `of`,
    the stage that trained the `victim`, a row there, on `data`, a row of `prepare`; `layers`, after which a
    whole victim is cut; `arms` of a split victim (null: all) and training `seeds` that are attacked;
    `knowledge`, whose images the attacker has; `repeats`, how often each target sends its features;
    `targets`, if fewer than of other rows.
    """

    attack: str
    knobs: dict[str, Any] = Field(default_factory=dict)
    of: Literal["split", "finetune"]
    victim: str
    data: str
    layers: list[str] | None = None
    arms: list[str] | None = None
    seeds: list[int]
    knowledge: Setting
    repeats: Annotated[int, Field(gt=0)] = 1
    targets: Annotated[int, Field(gt=1)] | None = None


class Reconstruct(Block):
    """`targets`, at most (null: all); `seed` of the attacker; `attacks`; `rows`."""

    targets: Annotated[int, Field(gt=1)] | None
    seed: Annotated[int, Field(ge=0)]
    attacks: dict[str, dict[str, Any]]
    rows: dict[str, Row]

    def knobs(self, row: Row) -> dict[str, Any]:
        """Knobs of a row's attack."""
        return {**self.attacks[row.attack], **row.knobs}

    def most(self, row: Row) -> int | None:
        """Targets of a row, at most; None: all."""
        return min((n for n in (row.targets, self.targets) if n is not None), default=None)


def attack(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    attack: str,
    knobs: dict[str, Any],
    layer: str | None,
    knowledge: Setting,
    repeats: int,
    targets: int | None,
    seed: int,
    device: str,
) -> None:
    """Cell: what an attacker makes of the features of one victim's targets, of which it sees nothing else."""
    where, data = torch.device(device), Dataset.open(inputs["data"])
    client, parts = _client(inputs["victim"], layer, data.image_shape, where)
    attacker = plugin_knobs("reconstruction", attack, knobs, f"reconstruct.attacks.{attack}")
    facts = recover(
        out,
        events,
        progress,
        attacker,
        client,
        parts,
        data,
        knowledge=knowledge,
        repeats=repeats,
        targets=targets,
        seed=seed,
        device=where,
    )
    save_facts(out, {"attack": attack, **facts})
    if (inputs["victim"] / simulator.FILE).exists():
        observed = _observed(client, data, targets, repeats, seed, where).mean(1)
        _simulate(out, simulator.Simulator.load(inputs["victim"]).to(where), data, targets, observed)


def recover(
    out: Path,
    events: Events,
    progress: Progress,
    attacker: Any,
    client: Sender,
    parts: list[nn.Module],
    data: Dataset,
    *,
    knowledge: Setting,
    repeats: int,
    targets: int | None,
    seed: int,
    device: torch.device,
) -> dict[str, Any]:
    """Attack one client and leave what was recovered; facts of how it went.

    `client` makes the features of a victim whose modules are `parts`, on `device`; `targets` at most are
    attacked, each of which sends its features `repeats` times. `attacker` is a plug-in.
    """
    observed = _observed(client, data, targets, repeats, seed, device)
    learnt, held = known_by(data, knowledge)
    known = Knowledge(learnt.to(device), held.to(device), data.bounded)
    for part in parts:
        part.requires_grad_(False)
    if getattr(attacker, "oracle_reset", False):
        client = replace(client, truth=targets_of(data, targets).images.to(device))
    handed = offer(client, attacker.access)
    found: Recovered = attacker(handed, known, observed, seed=seed, progress=progress)
    for line in found.log:
        events.metrics({k: v for k, v in line.items() if k != "step"}, step=int(line["step"]))
    images = found.images.float().cpu().contiguous()
    save_file({"images": images, "residual": _residual(client, images, observed)}, out / RECOVERED)
    events.metric("queries", found.queries)
    if found.validation_error is not None:
        events.metric("validation_error", found.validation_error)
    return {
        "queries": found.queries,
        "seed": seed,
        "environment": environment(device),
        "validation_error": found.validation_error,
        "learnt_from": len(learnt),
        "selected_by": len(held),
        "notes": found.notes,
    }


def _simulate(
    out: Path, inside: simulator.Simulator, data: Dataset, targets: int | None, observed: Tensor
) -> None:
    """Leave squared errors [n] of the mean of what decoders inside the victim's training make of the very
    features that the attack is given: a diagnosis of that training, see `tasks.auditing.simulated`."""
    if inside.decoders:
        made = in_chunks(lambda x: torch.stack(inside.decode(x)).mean(0), observed, CHUNK)
        save_file({"error": mse(made.cpu(), targets_of(data, targets).images)}, out / SIMULATED)


def save_facts(out: Path, facts: dict[str, Any]) -> None:
    """Beside what was recovered."""
    (out / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _client(
    folder: Path, layer: str | None, image_shape: tuple[int, int, int], device: torch.device
) -> tuple[Sender, list[nn.Module]]:
    """What makes a victim's features, its normalisation folded, and the modules in it."""
    if layer is None:
        party = Party.load(folder, device)
        client = place(folded(party.model.client, image_shape), device)
        return Sender(client, party.defense.release), [client]
    model = place(folded(checkpoint.load_classifier(folder), image_shape), device)
    return behind(model, layer, image_shape), [model]


def behind(model: nn.Module, layer: str, image_shape: tuple[int, int, int]) -> Sender:
    """A whole network as a client that sends, untouched, what it has after a layer."""
    return Sender(split(model, layer, image_shape).client, lambda features, _: features)


def _residual(client: Sender, images: Tensor, observed: Tensor) -> Tensor:
    """[n], of the images' features without what is drawn, against the mean of what was observed."""
    wanted = observed.mean(1)
    features = in_chunks(lambda x: client.network(x.to(wanted)), images, CHUNK)
    found = residual(features, wanted)
    # To features that are all zero nothing is relative: where something comes back, all of it is off.
    silent = (wanted.flatten(1) == 0).all(1)
    return found.where(~silent, found.clamp(max=1)).float().cpu()


def _observed(
    client: Client, data: Dataset, most: int | None, repeats: int, seed: int, device: torch.device
) -> Tensor:
    """What the targets send, [n, r, *feature_shape]: a client draws anew each time."""
    images = targets_of(data, most).images
    sent = []
    for time in range(repeats):
        random = draws.generator(seed, "sent", time)
        sent.append(in_chunks(lambda x, random=random: client(x.to(device), random), images, CHUNK))  # type: ignore[misc]
    return torch.stack(sent, 1)


def run(stage: Stage[Reconstruct]) -> None:
    """Cells of one row: `ARM/seed-N`."""
    wanted, row = stage.params, stage.params.rows[stage.row or ""]
    stage.events.tags({"attack": row.attack, "victim": row.victim, "knowledge": row.knowledge})
    shared = {
        "attack": row.attack,
        "knobs": wanted.knobs(row),
        "knowledge": row.knowledge,
        "repeats": row.repeats,
        "targets": wanted.most(row),
        "seed": wanted.seed,
        "device": str(resolve(stage.cost.device)),
    }
    work = []
    for arm in _arms(row, stage.path("victim")):
        whole = row.of == "finetune"
        folder = stage.path("victim") if whole else stage.path("victim") / arm
        for seed in row.seeds:
            inputs = {"data": stage.path("data"), "victim": folder / f"seed-{seed}"}
            own = {**shared, "layer": arm if whole else None}
            work.append(Cell(f"{arm}/seed-{seed}", "tasks.reconstruct:attack", own, inputs))
    stage.cells(work)


def _arms(row: Row, victim: Path) -> list[str]:
    """Arms of its victim that a row attacks: those of its block, or all that `split` left; a whole one's
    layers."""
    if row.layers is not None:
        return row.layers
    return row.arms or sorted(folder.name for folder in victim.iterdir() if folder.is_dir())


if __name__ == "__main__":
    raise SystemExit(launch(run, ["data", "victim"], Reconstruct))
