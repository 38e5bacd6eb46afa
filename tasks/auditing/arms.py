"""What every audited arm comes to, as lines of the table: leakage, floors, utility, cost."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from mipriv import stats
from mipriv.data.dataset import UNKNOWN
from mipriv.errors import InputError
from mipriv.metrics import attributes as metrics
from mipriv.metrics.attributes import Array
from mipriv.metrics.audit import Audit, Sample, share
from mipriv.stats import Figure
from tasks import attributes as stage
from tasks.auditing.parts import IDENTITY, shown
from tasks.auditing.simulated import Simulated
from tasks.leakage import ATTRIBUTE, ATTRIBUTE_FLOOR, AUC, BALANCED, CHOSEN, NATURAL, RECOVERED, Line

MAXIMUM = "maximum on test"
MAJORITY, LABEL = "majority", "main label alone"
KIND, FLOOR, VICTIM = ATTRIBUTE, ATTRIBUTE_FLOOR, "audited victim"
DROP = "accuracy less undefended"
WHOLE = 1.0


@dataclass(frozen=True, eq=False)
class Arm:
    """One arm of a row of `attributes`.

    Attributes:
        name: row and arm.
        row: of the block.
        auditors: names, in the order of the block.
        cells: what `tasks.attributes` left of each training seed.
        facts: the same.
    """

    name: str
    row: stage.Row
    auditors: tuple[str, ...]
    cells: list[dict[str, NDArray[Any]]]
    facts: list[dict[str, Any]]

    @property
    def task(self) -> str:
        """The main task."""
        return str(self.facts[0]["task"] or IDENTITY)

    @property
    def private(self) -> str:
        """The attribute that ought to be hidden, whether its defence knows of it or not."""
        return self.row.attributes[0]

    def sample(self, attribute: str, budget: float = WHOLE) -> Sample:
        """Images whose attribute is known; of validation, those of the budget."""
        test, own = self._labels(attribute, "test"), self.cells[0]["owners/test"]
        held = self._shown(attribute, "validation", budget)
        return Sample(
            test[test != UNKNOWN],
            own[test != UNKNOWN],
            self._labels(attribute, "validation")[held],
            self.cells[0]["owners/validation"][held],
            len(self.cells),
        )

    def audit(self, attribute: str, budget: float = WHOLE) -> Audit:
        """Every auditor on an attribute."""
        known = self._labels(attribute, "test") != UNKNOWN
        keys = [f"scores/{attribute}/{budget:g}/{name}" for name in self.auditors]
        test = np.stack([[cell[f"{key}/test"][known] for cell in self.cells] for key in keys])
        held = np.stack([[cell[f"{key}/validation"] for cell in self.cells] for key in keys])
        return Audit(self.auditors, test, held, self.sample(attribute, budget))

    @cached_property
    def whole(self) -> dict[str, Audit]:
        """With all labelled images, by attribute."""
        return {name: self.audit(name, max(self.row.budgets)) for name in self.row.attributes}

    def floors(self, attribute: str) -> dict[str, Array]:
        """Balanced accuracy [1 + B] of what needs no feature: the commonest class; the main label alone, and
        where an image has none, what the server says of it."""
        sample, known = self.whole[attribute].sample, self._labels(attribute, "test") != UNKNOWN
        at = self._shown(attribute, "training", WHOLE)
        classes = self._labels(attribute, "training")[at]
        commonest = np.full(len(sample.classes), metrics.majority(classes))
        labels = []
        for cell in self.cells:
            named = "main" if (cell["main/test"] != UNKNOWN).all() else "predicted"
            labels.append(
                metrics.from_label(
                    cell[f"{named}/training"][at],
                    classes,
                    cell[f"{named}/test"][known],
                    self._count(attribute),
                )
            )
        guesses = {MAJORITY: np.stack([commonest] * len(self.cells)), LABEL: np.stack(labels)}
        return {
            name: sample.accuracy((guess == sample.classes).astype(np.float64))
            for name, guess in guesses.items()
        }

    def floor(self, attribute: str) -> Array:
        """The highest, [1 + B]."""
        found = self.floors(attribute)
        return max(found.values(), key=lambda again: float(again[0]))

    def natural(self, part: str = "test") -> Array:
        """Accuracy of the main task [S, I]: image by image of the auditor's; where nobody on those has a main
        label, person by person of the victim's own."""
        known = self.cells[0][f"main/{part}"] != UNKNOWN
        if not known.any():
            return np.stack([cell[f"natural/{part}"] for cell in self.cells])
        right = [(cell[f"predicted/{part}"] == cell[f"main/{part}"])[known] for cell in self.cells]
        return np.stack(right).astype(np.float64)

    def lines(self, undefended: "Arm") -> Iterator[Line]:
        """Everything of this arm."""
        yield from self._utility(undefended)
        for attribute in self.row.attributes:
            whole, ceiling = self.whole[attribute], undefended.whole[attribute]
            floor = self.floor(attribute)
            for name, again in self.floors(attribute).items():
                yield Line(self.name, FLOOR, BALANCED, name, attribute, whole.sample.figure(again))
            for name, own, other in (
                (CHOSEN, whole.chosen, ceiling.chosen),
                (MAXIMUM, whole.maximum, ceiling.maximum),
            ):
                yield Line(self.name, KIND, BALANCED, name, attribute, whole.sample.figure(own))
                told = share(whole.sample, own, floor, other)
                if isinstance(told, Figure):
                    yield Line(self.name, KIND, RECOVERED, name, attribute, told)
            yield Line(self.name, KIND, AUC, CHOSEN, attribute, whole.auc())
            for name, figure in whole.each().items():
                yield Line(self.name, KIND, BALANCED, name, attribute, figure)
            for budget in self.row.budgets:
                if budget != max(self.row.budgets):
                    fewer = self.audit(attribute, budget)
                    where = at_budget(attribute, budget)
                    yield Line(self.name, KIND, BALANCED, CHOSEN, where, fewer.sample.figure(fewer.chosen))

    def _utility(self, undefended: "Arm") -> Iterator[Line]:
        own = self.natural()
        yield Line(self.name, VICTIM, NATURAL, "", self.task, stats.mean(own))
        if undefended.name != self.name:
            drop = stats.paired_difference(own, undefended.natural())
            yield Line(self.name, VICTIM, DROP, "", undefended.name, drop)
        units = len(self.cells[0]["main/test"])
        for name, value in self.facts[0]["client"].items():
            exact = Figure(float(value), float(value), float(value), units, len(self.cells), "counted")
            yield Line(self.name, "client", name, "", self.row.data, exact)

    def simulated(self) -> Iterator[Simulated]:
        """What attackers from within the training say of the same targets; see `tasks.auditing.simulated`."""
        for attribute in self.row.attributes:
            key = f"simulated/{attribute}/test"
            if all(key in cell for cell in self.cells):
                sample, known = self.whole[attribute].sample, self._labels(attribute, "test") != UNKNOWN
                right = [cell[key][known].argmax(-1) == sample.classes for cell in self.cells]
                told = metrics.balanced(np.stack(right).astype(np.float64), sample.classes)
                ends = (float(told.mean()), float(told.min()), float(told.max()))
                yield Simulated(self.name, attribute, BALANCED, *ends, len(sample.classes), len(self.cells))

    def _labels(self, attribute: str, part: str) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self.cells[0][f"classes/{attribute}/{part}"]
        return found

    def _shown(self, attribute: str, part: str, budget: float) -> NDArray[np.int64]:
        return shown(self._labels(attribute, part), budget, self._count(attribute))

    def _count(self, attribute: str) -> int:
        """Classes of an attribute."""
        scores = self.cells[0][f"scores/{attribute}/{max(self.row.budgets):g}/{self.auditors[0]}/test"]
        return int(scores.shape[-1])


def at_budget(attribute: str, budget: float) -> str:
    """How a table calls an attribute that was audited with a share of the labelled images."""
    return f"{attribute}, {budget:.0%} of the labels"


def look(folder: Path, wanted: stage.Attributes, arms: Mapping[str, list[str]]) -> dict[str, Arm]:
    """Every arm of every row, by name.

    Raises:
        InputError: arms of one row that were audited under different conditions.
    """
    found = {}
    for name, row in wanted.rows.items():
        for arm in arms[name]:
            folders = [folder / name / arm / f"seed-{seed}" for seed in row.seeds]
            cells = [load_file(one / stage.SCORES) for one in folders]
            facts = [json.loads((one / stage.FACTS).read_text(encoding="utf-8")) for one in folders]
            found[f"{name}/{arm}"] = Arm(f"{name}/{arm}", row, tuple(wanted.of(row)), cells, facts)
    made = {json.dumps(fact["environment"], sort_keys=True) for arm in found.values() for fact in arm.facts}
    if len(made) > 1:
        raise InputError(f"audits made under different conditions do not pair: {'; '.join(sorted(made))}")
    return found
