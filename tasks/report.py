"""Stage `report`: one offline page with the findings in words, the leakage table, faces and the trade-off.

The page holds no time and no commit (those are in the event files), so the same results give the same bytes.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from mipriv.data.splits import SPLITS
from mipriv.models import checkpoint
from tasks import finetune, information, invert
from tasks.curves import curves
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch
from tasks.leakage import NATURAL, TOP1
from tasks.page import claims, pictures, views
from tasks.page.findings import findings, share
from tasks.page.inputs import Inputs
from tasks.page.pictures import Part, Pixels
from tasks.page.render import html, leave, parameters, uri
from tasks.page.tradeoff import Panel, Point, Reached, attacks, tradeoff
from tasks.page.verdicts import verdicts

BLOCKS = (
    "prepare",
    "pretrain",
    "finetune",
    "prior",
    "judge",
    "invert",
    "invert_split",
    "split",
    "fisher",
    "evaluate",
    "report",
)


OPTIONS = [
    "data",
    "victims",
    "reconstructions",
    "split_reconstructions",
    "fisher",
    "evaluation",
    "claims",
]


class Report(Block):
    """`faces`: people in the picture wall, at most; `images_a_face`: pictures of each, at most."""

    faces: Annotated[int, Field(gt=0)]
    images_a_face: Annotated[int, Field(gt=0)]


def run(stage: Stage[Report]) -> None:
    """Write `report.html`, its pictures and `leakage.md`."""
    inputs = Inputs(stage)
    people, strips = _strips(inputs)
    accounts = {row: inputs.account(row) for row in inputs.whole}
    shown = {
        "faces": pictures.wall(strips, people),
        "attacks": attacks(_reached(inputs), inputs.evidence.chance),
        "account": pictures.account(accounts),
    }
    if panels := _panels(inputs):
        shown["tradeoff"] = tradeoff(panels)
    page = {
        "findings": findings(inputs.evidence),
        "evidence": inputs.evidence,
        "attacks": inputs.shown,
        "bounds": views.bounds(inputs.table),
        "judges": views.everyone(inputs.table),
        "classifiers": inputs.table.judges,
        "embedding": inputs.table.embedding,
        "victims": [views.victim(inputs.table, name, row) for name, row in inputs.victims.items()],
        "epsilon": inputs.stage.values["evaluate"]["perturbation"]["epsilon"],
        "matched": views.matched(inputs.table),
        "why": _why(inputs),
        "claims": verdicts(claims.read(inputs.stage.path("claims")), inputs.table, inputs.thirds),
        "people": people,
        "wall": {name: uri(pictures.png(pixels)) for name, pixels in strips.items()},
        "pictures": {name: uri(picture) for name, picture in shown.items()},
        "accounts": {row: _totals(parts) for row, parts in accounts.items()},
        "made": _made(inputs),
        "params": {name: dict(parameters(stage.values[name])) for name in BLOCKS},
        "shape": inputs.data.image_shape,
        "public": inputs.data.num_classes("public"),
    }
    table = views.markdown(page["attacks"], page["bounds"], page["judges"])
    leave(stage, {"report.html": html("report", page), "leakage.md": table}, shown)


def _panels(inputs: Inputs) -> list[Panel]:
    """Settings in which a defence has an undefended end, by every judge."""
    table, found = inputs.table, curves(inputs.inversion, inputs.victims)
    panels = []
    for where in dict.fromkeys(where for where, _ in found):
        own = {defense: rows for (place, defense), rows in found.items() if place == where}
        for judge in views.everyone(table):
            points = {name: [_point(inputs, row, judge) for row in rows] for name, rows in own.items()}
            undefended = next(iter(points.values()))[0]
            ceiling = table.value(table.subjects("ceiling")[0], "ceiling", TOP1, judge).point
            strengths = {name: curve[1:] for name, curve in points.items()}
            panels.append(Panel(where, judge, undefended, strengths, inputs.evidence.chance, ceiling))
    return panels


def _point(inputs: Inputs, row: str, judge: str) -> Point:
    table, victim = inputs.table, inputs.attacks[row].victim
    return Point(table.value(victim, "victim", NATURAL), table.value(row, "attack", TOP1, judge))


def _reached(inputs: Inputs) -> dict[str, dict[str, Reached]]:
    """Attacks on undefended victims, or on all where none is undefended, by every judge."""
    table = inputs.table
    plain = [row for row, own in inputs.attacks.items() if own.victim in inputs.evidence.undefended]
    return {
        row: {
            judge: Reached(
                table.value(row, "attack", TOP1, judge),
                table.value(f"{row}, selected only", "floor", TOP1, judge),
            )
            for judge in views.everyone(table)
        }
        for row in plain or inputs.attacks
    }


def _strips(inputs: Inputs) -> tuple[list[str], dict[str, Pixels]]:
    """Names of the first people, and a strip of theirs for real images, one start, and every attack."""
    wanted, names = inputs.stage.params, inputs.data.names("private")
    made = {row: inputs.made(row) for row in inputs.attacks}
    first = next(iter(made.values()))
    chosen = first["identities"].sort().values[: wanted.faces]
    images, labels = inputs.data.split("private/train")
    few = min(int((labels == person).sum()) for person in chosen)
    rows = {"real, private": torch.stack([images[labels == person][:few] for person in chosen])}
    rows[f"start of {next(iter(made))}"] = _of(first, "start", chosen)
    rows |= {row: _of(tensors, "images", chosen) for row, tensors in made.items()}
    width = min(wanted.images_a_face, max(images.shape[1] for images in rows.values()))
    strips = {name: pictures.strip(images[:, :width], width) for name, images in rows.items()}
    return [names[person] for person in chosen], strips


def _of(tensors: Mapping[str, Tensor], name: str, people: Tensor) -> Tensor:
    """Images [p, k, C, H, W] of some people, best first by the attack's own score."""
    places = [int((tensors["identities"] == person).nonzero()) for person in people]
    return tensors[name][places]


