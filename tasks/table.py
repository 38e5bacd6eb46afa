"""Stage `table`: one table, the same defended checkpoints under every threat, beside their worth and cost.

It joins small files that other stages left, and refuses to join figures of different checkpoints.
"""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mipriv.data.dataset import Dataset
from tasks import finetune, judge, leakage, people, reconstruct, split
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch
from tasks.inversions import Inversions
from tasks.inversions import arm as arm_as_victim
from tasks.joined import cells, changes, checkpoints, threats
from tasks.joined.cells import ABSENT, NOT_RUN, Cell, Row
from tasks.leakage import MSE, NATURAL, SSIM, Table
from tasks.memberships import scored
from tasks.splits.recovered import place

FILE, METRICS, DIGESTS = "table.csv", "metrics.json", "digests.json"
UNNAMED = re.compile(r"[^\w.\- ]")  # what no event is named with
OPTIONS = ["data", "victims", "splits", "reconstructions", "evaluation", "split_evaluation", "memberships"]
OPTIONS += ["audits"]
RECORDS = ("finetune", "split", "invert", "invert_split", "reconstruct")


class Victim(Block):
    """A line of the table.

    `of`, the stage that trained the `victim`, a row there, on `data`, a row of `prepare`; `arm` of a split
    one; `layer` after which a whole one is cut when images are recovered from its features, or null.
    """

    of: Literal["finetune", "split"]
    victim: str
    data: str
    arm: str | None = None
    layer: str | None = None

    @property
    def subject(self) -> str:
        """The victim as other tables have it."""
        return self.victim if self.arm is None else f"{self.victim}/{self.arm}"


class Joined(Block):
    """`rate` of false positives in membership; `rows`, a victim each."""

    rate: Annotated[float, Field(gt=0, lt=1)]
    rows: dict[str, Victim]


@dataclass(frozen=True)
class Sources:
    """The files that lines are made from."""

    stage: Stage[Joined]

    @cached_property
    def inversion(self) -> Table:
        """Of `evaluate`."""
        return leakage.read(self.stage.path("evaluation") / leakage.FILE)

    @cached_property
    def features(self) -> Table:
        """Of `evaluate_split`."""
        return leakage.read(self.stage.path("split_evaluation") / leakage.FILE)

    @cached_property
    def memberships(self) -> Table:
        """Of `evaluate_membership`."""
        return leakage.read(self.stage.path("memberships") / leakage.FILE)

    @cached_property
    def scored(self) -> dict[scored.Key, scored.Scored]:
        """Scores of `evaluate_membership`, by victim and attack."""
        return scored.read(self.stage.path("memberships") / scored.FILE)

    @cached_property
    def audits(self) -> Table:
        """Of `evaluate_attributes`."""
        return leakage.read(self.stage.path("audits") / leakage.FILE)

    @property
    def audited(self) -> dict[str, tuple[str, str]]:
        """Rows of `attributes`: whom each audits, and which attribute ought to be hidden."""
        rows = self.stage.values["attributes"]["rows"]
        return {name: (row["victim"], row["attributes"][0]) for name, row in rows.items()}

    @cached_property
    def every(self) -> Inversions:
        """All inversions."""
        return Inversions.of(self.stage)

    @cached_property
    def recovered(self) -> threats.Reconstructions:
        """All reconstructions."""
        wanted = self.stage.block("reconstruct", reconstruct.Reconstruct)
        errors = threats.errors(self.stage.path("reconstructions"), wanted.rows, _facts)
        return threats.Reconstructions(wanted, errors, lambda row: place(wanted, row))

    @cached_property
    def used(self) -> checkpoints.Seen:
        """Digests of victims as stages recorded them."""
        return checkpoints.used([self.records(name) for name in RECORDS])

    @cached_property
    def people(self) -> dict[people.Key, people.Values]:
        """Figures by person of all of them."""
        found = people.read(self.stage.path("evaluation") / people.FILE)
        return found | people.read(self.stage.path("split_evaluation") / people.FILE)

    def records(self, name: str) -> Path:
        """Event files of a stage with rows."""
        return Path(self.stage.options["events"]).parent / name

    def labels(self, data: str) -> list[str]:
        """Attributes that a data set has labels of."""
        return list(Dataset.open(self.stage.path("data") / data).store.attribute_names)

    def plan(self, victim: Victim) -> finetune.Row:
        """How a victim was trained; of a split one as `tasks.inversions` has it."""
        if victim.arm is None:
            return self.stage.block("finetune", finetune.Finetune).rows[victim.victim]
        return arm_as_victim(self.stage.block("split", split.Splits), victim.victim, victim.arm)

    def alike(self, victim: Victim) -> list[str]:
        """Judges of a split victim's own architecture; `check` refuses them for whole ones."""
        if victim.of == "finetune":
            return []
        splits = self.stage.block("split", split.Splits)
        arch = splits.networks[splits.rows[victim.victim].network].arch
        judges = self.stage.block("judge", judge.Judges).rows
        return [name for name, row in judges.items() if row.arch == arch]

    def seeds(self, victim: Victim) -> list[int]:
        """Training seeds."""
        return self.plan(victim).seeds

    @property
    def victims(self) -> dict[str, finetune.Row]:
        """Every victim of the table by its subject."""
        return {own.subject: self.plan(own) for own in self.stage.params.rows.values()}

    def checkpoint(self, victim: Victim) -> checkpoints.Checkpoint:
        """Of every training seed."""
        top = self.stage.path("victims" if victim.of == "finetune" else "splits") / victim.subject
        return checkpoints.Checkpoint({seed: top / f"seed-{seed}" for seed in self.seeds(victim)})


