"""What every row of `reconstruct` recovered: errors by person, floors beside them."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from mipriv import stats
from mipriv.data.dataset import Dataset
from mipriv.errors import InputError
from mipriv.metrics.reconstruction import mse, psnr, ssim
from mipriv.stats import Figure
from tasks import reconstruct
from tasks.auditing.simulated import Simulated
from tasks.evaluation.referee import EmbeddingReferee, Values, people
from tasks.knowledge import Setting, Targets, classes_known_by, known_by, targets_of
from tasks.leakage import IDENTITY, MSE, PASSES, PSNR, QUERIES, RESIDUAL, SSIM, Line
from tasks.split import Splits

MEASURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {MSE: mse, PSNR: psnr, SSIM: ssim}
TENTH, MEDIAN = 0.1, 0.5
Judges = Mapping[str, EmbeddingReferee]  # who names people on images of some datasets


@dataclass(frozen=True)
class Recovered:
    """One arm of a row of `reconstruct`.

    Attributes:
        name: row and arm.
        row: the row itself.
        arm: of the victim.
        images: [S, n] figures an image and training seed, by name.
        labels: [n] int64, who is on each target.
        facts: of each training seed.
        inside: [S, n] squared errors of the decoders inside the victim's training, on the same features; None
            where it had none.
    """

    name: str
    row: reconstruct.Row
    arm: str
    images: dict[str, Values]
    labels: Tensor
    facts: list[dict[str, Any]]
    inside: Values | None = None

    @property
    def victim(self) -> str:
        """Row and arm of the victim."""
        return f"{self.row.victim}/{self.arm}"

    @property
    def validation_error(self) -> float:
        """By which attacks are ranked; infinite for one that selects nothing."""
        errors = [fact["validation_error"] for fact in self.facts]
        return float(np.mean([np.inf if error is None else error for error in errors]))

    @cached_property
    def people(self) -> dict[str, Values]:
        """Means [S, I] over each person's images."""
        return {name: people(values, self.labels) for name, values in self.images.items()}

    def lines(self) -> list[Line]:
        """Means by person; median and tenth percentile of PSNR and the median residual over images; cost."""
        found = [
            Line(self.name, "reconstruction", name, "", self.victim, stats.mean(values))
            for name, values in self.people.items()
        ]
        for figure, share, name in (
            (PSNR, MEDIAN, "median"),
            (PSNR, TENTH, "10th percentile"),
            (RESIDUAL, MEDIAN, "median"),
        ):
            value = stats.quantile(self.images[figure], share, groups=self.labels.numpy())
            found.append(Line(self.name, "reconstruction", f"{figure}, {name}", "", self.victim, value))
        asked = float(np.mean([fact["queries"] for fact in self.facts]))
        found.append(self._counted(QUERIES, asked))
        passes = [fact["notes"]["passes"] for fact in self.facts if "passes" in fact["notes"]]
        if passes:
            found.append(self._counted(PASSES, float(np.mean(passes))))
        return found

    def simulated(self) -> Iterator[Simulated]:
        """Decoders from within the training, on the same features; see `tasks.auditing.simulated`."""
        if self.inside is not None:
            told = people(self.inside, self.labels).mean(1)
            ends = (float(told.mean()), float(told.min()), float(told.max()))
            yield Simulated(self.name, "image", MSE, *ends, len(self.labels), len(self.facts))

    def _counted(self, name: str, value: float) -> Line:
        exact = Figure(value, value, value, len(self.labels), len(self.facts), "counted")
        return Line(self.name, "cost", name, "", self.victim, exact)


def spelt(notes: Mapping[str, str | float]) -> str:
    """What an attack says of how it went: which solver, whether it was shown the truth, what it undid."""
    said = [value if key == "solver" else f"{key} {value}" for key, value in notes.items() if key != "passes"]
    return ", ".join(str(part).replace("_", " ") for part in said)


def arms(row: reconstruct.Row, victims: Splits) -> list[str]:
    """Arms of its victim that a row attacks; of a whole one, the layers that it is cut after."""
    if row.layers is not None:
        return row.layers
    return list(victims.rows[row.victim].arms) if row.arms is None else row.arms


