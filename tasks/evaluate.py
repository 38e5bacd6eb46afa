"""Stage `evaluate`: what every attack achieved, read from what is stored; the test set is read here alone."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor

from mipriv import draws, stats
from mipriv.attacks.search.rows import in_chunks
from mipriv.data.dataset import Dataset
from mipriv.data.splits import PUBLIC
from mipriv.device import place, resolve
from mipriv.errors import InputError
from mipriv.models import checkpoint
from mipriv.models.generators import Generator
from tasks import finetune, invert, judge, prior
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch
from tasks.leakage import OWN_START, UNDEFENDED, Line, metrics
from tasks.referee import CHUNK, Measures, Referee, accuracy_by_identity, test_images
from tasks.tables import write_csv


class Evaluate(Block):
    """`judge_accuracy`, below which a judge is refused; `floor_samples`, latents drawn for the floor."""

    judge_accuracy: Annotated[float, Field(gt=0, lt=1)]
    floor_samples: Annotated[int, Field(gt=0)]


@dataclass(frozen=True)
class Attacked:
    """A row of `invert` as one judge sees it: figures [S, I] of what it made and of where it began."""

    made: Measures
    begun: Measures


def run(stage: Stage[Evaluate]) -> None:
    """Write `leakage.csv` (every figure), `metrics.json` (points) and `tradeoff.csv` (a point an attack)."""
    data = Dataset.open(stage.path("data"))
    device = resolve(stage.cost.device)
    with stage.progress(2) as progress:
        referees = _referees(stage, data, device)
        lines = [Line(r.name, "judge", "accuracy", "", "", r.accuracy()) for r in referees]
        _refuse_weak(lines, stage.params.judge_accuracy)
        lines += _victims(stage, data, progress.part("victims"))
        lines += _floors(stage, data, referees, device)
        lines += _attacks(stage, referees, progress.part("attacks"))
    _write(stage, lines)


def _referees(stage: Stage[Evaluate], data: Dataset, device: torch.device) -> list[Referee]:
    rows = stage.block("judge", judge.Judges).rows
    folders = {row: stage.path("judges") / row / "model" for row in rows}
    return [
        Referee(row, place(checkpoint.load_classifier(path), device), data) for row, path in folders.items()
    ]


def _refuse_weak(lines: list[Line], least: float) -> None:
    for line in lines:
        if line.value.point < least - 1e-9:  # a mean of equal numbers may fall short of them by a bit
            found = f"{line.value.point:.3f} on {line.value.n} people's test images"
            raise InputError(f"judge {line.subject!r}: accuracy {found}; allowed: at least {least}")


def _victims(stage: Stage[Evaluate], data: Dataset, progress: Callable[[int, int], None]) -> list[Line]:
    """Natural accuracy of every victim, over training seeds and identities."""
    rows = stage.block("finetune", finetune.Finetune).rows
    lines = []
    for done, (row, wanted) in enumerate(rows.items(), 1):
        folders = [stage.path("victims") / row / f"seed-{seed}" for seed in wanted.seeds]
        found = np.stack([accuracy_by_identity(checkpoint.load_classifier(f), data) for f in folders])
        lines.append(Line(row, "victim", "natural accuracy", "", "", stats.mean(found)))
        progress(done, len(rows))
    return lines


def _floors(
    stage: Stage[Evaluate], data: Dataset, referees: list[Referee], device: torch.device
) -> list[Line]:
    """What needs no attack (random latents, the mean public face), and what none can beat (real faces)."""
    people = torch.arange(data.num_classes("private"))
    public = torch.cat([data.split(name)[0] for name in PUBLIC])
    everyone = {"mean public face": public.mean(0, keepdim=True)}
    for row in stage.block("prior", prior.Priors).rows:
        generator = place(checkpoint.load_prior(stage.path("priors") / row / "model"), device)
        everyone[f"random latents of {row}"] = _random(generator, stage.params.floor_samples, device)
    lines = []
    for referee in referees:
        for name, images in everyone.items():
            lines += _lines(name, "floor", referee.name, _stack([referee.measure_for_all(images, people)]))
        real = _stack([referee.measure(*test_images(data))])
        lines += _lines("real test images", "ceiling", referee.name, real)
    return lines


def _random(generator: Generator, count: int, device: torch.device) -> Tensor:
    z = generator.bound(draws.normal((count, generator.latent_dim), "floor").float().to(device))
    return in_chunks(generator, z, CHUNK).cpu()


def _attacks(
    stage: Stage[Evaluate], referees: list[Referee], progress: Callable[[int, int], None]
) -> list[Line]:
    """Figures of every row of `invert`, over its own start, and against its undefended twin."""
    rows = stage.block("invert", invert.Invert).rows
    victims = stage.block("finetune", finetune.Finetune).rows
    _refuse_mixed(stage.path("reconstructions"), rows)
    lines = []
    for part, referee in enumerate(referees):
        seen: dict[str, Attacked] = {}
        for done, (row, wanted) in enumerate(rows.items(), 1):
            seen[row] = _judge(
                referee, [stage.path("reconstructions") / row / f"seed-{s}" for s in wanted.seeds]
            )
            lines += _lines(row, "attack", referee.name, seen[row].made)
            lines += _lines(f"{row}, selected only", "floor", referee.name, seen[row].begun)
            lines += _differences(row, OWN_START, referee.name, seen[row].made, seen[row].begun)
            progress(part * len(rows) + done, len(referees) * len(rows))
        for row, twin in _twins(rows, victims).items():
            pairs = [rows[name].seeds for name in (row, twin)]
            made = [_of_seeds(seen[name].made, rows[name].seeds, pairs) for name in (row, twin)]
            lines += _differences(row, twin, referee.name, *made)
    return lines


def _twins(rows: dict[str, invert.Row], victims: dict[str, finetune.Row]) -> dict[str, str]:
    """For each attacked defence, the same attack on the undefended victim of the same backbone."""

    def setting(row: invert.Row) -> tuple[str, str, str]:
        return row.attack, row.prior, victims[row.victim].backbone

    plain = {setting(row): name for name, row in rows.items() if victims[row.victim].defense == UNDEFENDED}
    return {name: plain[setting(row)] for name, row in rows.items() if plain.get(setting(row), name) != name}


def _of_seeds(measures: Measures, seeds: list[int], pairs: list[list[int]]) -> Measures:
    """Figures of the training seeds that both have, in one order."""
    shared = [seed for seed in pairs[0] if seed in pairs[1]]
    if not shared:
        raise InputError(f"params.yaml: invert.rows: seeds {pairs[0]} and {pairs[1]} share none to pair on")
    return {name: value[[seeds.index(seed) for seed in shared]] for name, value in measures.items()}


def _judge(referee: Referee, folders: list[Path]) -> Attacked:
    made, begun = [], []
    for folder in folders:
        parts = [load_file(path / invert.RECONSTRUCTIONS) for path in sorted(folder.iterdir())]
        tensors = {
            name: torch.cat([part[name] for part in parts]) for name in ("images", "start", "identities")
        }
        made.append(referee.measure(tensors["images"], tensors["identities"]))
        begun.append(referee.measure(tensors["start"], tensors["identities"]))
    return Attacked(_stack(made), _stack(begun))


def _stack(measures: list[Measures]) -> Measures:
    return {name: np.stack([measure[name] for measure in measures]) for name in measures[0]}


def _lines(subject: str, kind: str, judged_by: str, measures: Measures) -> list[Line]:
    return [Line(subject, kind, name, judged_by, "", stats.mean(value)) for name, value in measures.items()]


def _differences(subject: str, against: str, judged_by: str, a: Measures, b: Measures) -> list[Line]:
    pairs = {name: stats.paired_difference(a[name], b[name]) for name in a}
    return [Line(subject, "difference", name, judged_by, against, value) for name, value in pairs.items()]


def _refuse_mixed(folder: Path, rows: dict[str, invert.Row]) -> None:
    """Figures pair only if they were made alike: library, device, processor.

    Raises:
        InputError: two cells were made under different ones.
    """
    made: dict[str, Path] = {}
    for row, wanted in rows.items():
        for seed in wanted.seeds:
            for path in sorted((folder / row / f"seed-{seed}").glob(f"*/{invert.FACTS}")):
                made.setdefault(json.dumps(json.loads(path.read_text())["environment"], sort_keys=True), path)
    if len(made) > 1:
        (one, first), (two, second) = list(made.items())[:2]
        raise InputError(
            f"results made under different conditions do not pair: {first}: {one}; {second}: {two}"
        )


def _write(stage: Stage[Evaluate], lines: list[Line]) -> None:
    write_csv(stage.out / "leakage.csv", [line.flat() for line in lines])
    points = json.dumps(metrics(lines), indent=1, sort_keys=True)
    (stage.out / "metrics.json").write_text(points + "\n", encoding="utf-8")
    write_csv(stage.out / "tradeoff.csv", _tradeoff(stage, lines))
    for line in lines:
        if line.kind in ("victim", "attack", "judge"):
            key = "/".join(part for part in (line.subject, line.judge, line.figure) if part)
            stage.events.metric(key.replace("@", "_at_"), line.value.point)
    _findings(stage, lines)
    for name in ("leakage.csv", "tradeoff.csv"):
        stage.events.artifact(stage.out / name)


def _findings(stage: Stage[Evaluate], lines: list[Line]) -> None:
    """One record an attack and judge, with what a filter may ask for beside each other."""
    rows = stage.block("invert", invert.Invert).rows
    victims = stage.block("finetune", finetune.Finetune).rows
    natural = {line.subject: line.value.point for line in lines if line.kind == "victim"}
    for (name, judged_by), seen in _by_attack(lines).items():
        row, victim = rows[name], victims[rows[name].victim]
        tags = {"attack": row.attack, "prior": row.prior, "victim": row.victim, "judge": judged_by}
        tags |= {"defense": victim.defense, "backbone": victim.backbone}
        values = {"natural_accuracy": natural[row.victim]}
        for line in seen:
            key = line.figure.replace("@", "_at_").replace(" ", "_")
            if line.kind == "difference":
                key += "_over_start" if line.against == OWN_START else "_over_undefended"
            values |= {key: line.value.point, f"{key}_low": line.value.low, f"{key}_high": line.value.high}
        stage.events.finding(f"{name} by {judged_by}", tags, values)


def _by_attack(lines: list[Line]) -> dict[tuple[str, str], list[Line]]:
    found: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        if line.kind in ("attack", "difference"):
            found.setdefault((line.subject, line.judge), []).append(line)
    return found


def _tradeoff(stage: Stage[Evaluate], lines: list[Line]) -> list[dict[str, Any]]:
    """Natural accuracy against attack accuracy, for each row of `invert` and judge."""
    rows = stage.block("invert", invert.Invert).rows
    natural = {line.subject: line.value for line in lines if line.kind == "victim"}
    table = []
    for line in lines:
        if line.kind == "attack" and line.figure == "accuracy@1":
            row = rows[line.subject]
            point: dict[str, Any] = {"row": line.subject, "victim": row.victim, "attack": row.attack}
            point |= {"prior": row.prior, "judge": line.judge, "natural_accuracy": natural[row.victim].point}
            table.append({**point, "attack_accuracy": line.value.point})
    return table


if __name__ == "__main__":
    raise SystemExit(launch(run, ["data", "victims", "priors", "judges", "reconstructions"], Evaluate))