def run(stage: Stage[Joined]) -> None:
    """Write `table.csv`, a line a victim; their points; figures by person, scores by record; digests."""
    sources = Sources(stage)
    rows = [_row(sources, name, victim) for name, victim in stage.params.rows.items()]
    cells.write(stage.out / FILE, rows)
    _leave(stage.out / METRICS, cells.points(rows))
    known = {row.data: Dataset.open(stage.path("data") / row.data).digest for row in rows}
    _leave(stage.out / DIGESTS, {"data": known, "victims": {row.name: dict(row.digests) for row in rows}})
    people.write(stage.out / people.FILE, _by_person(sources, rows))
    scored.write(stage.out / scored.FILE, _by_record(sources, rows))
    for row in rows:
        for name, point in cells.points([row])[row.name].items():
            stage.events.metric(f"{UNNAMED.sub('', row.name.replace('+', 'and'))}/{name}", point)
    stage.events.artifact(stage.out / FILE)


def _leave(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _row(sources: Sources, name: str, victim: Victim) -> Row:
    checkpoint = sources.checkpoint(victim)
    checkpoint.refuse_other(sources.used)
    arm = victim.arm if victim.of == "split" else victim.layer
    recovered = {
        figure: threats.reconstruction(
            sources.features, sources.recovered, victim.victim, arm, victim.of, figure
        )
        for figure in (MSE, SSIM)
    }
    twin = changes.twin(victim.subject, sources.victims)
    asked_in = "invert_split" if victim.of == "split" else "invert"
    found = {
        "natural_accuracy": _natural(sources, victim),
        "inversion": threats.inversion(
            sources.inversion, sources.every, victim.subject, sources.alike(victim), asked_in
        ),
        "reconstruction_mse": recovered[MSE],
        "reconstruction_ssim": recovered[SSIM],
        "membership": threats.membership(
            sources.memberships, victim.subject, sources.stage.params.rate, twin
        ),
        "attributes": threats.attributes(
            sources.audits,
            sources.labels(victim.data),
            victim.subject,
            victim.of == "split",
            sources.audited,
        ),
        "client_macs": _macs(sources, victim),
        "training_seconds": _seconds(sources, victim),
    }
    if twin is not None:
        pairs = changes.Pairs(sources.people, sources.every, sources.recovered.wanted)
        found = {name: pairs.changed(cell, victim.subject, twin) for name, cell in found.items()}
    said = f"{victim.of}@{victim.victim}" + (f", arm {victim.arm}" if victim.arm else "")
    return Row(name, victim.data, said, checkpoint.digests(), found)


def _natural(sources: Sources, victim: Victim) -> Cell:
    """Accuracy on private test images, over all training seeds."""
    if victim.of == "finetune":
        value = sources.inversion.value(victim.subject, "victim", NATURAL)
    else:
        value = sources.features.value(victim.subject, "split victim", NATURAL, "", victim.data)
    return Cell(value, source=(victim.subject, NATURAL, ""))


def _macs(sources: Sources, victim: Victim) -> Cell:
    if victim.of == "finetune":
        return Cell(None, f"{ABSENT}: whole, nothing of it runs at a client")
    return Cell(sources.features.value(victim.subject, "client", "macs", "", victim.data))


def _seconds(sources: Sources, victim: Victim) -> Cell:
    """On the machine that trained it, as its event file has them."""
    path = sources.records(victim.of) / f"{victim.victim}.jsonl"
    within = f"{victim.arm}/" if victim.arm else ""
    found = checkpoints.seconds(path, [f"{within}seed-{seed}" for seed in sources.seeds(victim)])
    why = f"{NOT_RUN}: no record of this victim's training; run {victim.of} again"
    return Cell(found, "" if found else why)


def _by_person(sources: Sources, rows: list[Row]) -> dict[people.Key, people.Values]:
    """What every cell that has figures by person was averaged from, by victim and column."""
    found: dict[people.Key, people.Values] = {}
    for row in rows:
        for column, cell in row.cells.items():
            if cell.source is not None and cell.source in sources.people:
                found[row.name, column, ""] = sources.people[cell.source]
    return found


def _by_record(sources: Sources, rows: list[Row]) -> dict[scored.Key, scored.Scored]:
    """Scores of the attack on membership that is shown, by victim."""
    found = {}
    for row in rows:
        source = row.cells["membership"].source
        if source is not None:
            subject, _, attack = source
            found[row.name, attack] = sources.scored[subject, attack]
    return found


def _facts(cell: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((cell / reconstruct.FACTS).read_text(encoding="utf-8"))
    return facts


if __name__ == "__main__":
    raise SystemExit(launch(run, OPTIONS, Joined))
