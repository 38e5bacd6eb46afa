"""Stage `invert`: generative model inversion of victims, one cell a training seed and chunk of identities."""

import json
from pathlib import Path
from typing import Annotated, Any

import torch
from PIL import Image
from pydantic import Field
from safetensors.torch import load_file, save_file

from mipriv.attacks.inversion import WhiteBoxInversion
from mipriv.device import environment, place, resolve
from mipriv.errors import InputError
from mipriv.models import checkpoint
from mipriv.models.fold import folded
from tasks.engine.cells import Cell, Progress
from tasks.engine.events import Events
from tasks.engine.params import Block, plugin_knobs
from tasks.engine.stage import Stage, launch

RECONSTRUCTIONS = "reconstructions.safetensors"
FACTS = "attack.json"


class Row(Block):
    """An attack on a victim.

    `attack`, a plug-in whose knobs stand under `attacks`; `victim`, a row of `finetune`, and which of its
    training `seeds` are attacked; `prior`, a row of `prior`.
    """

    attack: str
    victim: str
    prior: str
    seeds: list[int]


class Invert(Block):
    """`identities` attacked (null: all), `identities_a_cell`, `seed` of the attacker, `attacks`, `rows`."""

    identities: Annotated[int, Field(gt=1)] | None
    identities_a_cell: Annotated[int, Field(gt=0)]
    seed: Annotated[int, Field(ge=0)]
    attacks: dict[str, dict[str, Any]]
    rows: dict[str, Row]


def attack(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    attack: str,
    knobs: dict[str, Any],
    identities: list[int],
    seed: int,
    device: str,
) -> None:
    """Cell: reconstructions of some identities from one victim. No private image is within reach."""
    where = torch.device(device)
    card = checkpoint.read_card(inputs["victim"])
    victim = folded(checkpoint.load_classifier(inputs["victim"]), card.image_shape)
    prior = checkpoint.load_prior(inputs["prior"])
    attacker: WhiteBoxInversion = plugin_knobs("inversion", attack, knobs, f"invert.attacks.{attack}")
    targets = torch.tensor(identities)
    found = attacker(place(victim, where), place(prior, where), targets, seed=seed, progress=progress)
    tensors = {
        name: getattr(found, name).cpu().contiguous() for name in ("images", "start", "latents", "scores")
    }
    save_file({**tensors, "identities": targets}, out / RECONSTRUCTIONS)
    facts = {"attack": attack, "queries": found.queries, "seed": seed, "environment": environment(where)}
    (out / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    events.metrics({"score": found.scores.mean().item(), "queries": found.queries})


def run(stage: Stage[Invert]) -> None:
    """Cells of one row; a cell's folder is `seed-N/ids-FIRST`."""
    wanted, row = stage.params, stage.params.rows[stage.row or ""]
    shared = {"attack": row.attack, "knobs": wanted.attacks[row.attack], "seed": wanted.seed}
    shared["device"] = str(resolve(stage.cost.device))
    stage.events.tags({"attack": row.attack, "victim": row.victim, "prior": row.prior})
    prior = stage.path("prior") / "model"
    work = []
    for seed in row.seeds:
        victim = stage.path("victim") / f"seed-{seed}"
        for part in _chunks(_targets(wanted, checkpoint.read_card(victim)), wanted.identities_a_cell):
            name = f"seed-{seed}/ids-{part[0]:05d}"
            inputs = {"victim": victim, "prior": prior}
            work.append(Cell(name, "tasks.invert:attack", {**shared, "identities": part}, inputs))
    stage.cells(work)
    _picture(stage, row.seeds)


def _picture(stage: Stage[Invert], seeds: list[int]) -> None:
    """The best image of every identity, a row a training seed: to look at in the record of the run."""
    strips = []
    for seed in seeds:
        parts = sorted((stage.out / f"seed-{seed}").iterdir())
        best = torch.cat([load_file(part / RECONSTRUCTIONS)["images"][:, 0] for part in parts])
        strips.append(torch.cat([*best.clamp(0, 1)], 2))
    pixels = (torch.cat(strips, 1) * 255).round().byte().permute(1, 2, 0).squeeze(2)
    path = stage.out / "best.png"
    Image.fromarray(pixels.numpy()).save(path)
    stage.events.artifact(path, "image")


def _targets(wanted: Invert, card: checkpoint.Card) -> list[int]:
    count = wanted.identities or card.num_classes or 0
    if count > (card.num_classes or 0):
        raise InputError(
            f"params.yaml: invert.identities: {count}; allowed: at most {card.num_classes}, or null"
        )
    return list(range(count))


def _chunks(items: list[int], size: int) -> list[list[int]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


if __name__ == "__main__":
    raise SystemExit(launch(run, ["victim", "prior"], Invert))
