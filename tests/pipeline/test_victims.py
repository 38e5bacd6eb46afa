"""One more victim in the common table: a line more, and only the stages that it needs."""

import sys
from pathlib import Path
from typing import Any

from flows import graph, scale
from tests.pipeline.conftest import ROOT, edit, ran, run

NEW = {"finetune@smooth", "invert@ppa-smooth"}
READERS = {"evaluate", "evaluate_membership", "report", "prototypes@peel-none", "table", "book"}


def add(values: dict[str, Any]) -> None:
    """A victim, its inversion and its line, as a person would write them."""
    rows = {name: values[name]["rows"] for name in ("finetune", "invert", "table")}
    knobs = {"alpha": -0.3, "schedule": "ppa"}
    rows["finetune"]["smooth"] = {**rows["finetune"]["none"], "defense": "label_smoothing", "knobs": knobs}
    rows["invert"]["ppa-smooth"] = {**rows["invert"]["ppa-none"], "victim": "smooth"}
    rows["table"]["label_smoothing"] = {**rows["table"]["none"], "victim": "smooth"}


def test_the_graph_grows_by_what_the_victim_needs(tmp_path: Path) -> None:
    project = tmp_path / "project"
    scale.prepare(ROOT, "smoke", project)
    run(project, sys.executable, "-m", "tasks.check", "--out", "check.json", "--parameters", "blocks")
    before = graph.read(project)
    edit(project, add)
    after = graph.read(project)
    assert after.keys() - before.keys() == NEW and not before.keys() - after.keys()
    assert after["invert@ppa-smooth"].needs & after.keys() >= {"finetune@smooth", "prior@eigenfaces"}
    touched = {name for name in before if after[name].needs != before[name].needs}
    assert touched <= READERS and {"evaluate", "table"} <= touched
    run(project, sys.executable, "-m", "tasks.check", "--out", "check.json", "--parameters", "blocks")


def test_a_victim_more_is_a_line_more_and_runs_no_other(copy: Path) -> None:
    path = copy / "out/table/table.csv"
    before = path.read_text().splitlines()
    edit(copy, add)
    assert ran(run(copy, "dvc", "repro")) == {"check", *NEW, *READERS}
    after = path.read_text().splitlines()
    assert len(after) == len(before) + 1 and set(before) <= set(after)
    assert after[-1].startswith("label_smoothing,faces,finetune@smooth,")
    page = (copy / "out/book/report.html").read_text()
    assert "label_smoothing" in page and "http-equiv" in page and "<script" not in page
