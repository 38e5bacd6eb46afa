"""What every row of `reconstruct` recovered: errors by person, floors beside them."""

import json
from collections.abc import Callable, Mapping
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
from tasks.evaluation.referee import Values, by_person
from tasks.knowledge import Setting, Targets, known_by, targets_of
from tasks.leakage import MSE, PSNR, QUERIES, RESIDUAL, SSIM, Line
from tasks.split import Splits

MEASURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {MSE: mse, PSNR: psnr, SSIM: ssim}
TENTH, MEDIAN = 0.1, 0.5


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
    """

    name: str
    row: reconstruct.Row
    arm: str
    images: dict[str, Values]
    labels: Tensor
    facts: list[dict[str, Any]]

    @property
    def victim(self) -> str:
        """Row and arm of the victim."""
        return f"{self.row.victim}/{self.arm}"

    @property
    def validation_error(self) -> float:
        """By which attacks are ranked; infinite for one that selects nothing."""
        errors = [fact["validation_error"] for fact in self.facts]
        return float(np.mean([np.inf if error is None else error for error in errors]))

    @property
    def how(self) -> str:
        """What the attack says of how it went: which solver, whether it was shown the truth."""
        notes = {f"{key} {value}" for fact in self.facts for key, value in fact["notes"].items()}
        return ", ".join(sorted(notes))

    @cached_property
    def people(self) -> dict[str, Values]:
        """Means [S, I] over each person's images."""
        return {name: people(values, self.labels) for name, values in self.images.items()}

    def lines(self) -> list[Line]:
        """Means by person; median and tenth percentile of PSNR over images; queries."""
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
        counted = Figure(asked, asked, asked, len(self.labels), len(self.facts), "counted")
        return [*found, Line(self.name, "cost", QUERIES, "", self.victim, counted)]


def people(values: Values, labels: Tensor) -> Values:
    """Means [S, I] of figures [S, n] over each person's images."""
    order = torch.unique(labels, return_inverse=True)[1]
    return np.stack([by_person(torch.from_numpy(row), order) for row in values])


def arms(row: reconstruct.Row, victims: Splits) -> list[str]:
    """Arms of its victim that a row attacks."""
    if row.of == "finetune":
        return [reconstruct.WHOLE]
    return list(victims.rows[row.victim].arms) if row.arms is None else row.arms


def look(
    folder: Path,
    attacks: reconstruct.Reconstruct,
    victims: Splits,
    sets: Mapping[str, Dataset],
    progress: Callable[[int, int], None],
) -> dict[str, Recovered]:
    """Every arm of every row, by name."""
    found = {}
    for done, (name, row) in enumerate(attacks.rows.items(), 1):
        own = targets_of(sets[row.data], attacks.targets)
        for arm in arms(row, victims):
            cells = [folder / name / arm / f"seed-{seed}" for seed in row.seeds]
            left = [load_file(cell / reconstruct.RECOVERED) for cell in cells]
            seen = [_measured(one["images"], own) for one in left]
            images = {key: np.stack([one[key] for one in seen]) for key in MEASURES}
            images[RESIDUAL] = np.stack([one["residual"].double().numpy() for one in left])
            facts = [json.loads((cell / reconstruct.FACTS).read_text(encoding="utf-8")) for cell in cells]
            found[f"{name}/{arm}"] = Recovered(f"{name}/{arm}", row, arm, images, own.labels, facts)
        progress(done, len(attacks.rows))
    _refuse_mixed(found)
    return found


def floors(sets: Mapping[str, Dataset], attacks: reconstruct.Reconstruct) -> list[Line]:
    """What needs no feature: the mean of an attacker's images, and one of them drawn for each target."""
    lines = []
    for data, setting in dict.fromkeys((row.data, row.knowledge) for row in attacks.rows.values()):
        own = targets_of(sets[data], attacks.targets)
        for name, images in _featureless(sets[data], setting, len(own.images)).items():
            for key, values in _measured(images, own).items():
                value = stats.mean(people(values[None], own.labels))
                lines.append(Line(name, "reconstruction floor", key, "", f"{data}, {setting}", value))
    return lines


def _featureless(data: Dataset, setting: Setting, count: int) -> dict[str, Tensor]:
    learnt = known_by(data, setting)[0]
    mean = learnt.mean(0, keepdim=True).expand(count, -1, -1, -1)
    return {"mean image": mean, "another image": learnt[torch.arange(count) * 7919 % len(learnt)]}


def _measured(images: Tensor, own: Targets) -> dict[str, Values]:
    if images.shape != own.images.shape:
        raise InputError(f"recovered: images {list(images.shape)}; targets: {list(own.images.shape)}")
    return {name: call(images, own.images).double().numpy() for name, call in MEASURES.items()}


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
