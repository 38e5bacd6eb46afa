"""Stage `shadow_victims`: models trained as a victim was, on random halves of its pool, and what they say.

A cell a shadow, and one for each training seed of the victim itself. Of none of them anything is kept but
logits: what membership inference reads.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mipriv import draws
from mipriv.attacks.membership import Answers
from mipriv.attacks.search.rows import in_chunks
from mipriv.data.dataset import Dataset
from mipriv.data.splits import PRIVATE
from mipriv.defenses import Defense
from mipriv.device import place, resolve
from mipriv.models import checkpoint
from mipriv.shadows import stratified
from mipriv.training import released
from tasks import finetune, split
from tasks.engine.cells import Cell, Progress
from tasks.engine.events import Events
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch
from tasks.party import Party, defended

FILE = "answers.safetensors"
CHUNK = 256


class Row(Block):
    """Shadows of a victim: a row `victim` of the stage `of`, of a split one an `arm`, on a row of `prepare`.

    `models`, of shadows; `mirrored`, whether images are asked about in a mirror, too; `seed`, of pool, halves
    and training.
    """

    of: Literal["finetune", "split"]
    victim: str
    arm: str | None = None
    data: str
    models: Annotated[int, Field(gt=1, multiple_of=2)]
    mirrored: bool
    seed: Annotated[int, Field(ge=0)]

    @property
    def subject(self) -> str:
        """As other tables call the victim."""
        return self.victim if self.arm is None else f"{self.victim}/{self.arm}"


class ShadowVictims(Block):
    """`rows`."""

    rows: dict[str, Row]


@dataclass(frozen=True)
class Asked:
    """The records that everybody is asked about.

    Attributes:
        images: [N, C, H, W].
        labels: [N] int64, of the victim's task.
        people: [N] int64.
        members: [N] bool, of the victim.
        population: images [Z, C, H, W] that are in nobody's training set.
        population_labels: [Z] int64.
        selecting: images a person that the victim was selected by.
        hidden: classes [N] int64 of the attribute that the victim's defence hides, by its name.
    """

    images: Tensor
    labels: Tensor
    people: Tensor
    members: Tensor
    population: Tensor
    population_labels: Tensor
    selecting: int
    hidden: dict[str, Tensor]

    @classmethod
    def of(cls, data: Dataset, task: str | None, private: str | None, seed: int) -> "Asked":
        """Private images: the victim's own, and as many others of each person."""
        parts = [data.split(name) for name in PRIVATE]
        images, people = (torch.cat(one) for one in zip(*parts, strict=True))
        labels = torch.cat([data.task(name, task) for name in PRIVATE])
        trained = torch.arange(len(people)) < len(parts[0][1])
        pool = stratified.pool_of(people, trained, seed)
        return cls(
            images[pool.records], labels[pool.records], people[pool.records], pool.members,
            images[pool.population], labels[pool.population],
            round(len(parts[1][1]) / len(people.unique())),
            {name: torch.cat([data.attribute(part, name) for part in PRIVATE])[pool.records]
             for name in [private] if name is not None},
        )  # fmt: skip


def shadow(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    of: str,
    made: dict[str, Any],
    task: str | None,
    models: int,
    number: int,
    mirrored: bool,
    seed: int,
    device: str,
) -> None:
    """Cell: what one shadow says."""
    data = Dataset.open(inputs["data"])
    private = defended(made["defense"], made["knobs"], made.get("cem"), "shadow_victims").private
    asked = Asked.of(data, task, private, seed)
    members = stratified.halves(asked.people, models, seed)[number]
    own = int(draws.stream(seed, "shadow", number).integers(2**31))
    chosen = stratified.held(asked.people, members, max(1, asked.selecting), own)
    pairs = (asked.images[members], asked.labels[members]), (asked.images[chosen], asked.labels[chosen])
    how = {"seed": own, "device": device, "progress": progress, "events": events, **made}
    model: nn.Module
    if of == "finetune":
        model, plan, history = finetune.trained(data, pairs, inputs=inputs, **how)
    else:
        hidden = {name: classes[members] for name, classes in asked.hidden.items()}
        model, plan, history = split.trained(data, pairs, task=task, attributes=hidden, **how)
    events.metric("members_accuracy", history.kept.accuracy)
    with released(model, plan, own, "asked"):
        _leave(out, model, asked, members, mirrored)


