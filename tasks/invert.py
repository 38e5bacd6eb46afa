"""Stage `invert`: model inversion of victims, one cell a training seed and chunk of identities.

An attack that studies its victim first does so in one cell a training seed, known by the victim's bytes.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import torch
from PIL import Image
from pydantic import Field
from safetensors.torch import load_file, save_file

from mipriv import plugin
from mipriv.attacks.inversion import Studied, offer
from mipriv.data.dataset import Dataset
from mipriv.data.splits import PUBLIC
from mipriv.device import environment, place, resolve
from mipriv.errors import InputError
from mipriv.models import checkpoint, weights
from mipriv.models.fold import folded
from mipriv.models.generators import Generator
from tasks.engine.cells import Cell, Progress
from tasks.engine.events import Events
from tasks.engine.params import Block, plugin_knobs
from tasks.engine.stage import Stage, launch

RECONSTRUCTIONS = "reconstructions.safetensors"
FACTS = "attack.json"
KNOWLEDGE = "knowledge.safetensors"
STUDY = "study"  # folder of what studies left, beside those of the training seeds


class Row(Block):
    """An attack on a victim.

    `attack`, a plug-in whose knobs stand under `attacks`, and the `knobs` that this row has otherwise;
    `victim`, a row of `finetune`, and which of its training `seeds` are attacked; `prior`, a row of `prior`.
    """

    attack: str
    knobs: dict[str, Any] = Field(default_factory=dict)
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

    def knobs(self, row: Row) -> dict[str, Any]:
        """Knobs of a row's attack."""
        return {**self.attacks[row.attack], **row.knobs}

    def parts(self, card: checkpoint.Card) -> list[list[int]]:
        """Attacked identities of a victim, a cell's at a time.

        Raises:
            InputError: the victim knows fewer.
        """
        known = card.num_classes or 0
        count, size = self.identities or known, self.identities_a_cell
        if count > known:
            said = f"params.yaml: invert.identities: {count}; allowed: at most {card.num_classes}, or null"
            raise InputError(said)
        return [list(range(first, min(first + size, count))) for first in range(0, count, size)]


def study(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    attack: str,
    knobs: dict[str, Any],
    seed: int,
    device: str,
) -> None:
    """Cell: what an attack learns of one victim from public images, before anybody is attacked."""
    where = torch.device(device)
    data = Dataset.open(inputs["data"])
    public = torch.cat([data.split(name)[0] for name in PUBLIC]).to(where)
    attacker = plugin_knobs("inversion", attack, knobs, f"invert.attacks.{attack}")
    victim, prior = _victim(inputs["victim"], where), place(checkpoint.load_prior(inputs["prior"]), where)
    handed = offer(victim, attacker.access)
    learnt: Studied = attacker.study(handed, prior, public, seed=seed, progress=progress)
    for line in learnt.log:
        events.metrics({k: v for k, v in line.items() if k != "step"}, step=int(line["step"]))
    events.metric("study_queries", learnt.queries)
    weights.save(learnt.knowledge, out / KNOWLEDGE)
    _facts(out, attack, learnt.queries, seed, where)


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
    attacker = plugin_knobs("inversion", attack, knobs, f"invert.attacks.{attack}")
    victim, prior = _victim(inputs["victim"], where), place(checkpoint.load_prior(inputs["prior"]), where)
    targets, handed = torch.tensor(identities), offer(victim, attacker.access)
    known = {}
    if "study" in inputs:
        card = checkpoint.read_card(inputs["victim"])
        knowledge = attacker.blank(handed, prior, card.num_classes, card.image_shape)
        weights.load_into(knowledge, inputs["study"] / KNOWLEDGE)
        known["knowledge"] = place(knowledge, where)
    recover(out, events, progress, (attack, attacker), (handed, prior), targets, seed, **known)


def recover(
    out: Path,
    events: Events,
    progress: Progress,
    attack: tuple[str, Any],
    against: tuple[Any, Generator],
    targets: torch.Tensor,
    seed: int,
    **known: torch.nn.Module,
) -> None:
    """Run an attack, by name and object, on what it is handed of a victim and a prior; leave what it made."""
    name, attacker = attack
    handed, prior = against
    found = attacker(handed, prior, targets, seed=seed, progress=progress, **known)
    tensors = {
        name: getattr(found, name).cpu().contiguous() for name in ("images", "start", "latents", "scores")
    }
    save_file({**tensors, "identities": targets}, out / RECONSTRUCTIONS)
    _facts(out, name, found.queries, seed, prior.like.device)
    events.metrics({"score": found.scores.mean().item(), "queries": found.queries})


def _victim(folder: Path, device: torch.device) -> torch.nn.Module:
    model = folded(checkpoint.load_classifier(folder), checkpoint.read_card(folder).image_shape)
    return place(model, device)


def _facts(out: Path, attack: str, queries: int, seed: int, device: torch.device) -> None:
    facts = {"attack": attack, "queries": queries, "seed": seed, "environment": environment(device)}
    (out / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def run(stage: Stage[Invert]) -> None:
    """Cells of one row: where the attack has a study `study/seed-N`, then `seed-N/ids-FIRST`."""
    wanted, row = stage.params, stage.params.rows[stage.row or ""]
    knobs = wanted.knobs(row)
    kind: Any = plugin.find("inversion", row.attack)
    shared = {"attack": row.attack, "seed": wanted.seed, "device": str(resolve(stage.cost.device))}
    stage.events.tags({"attack": row.attack, "victim": row.victim, "prior": row.prior})
    inputs = {
        seed: {"victim": stage.path("victim") / f"seed-{seed}", "prior": stage.path("prior") / "model"}
        for seed in row.seeds
    }
    if hasattr(kind, "study"):
        public, learnt = {"data": stage.path("data")}, {k: v for k, v in knobs.items() if k in kind.learns}
        studies = [
            Cell(f"{STUDY}/seed-{seed}", "tasks.invert:study", {**shared, "knobs": learnt}, {**own, **public})
            for seed, own in inputs.items()
        ]
        for seed, folder in zip(row.seeds, stage.cells(studies).values(), strict=True):
            inputs[seed]["study"] = folder
    work = []
    for seed, own in inputs.items():
        for part in wanted.parts(checkpoint.read_card(own["victim"])):
            kwargs = {**shared, "knobs": knobs, "identities": part}
            work.append(Cell(f"seed-{seed}/ids-{part[0]:05d}", "tasks.invert:attack", kwargs, own))
    stage.cells(work)
    picture(stage, row.seeds)


def picture(stage: Stage[Any], seeds: list[int]) -> None:
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


if __name__ == "__main__":
    raise SystemExit(launch(run, ["data", "victim", "prior"], Invert))