def look(
    folder: Path,
    attacks: reconstruct.Reconstruct,
    victims: Splits,
    sets: Mapping[str, Dataset],
    judges: Judges,
    progress: Callable[[int, int], None],
) -> dict[str, Recovered]:
    """Every arm of every row, by name."""
    found = {}
    for done, (name, row) in enumerate(attacks.rows.items(), 1):
        own = targets_of(sets[row.data], attacks.most(row))
        for arm in arms(row, victims):
            cells = [folder / name / arm / f"seed-{seed}" for seed in row.seeds]
            left = [load_file(cell / reconstruct.RECOVERED) for cell in cells]
            seen = [measured(one["images"], own, judges.get(row.data)) for one in left]
            images = {key: np.stack([one[key] for one in seen]) for key in seen[0]}
            images[RESIDUAL] = np.stack([one["residual"].double().numpy() for one in left])
            facts = [json.loads((cell / reconstruct.FACTS).read_text(encoding="utf-8")) for cell in cells]
            inside = None
            if all((cell / reconstruct.SIMULATED).exists() for cell in cells):
                errors = [load_file(cell / reconstruct.SIMULATED)["error"] for cell in cells]
                inside = torch.stack(errors).double().numpy()
            found[f"{name}/{arm}"] = Recovered(f"{name}/{arm}", row, arm, images, own.labels, facts, inside)
        progress(done, len(attacks.rows))
    _refuse_mixed(found)
    return found


def floors(
    sets: Mapping[str, Dataset], attacks: reconstruct.Reconstruct, victims: Splits, judges: Judges
) -> Iterator[Line]:
    """What needs no feature: grey, the mean of an attacker's images, one of them drawn for each target; what
    needs no more than the label that the victim tells: the mean of its class; and, where a judge names
    people, what it makes of the targets themselves."""
    settings = {place(attacks, row): row for row in attacks.rows.values()}
    tasks: dict[str, set[str | None]] = {where: set() for where in settings}
    for row in attacks.rows.values():
        tasks[place(attacks, row)].add(victims.rows[row.victim].task if row.of == "split" else None)
    for where, row in settings.items():
        own, judge = targets_of(sets[row.data], attacks.most(row)), judges.get(row.data)
        needed = featureless(sets[row.data], row.knowledge, len(own.images))
        for task in sorted(tasks[where], key=lambda task: task or ""):
            needed |= class_means(sets[row.data], row.knowledge, own, task)
        for name, images in needed.items():
            for key, values in measured(images, own, judge).items():
                value = stats.mean(people(values[None], own.labels))
                yield Line(name, "reconstruction floor", key, "", where, value)
        if judge is not None:
            right = stats.mean(people(_named(own.images, own, judge)[None], own.labels))
            yield Line("the images themselves", "reconstruction ceiling", IDENTITY, "", where, right)


def place(attacks: reconstruct.Reconstruct, row: reconstruct.Row) -> str:
    """What floors depend on: data, whose images the attacker has, and how many targets if they are fewer."""
    fewer = "" if row.targets is None else f", {attacks.most(row)} targets"
    return f"{row.data}, {row.knowledge}{fewer}"


def featureless(data: Dataset, setting: Setting, count: int) -> dict[str, Tensor]:
    """Images [count, C, H, W] that need no feature: see `floors`."""
    learnt = known_by(data, setting)[0]
    mean = learnt.mean(0, keepdim=True).expand(count, -1, -1, -1)
    found = {"mean image": mean, "another image": learnt[torch.arange(count) * 7919 % len(learnt)]}
    return {"grey": torch.full_like(mean, 0.5), **found} if data.bounded else found


def class_means(data: Dataset, setting: Setting, own: Targets, task: str | None) -> dict[str, Tensor]:
    """Images [n, C, H, W]: for each target the mean of the attacker's images of its class, of all its images
    for a class that it has none of. Empty for an attacker who knows nobody of the victim's classes."""
    if setting == "public":
        return {}
    learnt, classes = known_by(data, setting)[0], classes_known_by(data, setting, task)
    wanted = data.task("private/test", task)[own.places]
    means = {
        label: learnt[classes == label].mean(0) if (classes == label).any() else learnt.mean(0)
        for label in wanted.unique().tolist()
    }
    return {f"mean image of its {task or 'class'}": torch.stack([means[label] for label in wanted.tolist()])}


def measured(images: Tensor, own: Targets, judge: EmbeddingReferee | None) -> dict[str, Values]:
    """Figures [n] an image of what was made of the targets, by name."""
    if images.shape != own.images.shape:
        raise InputError(f"recovered: images {list(images.shape)}; targets: {list(own.images.shape)}")
    found = {name: call(images, own.images).double().numpy() for name, call in MEASURES.items()}
    return found if judge is None else {**found, IDENTITY: _named(images, own, judge)}


def _named(images: Tensor, own: Targets, judge: EmbeddingReferee) -> Values:
    """[n], 1 where the judge takes an image for one of the person on its target."""
    right: Values = (judge.scores(images, judge.embed(images)).argmax(1) == own.labels).double().numpy()
    return right


def _refuse_mixed(found: Mapping[str, Recovered]) -> None:
    """Figures pair only if they were made alike."""
    made: dict[str, str] = {}
    for name, one in found.items():
        for fact in one.facts:
            made.setdefault(json.dumps(fact["environment"], sort_keys=True), name)
    if len(made) > 1:
        (left, first), (right, second) = list(made.items())[:2]
        raise InputError(
            f"results made under different conditions do not pair: {first}: {left}; {second}: {right}"
        )
