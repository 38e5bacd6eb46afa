"""Stage `shadow_victims`: models trained as a victim was, on random halves of its pool, and what they say.

A cell a shadow, and one for each training seed of the victim itself. Of none of them anything is kept but
logits: what membership inference reads. Where shadows differ in their heads alone, what stands in front of
the heads is a cell of its own.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn

from mipriv.attacks.membership import Answers
from mipriv.attacks.search.rows import in_chunks
from mipriv.data.dataset import Dataset
from mipriv.defenses import Defense
from mipriv.device import place, resolve
from mipriv.models import checkpoint
from mipriv.models.classifiers import Classifier
from mipriv.models.fold import folded
from mipriv.training import released
from tasks import finetune, split
from tasks.engine.cells import Cell, Progress
from tasks.engine.events import Events
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch
from tasks.memberships import probes
from tasks.memberships.asked import FILE, Asked
from tasks.party import Party, defended

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
    own = asked.drawn(models, number, seed)
    pairs = own.pairs(asked.images, asked.labels)
    how = {"seed": own.seed, "device": device, "progress": progress, "events": events, **made}
    model: nn.Module
    if of == "finetune":
        model, plan, history = finetune.trained(data, pairs, inputs=inputs, **how)
    else:
        hidden = {name: classes[own.members] for name, classes in asked.hidden.items()}
        model, plan, history = split.trained(data, pairs, task=task, attributes=hidden, **how)
    events.metric("members_accuracy", history.kept.accuracy)
    with released(model, plan, own.seed, "asked"):
        asked.leave(out, _said(model, data), own.members, mirrored)


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
    data = Dataset.open(inputs["data"])
    asked = Asked.of(data, task, None, seed)
    where = torch.device(device)
    if of == "finetune":
        model: nn.Module = place(checkpoint.load_classifier(inputs["victim"]), where)
        plan = Defense()
    else:
        party = Party.load(inputs["victim"], where)
        model, plan = party.model, party.defense
    with released(model, plan, seed, "asked"):
        asked.leave(out, _said(model, data), asked.members, mirrored)
    progress(1, 1)


def _said(model: nn.Module, data: Dataset) -> Callable[[Tensor], Tensor]:
    """Logits [n, C] of images [n, C, H, W] in evaluation mode, computed in chunks.

    A whole network answers with its normalisation folded; a split one's client may release at random.
    """
    model.eval()
    asked = folded(model, data.image_shape) if isinstance(model, Classifier) else model
    device = next(model.parameters()).device

    @torch.no_grad()
    def said(images: Tensor) -> Tensor:
        return in_chunks(lambda x: asked(x.to(device)), images, CHUNK)

    return said


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
    targets = [
        Cell(
            f"target/seed-{seed}",
            "tasks.shadow_victims:target",
            shared,
            {**data, "victim": victim / f"seed-{seed}"},
        )
        for seed in seeds
    ]
    if row.of == "split":
        stage.cells(targets + _shadows("tasks.shadow_victims:shadow", own, data))
        return
    inputs = {**data, "backbone": _backbone(stage, row)}
    if not probes.possible(Dataset.open(data["data"]), inputs, made):
        stage.cells(targets + _shadows("tasks.shadow_victims:shadow", own, inputs))
        return
    own = {name: value for name, value in own.items() if name not in ("of", "task")}
    made_once = {name: value for name, value in own.items() if name != "models"}
    first = stage.cells([Cell(probes.NAME, "tasks.memberships.probes:features", made_once, inputs), *targets])
    inputs |= {probes.NAME: first[probes.NAME]}
    stage.cells(_shadows("tasks.memberships.probes:shadow", own, inputs))


def _shadows(function: str, own: dict[str, Any], inputs: dict[str, Path]) -> list[Cell]:
    return [
        Cell(shadow_name(number), function, {**own, "number": number}, inputs)
        for number in range(own["models"])
    ]


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