def target(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    of: str,
    task: str | None,
    mirrored: bool,
    seed: int,
    device: str,
) -> None:
    """Cell: what the victim itself says."""
    asked = Asked.of(Dataset.open(inputs["data"]), task, None, seed)
    where = torch.device(device)
    if of == "finetune":
        model: nn.Module = place(checkpoint.load_classifier(inputs["victim"]), where)
        plan = Defense()
    else:
        party = Party.load(inputs["victim"], where)
        model, plan = party.model, party.defense
    with released(model, plan, seed, "asked"):
        _leave(out, model, asked, asked.members, mirrored)
    progress(1, 1)


def _leave(out: Path, model: nn.Module, asked: Asked, members: Tensor, mirrored: bool) -> None:
    """Logits float32 [Q, N, C] of an image and, where wanted, of its mirror image."""
    model.eval()
    device = next(model.parameters()).device

    @torch.no_grad()
    def said(images: Tensor) -> Tensor:
        views = [images, images.flip(-1)] if mirrored else [images]
        each = [in_chunks(lambda x: model(x.to(device)), view, CHUNK) for view in views]
        return torch.stack(each).float().cpu().contiguous()

    answers = {"logits": said(asked.images), "labels": asked.labels, "members": members}
    if len(asked.population):
        answers |= {"population": said(asked.population), "population_labels": asked.population_labels}
    save_file(answers, out / FILE)


def load(folder: Path, row: Row, seeds: list[int]) -> tuple[Answers, Answers]:
    """Answers of a victim, a target each training seed, and of its shadows.

    Args:
        folder: what the stage left of a row.
        seeds: of the victim.
    """
    return (
        _answers([folder / "target" / f"seed-{seed}" for seed in seeds]),
        _answers([folder / shadow_name(number) for number in range(row.models)]),
    )


def shadow_name(number: int) -> str:
    """Of a cell."""
    return f"shadow-{number:03d}"


def _answers(folders: list[Path]) -> Answers:
    found = [load_file(folder / FILE) for folder in folders]
    logits, members = (torch.stack([one[name] for one in found]) for name in ("logits", "members"))
    if "population" not in found[0]:
        return Answers(logits, found[0]["labels"], members)
    population = torch.stack([one["population"] for one in found])
    return Answers(logits, found[0]["labels"], members, population, found[0]["population_labels"])


def run(stage: Stage[ShadowVictims]) -> None:
    """Cells of one row: `target/seed-0`, `shadow-000`."""
    row = stage.params.rows[stage.row or ""]
    stage.events.tags({"victim": row.subject, "shadows": str(row.models)})
    victim = stage.path("victim") if row.arm is None else stage.path("victim") / row.arm
    made, task, seeds = _made(stage, row)
    shared = {"of": row.of, "task": task, "mirrored": row.mirrored, "seed": row.seed}
    shared |= {"device": str(resolve(stage.cost.device))}
    data = {"data": stage.path("data")}
    own = {**shared, "made": made, "models": row.models}
    inputs = data if row.of == "split" else {**data, "backbone": _backbone(stage, row)}
    stage.cells(
        [
            Cell(
                f"target/seed-{seed}",
                "tasks.shadow_victims:target",
                shared,
                {**data, "victim": victim / f"seed-{seed}"},
            )
            for seed in seeds
        ]
        + [
            Cell(shadow_name(number), "tasks.shadow_victims:shadow", {**own, "number": number}, inputs)
            for number in range(row.models)
        ]
    )


def _made(stage: Stage[ShadowVictims], row: Row) -> tuple[dict[str, Any], str | None, list[int]]:
    """How the victim was made, its task, and its training seeds: from the rows that it was made from."""
    if row.of == "finetune":
        whole = stage.block("finetune", finetune.Finetune).rows[row.victim]
        recipe = stage.values["finetune"]["recipes"][whole.recipe]
        return {"defense": whole.defense, "knobs": whole.knobs, "recipe": recipe}, None, whole.seeds
    block = stage.block("split", split.Splits)
    parted = block.rows[row.victim]
    arm = parted.arms[row.arm or ""]
    made = {
        "network": block.networks[parted.network].model_dump(),
        "defense": parted.defense,
        "knobs": {**parted.knobs, **arm.knobs},
        "cem": arm.cem,
        "recipe": stage.values["split"]["recipes"][parted.recipe],
    }
    return made, parted.task, parted.seeds


def _backbone(stage: Stage[ShadowVictims], row: Row) -> Path:
    whole = stage.block("finetune", finetune.Finetune).rows[row.victim]
    return stage.path("backbones") / whole.backbone / "model"


if __name__ == "__main__":
    raise SystemExit(launch(run, ["data", "victim", "backbones"], ShadowVictims))
