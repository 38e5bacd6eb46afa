"""Stage `report_split`: one offline page on split inference: findings, table, images, trade-off."""

from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor

from mipriv.data.dataset import Dataset
from mipriv.models import checkpoint
from tasks import leakage, reconstruct, split
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch
from tasks.knowledge import targets_of
from tasks.leakage import MSE, NATURAL, Table
from tasks.page import pictures, splits
from tasks.page.clients import Arm, Host, Panel, clients, strips
from tasks.page.pictures import Pixels
from tasks.page.render import html, leave, parameters, uri
from tasks.splits import recovered
from tasks.splits.gains import PLAIN, place

BLOCKS = ("prepare", "split", "reconstruct", "evaluate_split", "report_split")


class ReportSplit(Block):
    """`images`: targets in the picture wall, at most."""

    images: Annotated[int, Field(gt=0)]


def run(stage: Stage[ReportSplit]) -> None:
    """Write `report.html` and its pictures."""
    table = leakage.read(stage.path("evaluation") / leakage.FILE)
    victims, attacks = stage.block("split", split.Splits), stage.block("reconstruct", reconstruct.Reconstruct)
    walls = _walls(stage, victims, attacks)
    panels = _panels(table, victims, attacks)
    shown = {"clients": clients(panels)} if panels else {}
    page: dict[str, Any] = {
        "said": splits.said(table),
        "vacuous": splits.VACUOUS,
        "arms": splits.arms(table, victims, attacks),
        "whole": splits.whole(table, attacks),
        "floors": splits.floors(table),
        "certificates": splits.certificates(table),
        "walls": {
            data: {name: uri(pictures.png(pixels)) for name, pixels in wall.items()}
            for data, wall in walls.items()
        },
        "pictures": {name: uri(picture) for name, picture in shown.items()},
        "made": _made(stage, victims),
        "params": {name: dict(parameters(stage.values[name])) for name in BLOCKS},
    }
    leave(stage, {"report.html": html("split", page)}, shown)


def _panels(table: Table, victims: split.Splits, attacks: reconstruct.Reconstruct) -> list[Panel]:
    """Hosts without and with CEM, by attack and setting; settings without a host with both are left out."""
    hosts: dict[str, dict[str, Host]] = {}
    noise: dict[str, list[Arm]] = {}
    floors: dict[str, float] = {}
    for name, row in attacks.rows.items():
        if row.of != "split" or PLAIN not in recovered.arms(row, victims):
            continue
        setting, own = f"{row.attack}: {place(victims, row)}", victims.rows[row.victim]
        arms = {arm: _arm(table, row, name, arm, own.data) for arm in recovered.arms(row, victims)}
        around = [arm for arm in arms if own.arms[arm].cem is not None]
        with_cem = arms[around[0]] if around else None
        hosts.setdefault(setting, {})[row.victim] = Host(arms[PLAIN], with_cem)
        if own.defense == "noise":
            swept = [arms[arm] for arm in arms if own.arms[arm].cem is None]
            noise.setdefault(setting, []).extend(swept if len(swept) > 1 else [])
        where = f"{row.data}, {row.knowledge}"
        floors[setting] = table.value("mean image", "reconstruction floor", MSE, "", where).point
    return [Panel(name, own, noise.get(name, []), floors[name]) for name, own in hosts.items()]


def _arm(table: Table, row: reconstruct.Row, name: str, arm: str, data: str) -> Arm:
    victim = f"{row.victim}/{arm}"
    natural = table.value(victim, "split victim", NATURAL, "", data)
    return Arm(natural, table.value(f"{name}/{arm}", "reconstruction", MSE, "", victim))


def _walls(
    stage: Stage[ReportSplit], victims: split.Splits, attacks: reconstruct.Reconstruct
) -> dict[str, dict[str, Pixels]]:
    """By dataset: the first targets, and what every attack made of them, first training seed."""
    real: dict[str, Tensor] = {}
    made: dict[str, dict[str, Tensor]] = {}
    for name, row in attacks.rows.items():
        own = targets_of(Dataset.open(stage.path("data") / row.data), attacks.targets).images
        few = torch.linspace(0, len(own) - 1, min(stage.params.images, len(own))).long()
        real[row.data] = own[few]
        for arm in recovered.arms(row, victims):
            cell = stage.path("reconstructions") / name / arm / f"seed-{row.seeds[0]}"
            images = load_file(cell / reconstruct.RECOVERED)["images"]
            made.setdefault(row.data, {})[f"{name}/{arm}"] = images[few]
    return {data: strips(images, made[data]) for data, images in real.items()}


def _made(stage: Stage[ReportSplit], victims: split.Splits) -> dict[str, str]:
    sets = dict.fromkeys(row.data for row in victims.rows.values())
    said = {}
    for name in sets:
        data = Dataset.open(stage.path("data") / name)
        sizes = (f"{part} {len(indices)}" for part, indices in data.manifest.splits.items() if len(indices))
        said[f"Data: {name}"] = (
            f"{data.manifest.source}, {' x '.join(map(str, data.image_shape))}; {', '.join(sizes)}"
        )
    places = [
        checkpoint.read_card(folder.parent).facts["environment"]
        for folder in sorted(Path(stage.path("victims")).rglob(checkpoint.CARD))
    ]
    distinct = dict.fromkeys(f"torch {e['torch']}, {e['device']}, {e['processor']}" for e in places)
    return {**said, "Made with": "; ".join(distinct)}


if __name__ == "__main__":
    raise SystemExit(launch(run, ["data", "victims", "reconstructions", "evaluation"], ReportSplit))
