"""Stage `report_split`: one offline page on split inference: findings, table, images, trade-off."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor

from mipriv.data.dataset import Dataset
from mipriv.models import checkpoint
from tasks import leakage, reconstruct, split
from tasks.auditing import simulated
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch
from tasks.knowledge import Targets, targets_of
from tasks.leakage import MSE, NATURAL, Table
from tasks.page import pictures, splits
from tasks.page.clients import Arm, Host, Panel, clients, strips
from tasks.page.pictures import Pixels
from tasks.page.render import html, leave, parameters, uri
from tasks.splits import recovered
from tasks.splits.gains import PLAIN, place

ABREAST = 3  # targets a cell of the picture over depth
BLOCKS = ("prepare", "split", "reconstruct", "evaluate_split", "report_split")


@dataclass(frozen=True)
class Depth:
    """Pictures of one attack on victims that are cut after the same layers.

    Attributes:
        lines: by victim, the targets and what was made of them after each layer.
    """

    attack: str
    data: str
    layers: tuple[str, ...]
    lines: dict[str, list[str]]


class ReportSplit(Block):
    """`images`: targets in the picture wall, at most."""

    images: Annotated[int, Field(gt=0)]


def run(stage: Stage[ReportSplit]) -> None:
    """Write `report.html` and its pictures."""
    table = leakage.read(stage.path("evaluation") / leakage.FILE)
    victims, attacks = stage.block("split", split.Splits), stage.block("reconstruct", reconstruct.Reconstruct)
    pictured = _images(stage, victims, attacks)
    walls, solvers = _walls(stage, attacks, pictured), _solvers(stage, victims, attacks)
    panels = _panels(table, victims, attacks)
    shown = {"clients": clients(panels)} if panels else {}
    page: dict[str, Any] = {
        "said": splits.said(table),
        "vacuous": splits.VACUOUS,
        "arms": splits.arms(table, victims, attacks, solvers),
        "whole": splits.whole(table, attacks, solvers),
        "inside": splits.inside(table, simulated.read(stage.path("evaluation") / simulated.FILE)),
        "floors": splits.floors(table),
        "named": splits.named(table),
        "certificates": splits.certificates(table),
        "walls": {
            data: {name: uri(pictures.png(pixels)) for name, pixels in wall.items()}
            for data, wall in walls.items()
        },
        "depths": _depths(stage, attacks, pictured),
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
        where = recovered.place(attacks, row)
        floors[setting] = table.value("mean image", "reconstruction floor", MSE, "", where).point
    return [Panel(name, own, noise.get(name, []), floors[name]) for name, own in hosts.items()]


def _arm(table: Table, row: reconstruct.Row, name: str, arm: str, data: str) -> Arm:
    victim = f"{row.victim}/{arm}"
    natural = table.value(victim, "split victim", NATURAL, "", data)
    return Arm(natural, table.value(f"{name}/{arm}", "reconstruction", MSE, "", victim))


def _images(
    stage: Stage[ReportSplit], victims: split.Splits, attacks: reconstruct.Reconstruct
) -> dict[str, Tensor]:
    """What was made of the targets that are shown, by row and arm, first training seed."""
    made: dict[str, Tensor] = {}
    for name, row in attacks.rows.items():
        own, shown = _targets(stage, attacks, row), _shown(stage, attacks, row.data)
        few = torch.searchsorted(own.places, shown.places)
        for arm in recovered.arms(row, victims):
            made[f"{name}/{arm}"] = load_file(_cell(stage, name, arm, row) / reconstruct.RECOVERED)["images"][
                few
            ]
    return made


@functools.cache
def _chosen(folder: Path, most: int | None) -> Targets:
    """Opened once, however many rows attack them."""
    return targets_of(Dataset.open(folder), most)


def _targets(stage: Stage[ReportSplit], attacks: reconstruct.Reconstruct, row: reconstruct.Row) -> Targets:
    return _chosen(stage.path("data") / row.data, attacks.most(row))


def _shown(stage: Stage[ReportSplit], attacks: reconstruct.Reconstruct, data: str) -> Targets:
    """Targets of the row with the fewest on this dataset, spread evenly: every other row has them too."""
    all_of_them = [_targets(stage, attacks, row) for row in attacks.rows.values() if row.data == data]
    own = min(all_of_them, key=lambda targets: len(targets.images))
    few = torch.linspace(0, len(own.images) - 1, min(stage.params.images, len(own.images))).long()
    return Targets(own.images[few], own.labels[few], own.places[few])


def _cell(stage: Stage[ReportSplit], name: str, arm: str, row: reconstruct.Row) -> Path:
    return stage.path("reconstructions") / name / arm / f"seed-{row.seeds[0]}"


def _walls(
    stage: Stage[ReportSplit], attacks: reconstruct.Reconstruct, pictured: Mapping[str, Tensor]
) -> dict[str, dict[str, Pixels]]:
    """By dataset: targets, and what every attack made of them."""
    walls = {}
    for data in dict.fromkeys(row.data for row in attacks.rows.values()):
        own = {
            name: images
            for name, images in pictured.items()
            if attacks.rows[name.partition("/")[0]].data == data
        }
        walls[data] = strips(_shown(stage, attacks, data).images, own)
    return walls


def _depths(
    stage: Stage[ReportSplit], attacks: reconstruct.Reconstruct, pictured: Mapping[str, Tensor]
) -> list[Depth]:
    """Rows of one attack that cut whole victims after the same layers: a victim a line, a layer a column."""
    found: dict[tuple[str, str, tuple[str, ...]], Depth] = {}
    for name, row in attacks.rows.items():
        layers = tuple(row.layers or ())
        if len(layers) < 2:
            continue
        real = _shown(stage, attacks, row.data).images[:ABREAST]
        depth = found.setdefault((row.attack, row.data, layers), Depth(row.attack, row.data, layers, {}))
        parts = strips(real, {layer: pictured[f"{name}/{layer}"][:ABREAST] for layer in layers})
        depth.lines[row.victim] = [uri(pictures.png(pixels)) for pixels in parts.values()]
    return list(found.values())


def _solvers(
    stage: Stage[ReportSplit], victims: split.Splits, attacks: reconstruct.Reconstruct
) -> dict[str, str]:
    """What attacks say of how they went, by row and arm; of those that do."""
    said = {}
    for name, row in attacks.rows.items():
        for arm in recovered.arms(row, victims):
            facts = json.loads((_cell(stage, name, arm, row) / reconstruct.FACTS).read_text(encoding="utf-8"))
            said[f"{name}/{arm}"] = recovered.spelt(facts["notes"])
    return {name: how for name, how in said.items() if how}


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
