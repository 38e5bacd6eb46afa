"""Figures of one audited victim, as lines of the leakage table."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mipriv import plugin, stats
from mipriv.attacks.membership import Answers
from mipriv.data.dataset import Dataset
from mipriv.device import place
from mipriv.errors import InputError
from mipriv.metrics import membership as metrics
from mipriv.models.embedders import Embedding
from mipriv.stats import Figure
from tasks import reconstruct
from tasks.audits import answers, threats
from tasks.audits.rows import Audit, Row, brought
from tasks.audits.threats import INVERSION, MEMBERSHIP, NOT_APPLICABLE, NOT_RUN, LeftOut
from tasks.engine.stage import Stage
from tasks.evaluation.referee import EmbeddingReferee, Values, people, test_images
from tasks.knowledge import targets_of
from tasks.leakage import AUC, FILE, KNN, NATURAL, RESIDUAL, TOP1, TOP5, TPR, Line
from tasks.people import by_person
from tasks.splits.recovered import Recovered, featureless, measured
from tasks.tables import write_csv

LEFT_OUT, METRICS = "left_out.csv", "metrics.json"
TRAINED, CHANCE = "accuracy on training images", "chance"
ANSWERS, INVERTED = "answers.safetensors", "inverted.safetensors"


def where(attack: str, layer: str) -> str:
    """What a figure of reconstruction is of."""
    return f"{attack} after {layer}"


@dataclass(frozen=True)
class Told:
    """What cells of one row left, and what it comes to.

    Attributes:
        wanted: the block.
        name: of the row.
        row: itself.
        data: images that the victim has not seen.
        folders: of the cells, by name.
    """

    wanted: Audit
    name: str
    row: Row
    data: Dataset
    folders: Mapping[str, Path]

    @cached_property
    def answered(self) -> dict[str, Tensor]:
        """Logits [n, K] and labels [n] of `data` and, where given, of `training`."""
        return load_file(self.folders["answers"] / ANSWERS)

    @cached_property
    def recovered(self) -> dict[str, Recovered]:
        """By attack and layer."""
        own = targets_of(self.data, self.row.targets)
        found = {}
        for cell, folder in self.folders.items():
            attack, _, layer = cell.partition("/")
            if not layer:
                continue
            left = load_file(folder / reconstruct.RECOVERED)
            images = {key: values[None] for key, values in measured(left["images"], own, None).items()}
            images[RESIDUAL] = left["residual"].double().numpy()[None]
            facts = json.loads((folder / reconstruct.FACTS).read_text(encoding="utf-8"))
            row = reconstruct.Row(
                attack=attack,
                of="finetune",
                victim=self.name,
                data=self.row.data,
                layers=[layer],
                seeds=[self.row.seed],
                knowledge=self.row.knowledge,
            )
            found[cell] = Recovered(self.name, row, layer, images, own.labels, [facts])
        return found

    def images(self, cell: str) -> Tensor:
        """What an attack recovered of the targets, [n, C, H, W]."""
        return load_file(self.folders[cell] / reconstruct.RECOVERED)["images"]

    def accuracy(self) -> Iterator[Line]:
        """Of the victim, class by class, with chance beside it."""
        for part, figure in (("data", NATURAL), ("training", TRAINED)):
            if f"{part}.logits" in self.answered:
                yield Line(self.name, "victim", figure, "", "", stats.mean(self._right(part)[None]))
        chance = 1 / self.answered["data.logits"].shape[1]
        floor = Figure(chance, chance, chance, len(self._right("data")), 1, "exact")
        yield Line(CHANCE, "floor", NATURAL, "", self.name, floor)

    def _right(self, part: str) -> Values:
        """Shares [I] of each class of the data that the victim names rightly."""
        labels = self.answered[f"{part}.labels"]
        return by_person(self.answered[f"{part}.logits"].argmax(1) == labels, labels)

    def reconstruction(self) -> Iterator[Line]:
        """Errors of every attack after every layer; floors that need no feature."""
        for cell, one in self.recovered.items():
            attack, _, layer = cell.partition("/")
            for line in one.lines():
                yield replace(line, subject=self.name, against=where(attack, layer))
        if self.recovered:
            own = targets_of(self.data, self.row.targets)
            for name, images in featureless(self.data, self.row.knowledge, len(own.images)).items():
                for key, values in measured(images, own, None).items():
                    value = stats.mean(people(values[None], own.labels))
                    yield Line(name, "reconstruction floor", key, "", self.name, value)

    def membership(self, left: list[LeftOut], root: Path) -> list[Line]:
        """TPR at every rate that the records resolve, and the area; what they do not goes to `left`."""
        if threats.membership(self.row) is not None:
            return []
        said = [self.answered[f"{part}.logits"] for part in ("training", "data")]
        own = answers.of_records(said, [self.answered[f"{part}.labels"] for part in ("training", "data")])
        asked: dict[str, tuple[Answers, Answers | None]] = {"loss": (own, None)}
        if self.row.shadows is not None:
            with brought(self.row.shadows, root, "shadows") as path:
                references = answers.shadows(path, own.labels, own.logits.shape[-1])
            asked |= dict.fromkeys(threats.REFERENCED, answers.apart(own, references))
        lines: list[Line] = []
        for attack, (told, others) in asked.items():
            try:
                lines += self._told(attack, answers.scores(attack, told, others), told.members[0], left)
            except InputError as error:  # an attack that needs more than there is says so
                left.append(LeftOut(self.name, MEMBERSHIP, attack, NOT_APPLICABLE, str(error)))
        return lines

    def _told(self, attack: str, scores: Tensor, members: Tensor, left: list[LeftOut]) -> Iterator[Line]:
        known = ~scores.isnan()  # records that some shadow has and some lacks
        scores, members = scores[known], members[known]
        yield Line(self.name, MEMBERSHIP, AUC, "", attack, metrics.area(scores, members))
        distinct = int((~members).sum())
        for rate in self.wanted.rates:
            if why := metrics.unresolved(distinct, rate):
                left.append(LeftOut(self.name, MEMBERSHIP, attack, NOT_RUN, why))
                continue
            found = metrics.pooled(scores[None], members[None], rate, resamples=self.wanted.resamples)
            tpr = replace(found.tpr, n=len(members))
            yield Line(self.name, MEMBERSHIP, TPR.format(rate), "", attack, tpr)

    def inversion(self, left: list[LeftOut], device: torch.device) -> list[Line]:
        """How many people an embedding names on images made of their classes, with floor and ceiling."""
        if "inversion" not in self.folders:
            return []
        asked = self.wanted.inversion
        try:
            builder: Embedding = plugin.load("embedder", asked.judge)
            judge = EmbeddingReferee(asked.judge, place(builder.build(), device), self.data)
        except InputError as error:
            left.append(LeftOut(self.name, INVERSION, asked.attack, NOT_RUN, f"needs judges: {error}"))
            return []
        ceiling = judge.accuracy()
        if ceiling.point < asked.judge_accuracy:
            why = f"needs judges: {judge.name} names {ceiling.point:.2f} of the real test images, "
            why += f"{asked.judge_accuracy:g} is asked of a judge"
            left.append(LeftOut(self.name, INVERSION, asked.attack, NOT_RUN, why))
            return []
        return [*self._named(judge), Line(judge.name, "judge", NATURAL, judge.name, self.name, ceiling)]

    def _named(self, judge: EmbeddingReferee) -> Iterator[Line]:
        everybody = torch.arange(self.data.num_classes("private"))
        made = judge.measure(judge.look(self.inverted, everybody))
        mean = self.data.split("public/train")[0].mean(0, keepdim=True)
        floor = judge.measure(judge.look_for_all(mean, everybody))
        for figure in (TOP1, TOP5, KNN):
            value = stats.mean(made[figure][None])
            yield Line(self.name, "attack", figure, judge.name, self.wanted.inversion.attack, value)
            below = stats.mean(floor[figure][None])
            yield Line("mean public face", "floor", figure, judge.name, self.name, below)

    @cached_property
    def inverted(self) -> Tensor:
        """Images [I, k, C, H, W] made of every class."""
        return load_file(self.folders["inversion"] / INVERTED)["images"]

    @cached_property
    def shown(self) -> Tensor:
        """Real test images [I, k, C, H, W]."""
        return test_images(self.data)[0]


def leave(stage: Stage[Audit], lines: list[Line], left: list[LeftOut]) -> None:
    """Write the table, what is not in it and why, and points for DVC and MLflow."""
    write_csv(stage.out / FILE, [line.flat() for line in lines])
    write_csv(stage.out / LEFT_OUT, [asdict(one) for one in left])
    points: dict[str, Any] = {}
    for line in lines:
        if line.subject == stage.row:
            key = "/".join(part for part in (line.kind, line.judge, line.against, line.figure) if part)
            points[key] = round(line.value.point, 4)
            stage.events.metric(key.replace("@", "_at_").replace(",", ""), line.value.point)
    text = json.dumps(points, indent=1, sort_keys=True)
    (stage.out / METRICS).write_text(f"{text}\n", encoding="utf-8")
    for name in (FILE, LEFT_OUT):
        stage.events.artifact(stage.out / name)