def _totals(parts: list[Part]) -> dict[str, Any]:
    trainable, frozen = sum(part.trainable for part in parts), sum(part.frozen for part in parts)
    first = next((part.name for part in parts if part.trainable), "none")
    return {"trainable": trainable, "frozen": frozen, "first": first}


def _why(inputs: Inputs) -> list[dict[str, str]]:
    """Fisher information over depth, row by row: picture and words."""
    return [
        {
            "row": folder.name,
            "said": information.said(information.read(folder / information.THIRDS)),
            "picture": uri((folder / information.PICTURE).read_bytes()),
        }
        for folder in inputs.fisher
    ]


def _made(inputs: Inputs) -> dict[str, str]:
    """How the results came about, term by term."""
    manifest, table = inputs.data.manifest, inputs.table
    sizes = (f"{split} {len(manifest.splits[split])}" for split in SPLITS)
    judges = (f"{judge} {share(table.value(judge, 'judge', 'accuracy'))}" for judge in table.judges)
    places = [checkpoint.read_card(inputs.victim(row)).facts["environment"] for row in inputs.whole]
    for row in inputs.attacks:
        facts = (json.loads((cell / invert.FACTS).read_text(encoding="utf-8")) for cell in inputs.cells(row))
        places += [fact["environment"] for fact in facts]
    distinct = dict.fromkeys(f"torch {e['torch']}, {e['device']}, {e['processor']}" for e in places)
    channels, height, width = inputs.data.image_shape
    return {
        "Data": f"{manifest.source}, {height} x {width} pixels, {'grey' if channels == 1 else 'colour'}",
        "Data digest": f"sha256 {inputs.data.digest}",
        "People": ", ".join(f"{inputs.data.num_classes(pool)} {pool}" for pool in ("public", "private")),
        "Images": ", ".join(sizes),
        "Judges, accuracy on private test images": ", ".join(judges),
        "Training seeds of victims": _seeds(inputs.victims),
        "Attacked training seeds": _seeds(inputs.attacks),
        "Seed of the attacker": str(inputs.stage.values["invert"]["seed"]),
        "Made with": "; ".join(distinct),
    }


def _seeds(rows: Mapping[str, finetune.Row] | Mapping[str, invert.Row]) -> str:
    return "; ".join(f"{name}: {', '.join(map(str, row.seeds))}" for name, row in rows.items())


if __name__ == "__main__":
    raise SystemExit(launch(run, OPTIONS, Report))
