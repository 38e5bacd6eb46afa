"""Stage `report_split`: one offline page on split inference, with findings, the table, images, the trade-off."""

from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors.torch import load_file

from mipriv.data.dataset import Dataset
from mipriv.models import checkpoint
from tasks import leakage, reconstruct, split
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch
from tasks.knowledge import targets_of
from tasks.leakage import MSE, NATURAL, Table
from tasks.page import pictures, splits, views
from tasks.page.pictures import Pixels
from tasks.page.privacy_utility import Host, Spot, privacy_utility
from tasks.page.render import html, leave, uri
from tasks.splits.gains import PLAIN

BLOCKS = ("split", "reconstruct", "evaluate_split")


class ReportSplit(Block):
    """`images`: targets in the picture wall, at most."""

    images: Annotated[int, Field(gt=0)]


def run(stage: Stage[ReportSplit]) -> None:
    """Write `report.html` and its pictures."""
    table = leakage.read(stage.path("evaluation") / leakage.FILE)
    victims, attacks = stage.block("split", split.Splits), stage.block("reconstruct", reconstruct.Reconstruct)
    walls = _walls(stage, victims, attacks)
    shown = {"clients": plot} if (plot := _plot(table, victims, attacks)) else {}
    page: dict[str, Any] = {
        "said": splits.said(table),
        "vacuous": splits.VACUOUS,
        "arms": splits.arms(table, victims, attacks),
        "whole": splits.whole(table, attacks),
        "floors": splits.floors(table),
        "certificates": splits.certificates(table),
        "walls": {
            data: {name: uri(pictures.png(pixels)) for name, pixels in strips.items()}
            for data, strips in walls.items()
        },
        "pictures": {name: uri(picture) for name, picture in shown.items()},
        "made": _made(stage, victims),
        "params": {name: dict(views.parameters(stage.values[name])) for name in BLOCKS},
    }
    leave(stage, {"report.html": html("split", page)}, shown)


def _plot(table: Table, victims: split.Splits, attacks: reconstruct.Reconstruct) -> bytes | None:
    """Hosts without and with CEM under the attack that most rows share."""
    hosts = []
    for name, row in attacks.rows.items():
        if row.of != "split" or row.attack != _primary(attacks):
            continue
        own = victims.rows[row.victim]
        spots = {
            arm: Spot(
                table.value(f"{row.victim}/{arm}", "split victim", NATURAL, "", own.data),
                table.value(f"{name}/{arm}", "reconstruction", MSE, "", f"{row.victim}/{arm}"),
            )
            for arm in reconstruct.arms(row, victims)
        }
        around = [arm for arm in spots if own.arms[arm].cem is not None]
        swept = [arm for arm in spots if arm != PLAIN and own.arms[arm].cem is None]
        hosts.append(
            Host(row.victim, spots.get(PLAIN), [spots[a] for a in around], [spots[a] for a in swept])
        )
    return privacy_utility(hosts) if hosts else None


def _primary(attacks: reconstruct.Reconstruct) -> str:
    used = [row.attack for row in attacks.rows.values() if row.of == "split"]
    return max(dict.fromkeys(used), key=used.count)


def _walls(
    stage: Stage[ReportSplit], victims: split.Splits, attacks: reconstruct.Reconstruct
) -> dict[str, dict[str, Pixels]]:
    """By dataset: the first targets, and what every attack made of them, first training seed."""
    walls: dict[str, dict[str, Pixels]] = {}
    for name, row in attacks.rows.items():
        own = targets_of(Dataset.open(stage.path("data") / row.data), attacks.targets).images
        few = torch.arange(stage.params.images) * (len(own) // stage.params.images or 1) % len(own)
        strips = walls.setdefault(row.data, {"sent": pictures.strip(own[few][:, None], 1)})
        for arm in reconstruct.arms(row, victims):
            cell = stage.path("reconstructions") / name / arm / f"seed-{row.seeds[0]}"
            made = load_file(cell / reconstruct.RECOVERED)["images"]
            strips[f"{name}/{arm}"] = pictures.strip(made[few][:, None], 1)
    return walls


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
