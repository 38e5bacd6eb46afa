"""The page of one audited model: what it gives away in words and figures, pictures beside reconstructions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mipriv.stats import Figure
from tasks.audits import figures
from tasks.audits.figures import Told
from tasks.audits.rows import Audit
from tasks.audits.threats import LeftOut
from tasks.engine.events import sha256
from tasks.engine.stage import Stage
from tasks.knowledge import known_by, targets_of
from tasks.leakage import AUC, MSE, NATURAL, PSNR, RESIDUAL, SSIM, TOP1, Line, percent, plain
from tasks.page import pictures, render
from tasks.page.clients import strips
from tasks.page.pictures import Pixels

MEDIAN = f"{PSNR}, median"
RESIDUALS = f"{RESIDUAL}, median"


@dataclass(frozen=True)
class Recovery:
    """A line of the table of reconstructions, spelt."""

    name: str
    mse: str
    psnr: str
    ssim: str
    residual: str
    n: int


def leave(stage: Stage[Audit], told: Told, lines: list[Line], left: list[LeftOut]) -> None:
    """Write `report.html` and its pictures."""
    walls = {"reconstruction": _reconstructions(stage, told), "inversion": _inversions(stage, told)}
    page: dict[str, Any] = {
        "name": told.name,
        "arch": told.row.victim.arch,
        "said": said(told, lines),
        "recoveries": recoveries(told, lines),
        "others": [line for line in map(_spelt, lines) if line],
        "left": left,
        "walls": {
            kind: {name: render.uri(pictures.png(pixels)) for name, pixels in wall.items()}
            for kind, wall in walls.items()
            if len(wall) > 1
        },
        "made": _made(stage, told),
        "params": {"audit": dict(render.parameters({**stage.plain("rows", told.name)}))},
    }
    render.leave(stage, {"report.html": render.html("audit", page)}, {})


def said(told: Told, lines: list[Line]) -> list[str]:
    """The answer in sentences; none claims more than an interval holds."""
    own = {(line.kind, line.figure, line.against): line.value for line in lines if line.subject == told.name}
    found = [_accuracy(own["victim", NATURAL, ""], told.answered["data.logits"].shape[1])]
    found += _recovered(told, own, lines)
    aucs = {against: value for (_, figure, against), value in own.items() if figure == AUC}
    for attack, value in aucs.items():
        verdict = "tells members from others" if value.low > 0.5 else "does not tell members from others"
        found.append(
            f"Membership: {attack} {verdict}: AUC {plain(value)}, n = {value.n} records; guessing is 0.5."
        )
    for (kind, figure, _), value in own.items():
        if kind == "attack" and figure == TOP1:
            floor = next(
                one.value for one in lines if one.subject == "mean public face" and one.figure == TOP1
            )
            beats = "more" if value.low > floor.point else "no more"
            found.append(
                f"Inversion: the embedding names {percent(value)} % of the people on images made of their "
                f"class, {beats} than on one mean face ({floor.point:.1%}), n = {value.n} people."
            )
    return found


def _accuracy(value: Figure, classes: int) -> str:
    text = f"The model names {percent(value)} % of the images of data rightly, n = {value.n} classes"
    if value.low <= 1 / classes:
        return f"{text}: no more than guessing. Are classes, preprocessing and data those of this model?"
    return f"{text}."


def _recovered(told: Told, own: Mapping[tuple[str, str, str], Figure], lines: list[Line]) -> list[str]:
    """A sentence a layer, of the attack that erred least on the attacker's own validation images."""
    floors = [line.value for line in lines if (line.kind, line.figure) == ("reconstruction floor", PSNR)]
    found = []
    for layer in dict.fromkeys(one.arm for one in told.recovered.values()):
        tried = [one for one in told.recovered.values() if one.arm == layer]
        chosen = min(tried, key=lambda one: one.validation_error).row.attack
        value = own["reconstruction", PSNR, figures.where(chosen, layer)]
        best = max(floors, key=lambda one: one.point)
        away = "images are recovered" if value.low > best.high else "nothing is recovered beyond the floor"
        found.append(
            f"Behind {layer} {away}: PSNR {plain(value)} dB by {chosen}, which of {len(tried)} erred "
            f"least on validation images; without any feature {plain(best)} dB; n = {value.n} classes."
        )
    return found


def recoveries(told: Told, lines: list[Line]) -> list[Recovery]:
    """Attacks, then floors."""
    found: dict[str, dict[str, Figure]] = {}
    for line in lines:
        if line.kind == "reconstruction":
            found.setdefault(line.against, {})[line.figure] = line.value
        if line.kind == "reconstruction floor":
            found.setdefault(f"floor: {line.subject}", {})[line.figure] = line.value
    return [
        Recovery(
            name,
            plain(own[MSE]),
            plain(own.get(MEDIAN, own[PSNR])),
            plain(own[SSIM]),
            plain(own[RESIDUALS]) if RESIDUALS in own else "",
            own[MSE].n,
        )
        for name, own in found.items()
    ]


def _spelt(line: Line) -> tuple[str, str, str, str, int] | None:
    """Kind, what, against, figure and n of every line that is not in the table of reconstructions."""
    if line.kind.startswith("reconstruction") or line.kind == "cost":
        return None
    what = line.figure if line.kind not in ("floor", "judge") else f"{line.figure} of {line.subject}"
    return line.kind, what, line.judge or line.against, plain(line.value), line.value.n


def _reconstructions(stage: Stage[Audit], told: Told) -> dict[str, Pixels]:
    """Targets, spread evenly, and what every attack made of them."""
    own = targets_of(told.data, told.row.targets)
    few = torch.linspace(0, len(own.images) - 1, min(stage.params.images, len(own.images))).long()
    made = {figures.where(*cell.split("/", 1)): told.images(cell)[few] for cell in told.recovered}
    return strips(own.images[few], made)


def _inversions(stage: Stage[Audit], told: Told) -> dict[str, Pixels]:
    """A real image of the first people, and what was made of their class."""
    if "inversion" not in told.folders:
        return {}
    real, made = (images[: stage.params.images, :1] for images in (told.shown, told.inverted))
    return {"real": pictures.strip(real, 1), told.wanted.inversion.attack: pictures.strip(made, 1)}


def _made(stage: Stage[Audit], told: Told) -> dict[str, str]:
    row, data = told.row, told.data
    sizes = ", ".join(
        f"{part} {len(indices)}" for part, indices in data.manifest.splits.items() if len(indices)
    )
    facts = (told.folders["answers"] / "answers.json").read_text(encoding="utf-8")
    made = {
        "Architecture": row.victim.arch,
        "Weights": f"{row.victim.weights}, sha256 {_weights(stage)}",
        "Preprocessing": f"mean {list(row.preprocessing.mean)}, std {list(row.preprocessing.std)}, size "
        f"{row.preprocessing.input_size or 'as the images are'}",
        "Data": f"{row.data}: {data.manifest.source}, {' x '.join(map(str, data.image_shape))}; {sizes}; "
        f"digest {data.digest[:16]}",
        "Made with": " ".join(facts.split())[:600],
    }
    if told.recovered:
        learnt = len(known_by(data, row.knowledge)[0])
        made["Attacker on features"] = f"{learnt} images to learn from ({row.knowledge}), seed {row.seed}"
    return made


def _weights(stage: Stage[Audit]) -> str:
    with stage.params.rows[stage.row or ""].brought(stage.root) as path:
        return sha256(path)
