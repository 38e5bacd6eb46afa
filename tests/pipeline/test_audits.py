"""Audits end to end on small inputs: whose images, what a cell keeps, the table, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mipriv.data.dataset import UNKNOWN
from mipriv.errors import InputError
from mipriv.stats import Figure
from tasks import attributes, leakage, report_attributes
from tasks.attributes import Attributes, ask, tell
from tasks.auditing import arms, simulated, strengths
from tasks.auditing.arms import FLOOR, KIND, LABEL
from tasks.auditing.parts import IDENTITY, PARTS, parts, shown
from tasks.auditing.simulated import Simulated
from tasks.leakage import BALANCED, CHOSEN, NATURAL, RECOVERED, Line, Table
from tasks.page import audited
from tasks.page.render import html

CLASSES, EACH = 10, 60


class Digits:
    """Ten classes whose images are their own number with noise; parity and five-or-more as attributes."""

    def split(self, name: str) -> tuple[Tensor, Tensor]:
        labels = torch.arange(CLASSES).repeat(EACH if name == "private/test" else 4)
        noise = torch.randn(len(labels), 1, 4, 4, generator=torch.Generator().manual_seed(len(name)))
        code = nn.functional.one_hot(labels, 16).float().view(-1, 1, 4, 4)
        return code + 0.05 * noise, labels

    def attribute(self, split: str, name: str) -> Tensor:
        labels = self.split(split)[1]
        return labels % 2 if name == "parity" else (labels >= 5).long()

    def names(self, pool: str) -> list[str]:
        return [str(i) for i in range(CLASSES)]


DATA: Any = Digits()


class Sender:
    """A party whose client sends everything, the parity of the class alone, or nothing."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.model = self
        self.client = nn.Identity()

    def release(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if self.kind == "all":
            return images + 0.01 * torch.randn(images.shape, generator=generator)
        if self.kind == "parity":
            return (images.flatten(1).argmax(1) % 2).float()[:, None, None, None].expand(-1, 2, 2, 2)
        return torch.ones(len(images), 2, 2, 2)

    def server(self, z: Tensor) -> Tensor:
        odd = z.flatten(1).argmax(1) % 2 if self.kind == "all" else z.flatten(1)[:, 0] > 0.5
        return nn.functional.one_hot(odd.long(), 2).float()


def left(
    folder: Path, kind: str, seed: int, auditors: dict[str, dict[str, Any]], task: str = "parity"
) -> None:
    """What a cell leaves, without its model folder."""
    own = parts(DATA, "inference", 0.25, 0)
    party: Any = Sender(kind)
    sent = ask(party, own, 1, seed, torch.device("cpu"))
    kept = attributes._labels(DATA, own, ["high", IDENTITY], task)
    kept |= {f"predicted/{name}": value for name, value in sent.predicted.items()}
    for name in ("high", IDENTITY):
        for share in (0.2, 1.0):
            for auditor, told in tell(party, own, sent, kept, name, share, auditors, seed):
                key = f"scores/{name}/{share:g}/{auditor}"
                kept[f"{key}/validation"], kept[f"{key}/test"] = told.validation, told.observed
    if kind == "parity":
        kept["simulated/high/test"] = torch.zeros(len(kept["classes/high/test"]), 2)
    folder.mkdir(parents=True)
    from safetensors.torch import save_file

    save_file({key: value.contiguous() for key, value in kept.items()}, folder / attributes.SCORES)
    facts = {"task": task, "private": None, "client": {"parameters": 1, "macs": 10, "bytes": 64}}
    facts |= {"environment": {"device": "cpu"}, "images": {}}  # type: ignore[dict-item]
    (folder / attributes.FACTS).write_text(json.dumps(facts))


BLOCK = Attributes.model_validate(
    {
        "validation": 0.25,
        "seed": 0,
        "auditors": {"knn": {"neighbours": [1, 3]}, "logistic": {"penalties": [1.0]}},
        "rows": {
            "row": {
                "victim": "victim",
                "data": "digits",
                "population": "inference",
                "attributes": ["high", IDENTITY],
                "seeds": [0, 1],
                "budgets": [0.2, 1.0],
                "undefended": "row/all",
            }
        },
    }
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, arms.Arm]:
    folder = tmp_path_factory.mktemp("audits")
    for kind in ("all", "parity", "nothing"):
        for seed in (0, 1):
            left(folder / "row" / kind / f"seed-{seed}", kind, seed, BLOCK.auditors)
    return arms.look(folder, BLOCK, {"row": ["all", "parity", "nothing"]})


@pytest.fixture(scope="module")
def lines(found: dict[str, arms.Arm]) -> list[Line]:
    return [line for arm in found.values() for line in arm.lines(found["row/all"])]


def test_nobody_learns_from_targets_and_budgets_are_first_images() -> None:
    own = parts(DATA, "inference", 0.25, 0)
    places = [set(own.of[name].places.tolist()) for name in PARTS]
    assert not places[0] & places[1] and not (places[0] | places[1]) & places[2]
    assert sum(map(len, places)) == CLASSES * EACH and len(places[2]) == CLASSES * EACH // 2
    assert len(places[1]) == round(0.25 * CLASSES * EACH / 2)
    again = parts(DATA, "inference", 0.25, 0)
    assert torch.equal(own.of["training"].places, again.of["training"].places)
    assert not torch.equal(own.of["training"].places, parts(DATA, "inference", 0.25, 1).of["training"].places)
    classes = torch.tensor([0, -1, 1, 0, 1, 1, -1, 0, 0, 1])
    assert shown(classes, 0.5, 2).tolist() == [0, 2, 3, 4] and shown(classes, 1.0, 2).tolist() == [
        0,
        2,
        3,
        4,
        5,
        7,
        8,
        9,
    ]


def test_public_people_are_parted_whole() -> None:
    own = parts(DATA, "public", 0.3, 0)
    people = [set(own.of[name].owners.tolist()) for name in PARTS]
    assert not people[0] & people[1] and not (people[0] | people[1]) & people[2]
    assert len(people[2]) == CLASSES // 2 and people[0] | people[1] | people[2] == set(range(CLASSES))
    assert set(own.attribute(DATA, IDENTITY, "test").tolist()) == {-1}
    assert set(own.attribute(DATA, "high", "test").tolist()) <= {0, 1}


def test_the_table_holds_the_floor_of_the_label_and_the_ceiling(lines: list[Line]) -> None:
    """Sending parity alone leaves 0.60 of five or more and 0.20 of the ten; sending nothing, the majority."""
    table = Table(tuple(lines))
    for attribute, floor, guess in (("high", 0.6, 0.5), (IDENTITY, 0.2, 0.1)):
        assert table.value("row/all", KIND, BALANCED, CHOSEN, attribute).point > 0.97
        for arm in ("all", "parity", "nothing"):
            assert table.value(f"row/{arm}", FLOOR, BALANCED, LABEL, attribute).point == pytest.approx(
                floor, abs=0.03
            )
        told = table.value("row/parity", KIND, BALANCED, CHOSEN, attribute)
        assert told.point == pytest.approx(floor, abs=0.03) and told.low <= told.point <= told.high
        assert table.value("row/nothing", KIND, BALANCED, CHOSEN, attribute).point == pytest.approx(guess)
        assert table.value("row/all", KIND, RECOVERED, CHOSEN, attribute).point == 1
        assert table.value("row/parity", KIND, RECOVERED, CHOSEN, attribute).point == pytest.approx(
            0, abs=0.08
        )
    assert table.value("row/parity", arms.VICTIM, NATURAL, "", "parity").point == 1
    assert table.value("row/all", "client", "macs", "", "digits").point == 10


def test_the_weakest_that_keeps_the_task_is_chosen(found: dict[str, arms.Arm]) -> None:
    told = strengths.strengths(found.values(), dict.fromkeys(found, found["row/all"]))
    assert {one.arm: (one.kept, one.chosen) for one in told} == {
        "parity": (True, True),
        "nothing": (False, False),
    }


def test_where_nobody_has_a_main_label_the_task_is_that_of_the_victims_own_people(
    found: dict[str, arms.Arm],
) -> None:
    own = {}
    for name, accuracy in (("row/all", 0.890625), ("row/parity", 0.875), ("row/nothing", 0.5)):
        strangers = {f"main/{part}": np.full(9, UNKNOWN) for part in PARTS}
        people = {f"natural/{part}": np.full(7, accuracy) for part in ("validation", "test")}
        own[name] = replace(found[name], cells=[cell | strangers | people for cell in found[name].cells])
    told = strengths.strengths(own.values(), dict.fromkeys(own, own["row/all"]))
    assert {one.arm: (one.main, one.kept, one.chosen) for one in told} == {
        "parity": (0.875, True, True),
        "nothing": (0.5, False, False),
    }
    (line,) = (one for one in own["row/parity"]._utility(own["row/all"]) if one.figure == NATURAL)
    assert (line.value.point, line.value.n, line.value.seeds) == (0.875, 7, 2)


def test_accuracy_on_the_victims_own_people_is_a_mean_a_person() -> None:
    class Half(Digits):
        """Of class 3 nobody knows the parity, of class 0 it is told wrongly."""

        def task(self, split: str, name: str) -> Tensor:
            labels = self.split(split)[1]
            parity = torch.where(labels == 0, 1, labels % 2)
            return torch.where(labels == 3, UNKNOWN, parity)

    data: Any = Half()
    for kind, right in (
        ("all", [0.0, *[1.0] * 8]),
        ("nothing", [1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]),  # it always says odd
    ):
        found = attributes._natural(Sender(kind), data, "parity", 0, torch.device("cpu"))  # type: ignore[arg-type]
        assert set(found) == {"natural/validation", "natural/test"}
        assert found["natural/test"].tolist() == right


def test_a_simulated_score_is_no_leakage(found: dict[str, arms.Arm], tmp_path: Path) -> None:
    (one,) = found["row/parity"].simulated()
    assert (one.attribute, one.mean, one.n, one.seeds) == ("high", 0.5, CLASSES * EACH // 2, 2)
    with pytest.raises(InputError, match=r"Simulated of kind 'attribute'; allowed: figures of attackers"):
        Line("row/parity", KIND, BALANCED, "simulated", "high", one)  # type: ignore[arg-type]
    figure = Figure(0.5, 0.4, 0.6, 10, 1, "")
    with pytest.raises(InputError, match="kind 'simulated'"):
        Line("row/parity", "simulated", BALANCED, "", "high", figure)
    own = Line("row/parity", KIND, BALANCED, "", "high", figure)
    leakage.write(tmp_path / "leakage.csv", [own])
    text = (tmp_path / "leakage.csv").read_text()
    (tmp_path / "leakage.csv").write_text(text.replace("attribute", "simulated"))
    with pytest.raises(InputError, match="no leakage table"):
        leakage.read(tmp_path / "leakage.csv")
    for few in ([], [one]):
        simulated.write(tmp_path / simulated.FILE, few)
        assert simulated.read(tmp_path / simulated.FILE) == few


def test_findings_are_worded_by_intervals(found: dict[str, arms.Arm], lines: list[Line]) -> None:
    inside = [one for arm in found.values() for one in arm.simulated()]
    told = audited.audited(Table(tuple(lines)), BLOCK, inside)
    chosen = strengths.strengths(found.values(), dict.fromkeys(found, found["row/all"]))
    said = " ".join(audited.said(told, chosen))
    assert "parity: a fresh auditor tells high of" in said and "which is no leakage" in said
    assert (
        "no more than the floor is shown to be told" in said and "chosen on validation images: parity" in said
    )
    assert audited.said([], []) == [audited.NOTHING]
    assert isinstance(inside[0], Simulated) and "simulated" in told[1].told["high"].__dataclass_fields__


def test_the_page_shows_every_arm_and_calls_simulated_scores_a_diagnosis(
    found: dict[str, arms.Arm], lines: list[Line]
) -> None:
    inside = [one for arm in found.values() for one in arm.simulated()]
    told = audited.audited(Table(tuple(lines)), BLOCK, inside)
    pictures = report_attributes._pictures(told, BLOCK)
    facts = {"images": {"test": 300, "training": 225, "validation": 75}, "task": "parity", "private": "high"}
    row = report_attributes._row("row", told, BLOCK, facts, [], pictures)
    made = report_attributes._made(BLOCK, {"row": facts})
    page = html(
        "attributes",
        {"said": ["a"], "rows": [row], "work": None, "made": made, "params": {"attributes": {"seed": 0}}},
    )
    assert list(pictures) == ["tradeoff-row"] and page.count("data:image/png") == 1 and "alt=" in page
    assert all(f"row/{arm}" in page for arm in ("all", "parity", "nothing"))
    assert "Simulated (diagnosis)" in page and "50.0 (50.0 to 50.0)" in page and "20% of the labels" in page
