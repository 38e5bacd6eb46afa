"""Membership of victims on the page: what is said and shown follows the table and the files beside it."""

from pathlib import Path

import torch

from mipriv.stats import Figure
from tasks.leakage import Line, Table
from tasks.memberships import victims
from tasks.memberships.victims import DIFFERENCE, KIND, Told, Victims
from tasks.page import remembered
from tasks.shadow_victims import Row

TPR = "tpr at fpr 0.1"
WANTED = Victims.model_validate(
    {
        "rate": 0.1,
        "resamples": 20,
        "undefended": "plain",
        "attacks": {"lira": {"attack": "lira"}, "rmia": {"attack": "rmia"}},
    }
)
SHARED = {"of": "finetune", "data": "faces", "models": 4, "mirrored": False, "seed": 0}
ROWS = {
    "plain": Row.model_validate({**SHARED, "victim": "none"}),
    "cut": Row.model_validate({**SHARED, "of": "split", "victim": "faces", "arm": "cem"}),
}


def line(subject: str, kind: str, point: float, low: float, high: float, figure: str = TPR) -> Line:
    return Line(subject, kind, figure, "lira", "none", Figure(point, low, high, 100, 1, "by hand"))


def table(change: tuple[float, float, float]) -> Table:
    return Table(
        (
            line("none", KIND, 0.5, 0.4, 0.6),
            line("faces/cem", KIND, 0.12, 0.05, 0.2),
            line("faces/cem", DIFFERENCE, *change),
            line("none", KIND, 0.8, 0.8, 0.8, "auc"),
        )
    )


def test_words_follow_the_intervals() -> None:
    said = remembered.said(table((-0.38, -0.5, -0.2)), ROWS, WANTED)
    assert said[0] == "At an FPR of 0.1, lira tells members of “none” (50.0% [40.0, 60.0])."
    assert said[1] == (
        "At an FPR of 0.1, lira is not shown to do better than guessing on “faces/cem” (12.0% [5.0, 20.0])."
    )
    assert said[2] == "lira tells less of “faces/cem” than of “none”: -38.0 [-50.0, -20.0] points."
    unclear = remembered.said(table((-0.1, -0.3, 0.1)), ROWS, WANTED)[2]
    assert unclear.startswith("lira is not shown to tell more or less of “faces/cem” than of “none”")
    assert remembered.said(Table(()), {}, WANTED) == [remembered.NOTHING]


def test_a_refused_attack_says_why_and_few_records_resolve_no_rate(tmp_path: Path) -> None:
    scores, members = torch.rand(1, 60), (torch.arange(60) < 30)[None]
    empty = torch.zeros(0, 0)
    found = [
        Told("none", "plain", "lira", "faces, pool 0", [0], scores, members, None),
        Told("none", "plain", "rmia", "faces, pool 0", [0], empty, members, "rmia: no population"),
        Told("faces/cem", "cut", "lira", "faces, pool 0", [0], scores, members, None),
        Told("faces/cem", "cut", "rmia", "faces, pool 0", [0], empty, members, "rmia: no population"),
    ]
    victims.leave(found, tmp_path)
    lines = remembered.lines(table((-0.38, -0.5, -0.2)), ROWS, WANTED, tmp_path)
    assert [(one.victim, one.attack) for one in lines] == [
        ("none", "lira"), ("none", "rmia"), ("faces/cem", "lira"), ("faces/cem", "rmia"),
    ]  # fmt: skip
    assert lines[0].tpr == "50.0 [40.0, 60.0]" and lines[0].auc == "0.800" and lines[0].against == ""
    assert lines[1].note == "not applicable: rmia: no population" and lines[1].tpr == ""
    assert lines[2].against == "-38.0 [-50.0, -20.0]"
    drawn = remembered.curves(ROWS, WANTED, tmp_path)
    assert [(one.name, list(one.curves)) for one in drawn] == [("none", ["lira"]), ("faces/cem", ["lira"])]
    assert drawn[0].resolved == 10 / 30
    bare = remembered.lines(Table(()), ROWS, WANTED, tmp_path)
    assert bare[0].note.startswith("FPR 0.1: 3 false positives expected of 30 distinct non-members")
