"""Stage `evaluate`: what every attack achieved, read from what is stored; the test set is read here alone."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mipriv import draws, plugin, stats
from mipriv.attacks.search.rows import in_chunks
from mipriv.data.dataset import Dataset
from mipriv.data.splits import PUBLIC
from mipriv.device import place, resolve
from mipriv.errors import InputError
from mipriv.metrics.agreement import agreement
from mipriv.metrics.robustness import robust_hits
from mipriv.models import checkpoint
from mipriv.models.embedders import Embedding
from mipriv.models.fold import folded
from mipriv.models.generators import Generator
from mipriv.training import logits
from tasks import finetune, judge, people, prior
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch
from tasks.evaluation import attacked, matched, outcomes
from tasks.evaluation.referee import (
    CHUNK,
    ClassifierReferee,
    EmbeddingReferee,
    Referee,
    accuracy_by_identity,
    test_images,
)
from tasks.evaluation.referee import Values as Array
from tasks.inversions import Inversions
from tasks.leakage import AGREEMENT, NATURAL, OWN_START, ROBUST, TOP1, Line
from tasks.party import Party
from tasks.people import Values, by_person

OPTIONS = ["data", "victims", "splits", "priors", "judges", "reconstructions", "split_reconstructions"]
PUBLIC_IMAGES = 400  # on which judges and victims are compared; more would only cost time


class Perturbation(Block):
    """`epsilon`, L-infinity, of images in [0, 1]; `steps` of projected gradient descent."""

    epsilon: Annotated[float, Field(ge=0, lt=1)]
    steps: Annotated[int, Field(gt=0)]


class Evaluate(Block):
    """`judge_accuracy`, below which a judge is refused; `floor_samples`, latents drawn for the floor.

    `embedding`, an embedder that judges without labels, or null; `perturbation`, under which victims are
    asked again; `matched`, natural accuracies at which defences are compared.
    """

    judge_accuracy: Annotated[float, Field(gt=0, lt=1)]
    floor_samples: Annotated[int, Field(gt=0)]
    embedding: str | None
    perturbation: Perturbation
    matched: list[Annotated[float, Field(gt=0, le=1)]]


class Bench:
    """The judges: classifiers, and beside them an embedding that knows no label."""

    def __init__(self, stage: Stage[Evaluate], data: Dataset, device: torch.device) -> None:
        rows = stage.block("judge", judge.Judges).rows
        folders = {row: stage.path("judges") / row / "model" for row in rows}
        models = {row: place(checkpoint.load_classifier(path), device) for row, path in folders.items()}
        self.classifiers = [ClassifierReferee(name, model, data) for name, model in models.items()]
        self.embedding: EmbeddingReferee | None = None
        if stage.params.embedding is not None:
            made: Embedding = plugin.load("embedder", stage.params.embedding)
            self.embedding = EmbeddingReferee(stage.params.embedding, place(made.build(), device), data)

    @property
    def all(self) -> list[Referee]:
        """Classifiers first."""
        return [*self.classifiers, *([self.embedding] if self.embedding else [])]

    def lines(self) -> list[Line]:
        """Accuracy on private test images."""
        kinds = ["judge"] * len(self.classifiers) + ["embedding"] * (self.embedding is not None)
        return [
            Line(r.name, kind, "accuracy", "", "", r.accuracy())
            for r, kind in zip(self.all, kinds, strict=True)
        ]


def run(stage: Stage[Evaluate]) -> None:
    """Write `leakage.csv` (every figure), `metrics.json` (points) and `tradeoff.csv` (a point an attack)."""
    data = Dataset.open(stage.path("data"))
    device, every = resolve(stage.cost.device), Inversions.of(stage)
    with stage.progress(2) as progress:
        bench = Bench(stage, data, device)
        lines = bench.lines()
        _refuse_weak(lines, stage.params.judge_accuracy)
        natural, found = _victims(stage, every, data, bench, device, progress.part("victims"))
        lines += found
        lines += _floors(stage, data, bench, device)
        reached, found = _attacks(stage, every, bench, natural, progress.part("attacks"))
    outcomes.write(stage, every, lines + found)
    own = {(name, NATURAL, ""): Values(every.victims[name].seeds, value) for name, value in natural.items()}
    people.write(stage.out / people.FILE, own | reached)


def _refuse_weak(lines: list[Line], least: float) -> None:
    for line in lines:
        # A mean of equal numbers may fall short of them by a bit.
        if line.kind == "judge" and line.value.point < least - 1e-9:
            found = f"{line.value.point:.3f} on {line.value.n} people's test images"
            raise InputError(f"judge {line.subject!r}: accuracy {found}; allowed: at least {least}")


def _victims(
    stage: Stage[Evaluate],
    every: Inversions,
    data: Dataset,
    bench: Bench,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> tuple[dict[str, Array], list[Line]]:
    """Natural accuracy [S, I] of every victim, and lines: that, under perturbation, agreement with judges."""
    rows, asked = every.victims, stage.params.perturbation
    images, owners = _public_images(data)
    public = torch.unique(owners, return_inverse=True)[1]
    judged = {r.name: r.scores(images, r.embed(images)) for r in bench.classifiers}
    natural, lines = {}, []
    for done, (row, wanted) in enumerate(rows.items(), 1):
        models = _models(stage, every, row, wanted, data, device)
        natural[row] = np.stack([accuracy_by_identity(model, data) for model in models])
        lines.append(Line(row, "victim", NATURAL, "", "", stats.mean(natural[row])))
        robust = np.stack([_robust(model, data, asked) for model in models])
        lines.append(Line(row, "victim", ROBUST, "", "", stats.mean(robust)))
        scores = [logits(model, images).cpu() for model in models]
        for name, seen in judged.items():
            same = np.stack([by_person(agreement(own, seen), public) for own in scores])
            lines.append(Line(row, "victim", AGREEMENT, name, "", stats.mean(same)))
        progress(done, len(rows))
    return natural, lines


def _models(
    stage: Stage[Evaluate],
    every: Inversions,
    name: str,
    row: finetune.Row,
    data: Dataset,
    device: torch.device,
) -> list[torch.nn.Module]:
    """A victim of every training seed; one in two parties with its release at work as in use."""
    if every.split_row(name):
        folders = {seed: stage.path("splits") / name / f"seed-{seed}" for seed in row.seeds}
        return [
            Party.load(folder, device).composed(data.image_shape, seed, "test")
            for seed, folder in folders.items()
        ]
    return [_fast(stage.path("victims") / name / f"seed-{seed}", data, device) for seed in row.seeds]


def _fast(folder: Path, data: Dataset, device: torch.device) -> torch.nn.Module:
    return place(folded(checkpoint.load_classifier(folder), data.image_shape), device)


def _robust(model: torch.nn.Module, data: Dataset, asked: Perturbation) -> Array:
    images, labels = data.split("private/test")
    device = next(model.parameters()).device
    parts = zip(images.split(CHUNK), labels.split(CHUNK), strict=True)
    right = [
        robust_hits(model, x.to(device), y.to(device), asked.epsilon, steps=asked.steps).cpu()
        for x, y in parts
    ]
    return by_person(torch.cat(right), labels)


def _public_images(data: Dataset) -> tuple[Tensor, Tensor]:
    """Some public images [n, C, H, W] and who is on each [n]."""
    pairs = [data.split(name) for name in PUBLIC]
    images, people = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    few = torch.randperm(len(images), generator=draws.generator("public images"))[:PUBLIC_IMAGES]
    return images[few], people[few]


def _floors(stage: Stage[Evaluate], data: Dataset, bench: Bench, device: torch.device) -> list[Line]:
    """What needs no attack (random latents, the mean public face), and what none can beat (real faces)."""
    everybody = torch.arange(data.num_classes("private"))
    public = torch.cat([data.split(name)[0] for name in PUBLIC])
    everyone = {"mean public face": public.mean(0, keepdim=True)}
    for row in stage.block("prior", prior.Priors).rows:
        generator = place(checkpoint.load_prior(stage.path("priors") / row / "model"), device)
        everyone[f"random latents of {row}"] = _random(generator, stage.params.floor_samples)
    lines = []
    for referee in bench.all:
        for name, images in everyone.items():
            seen = referee.measure(referee.look_for_all(images, everybody))
            lines += attacked.lines(name, "floor", referee.name, attacked.stack([seen]))
        real = attacked.stack([referee.measure(referee.look(*test_images(data)))])
        lines += attacked.lines("real test images", "ceiling", referee.name, real)
    return lines


def _random(generator: Generator, count: int) -> Tensor:
    noise = draws.normal((count, generator.noise_dim), "floor").to(generator.like)
    return in_chunks(lambda z: generator(generator.begin(z)), noise, CHUNK).cpu()


def _attacks(
    stage: Stage[Evaluate],
    every: Inversions,
    bench: Bench,
    natural: dict[str, Array],
    progress: Callable[[int, int], None],
) -> tuple[dict[people.Key, Values], list[Line]]:
    """Accuracy by person, and figures of every inversion, over its own start, and against its twin."""
    wanted, victims = every.wanted, every.victims
    folders = every.folders(stage.path("reconstructions"), stage.path("split_reconstructions"))
    attacked.refuse_mixed(folders, wanted.rows)
    seen, lines = {}, []
    for done, (name, row) in enumerate(wanted.rows.items(), 1):
        left = attacked.Row(name, row, folders[name])
        seen[name] = attacked.look(left, bench.classifiers, bench.embedding)
        lines += left.cost()
        progress(done, len(wanted.rows))
    for referee in bench.all:
        figures = {name: seen[name][referee.name].made for name in wanted.rows}
        lines += matched.lines(wanted, victims, natural, figures, referee.name, stage.params.matched)
        for name in wanted.rows:
            made, begun = seen[name][referee.name].made, seen[name][referee.name].begun
            lines += attacked.lines(name, "attack", referee.name, made)
            lines += attacked.lines(f"{name}, selected only", "floor", referee.name, begun)
            lines += attacked.differences(name, OWN_START, referee.name, made, begun)
            if referee is (bench.embedding or bench.classifiers[0]):
                lines += attacked.fidelity(name, seen[name][referee.name], referee)
        for name, twin in attacked.twins(wanted, victims).items():
            pairs = [wanted.rows[row].seeds for row in (name, twin)]
            both = [
                attacked.of_seeds(seen[row][referee.name].made, wanted.rows[row].seeds, pairs)
                for row in (name, twin)
            ]
            lines += attacked.differences(name, twin, referee.name, *both)
    return _reached(every, seen), lines


def _reached(
    every: Inversions, seen: Mapping[str, Mapping[str, attacked.Attacked]]
) -> dict[people.Key, Values]:
    """Top-1 accuracy by person of every inversion, by every judge."""
    return {
        (name, TOP1, judge): Values(every.wanted.rows[name].seeds, own.made[TOP1])
        for name, views in seen.items()
        for judge, own in views.items()
    }


if __name__ == "__main__":
    raise SystemExit(launch(run, OPTIONS, Evaluate))
