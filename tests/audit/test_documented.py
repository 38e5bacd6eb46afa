"""The page on models of one's own, followed word for word: epochs and steps are fewer, a solver is added."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flows import scale
from tests.pipeline.conftest import edit, ran, run
from tests.presets import ROOT

PAGE = ROOT / "docs" / "howto" / "own_model.md"


def blocks(kind: str) -> list[str]:
    """Fenced blocks of the page."""
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh copy that knows no earlier runs, with the model of the page and the rows in its parameters."""
    target = tmp_path_factory.mktemp("own") / "project"
    scale.copy(ROOT, target)
    run(target, "dvc", "config", "--local", "cache.dir", target / ".dvc" / "cache")
    (made,) = blocks("python")
    assert "range(25)" in made
    (target / "elsewhere.py").write_text(made.replace("range(25)", "range(2)"))
    subprocess.run([sys.executable, "elsewhere.py"], cwd=target, check=True)
    said = {key: value for text in blocks("yaml") for key, value in YAML(typ="safe").load(text).items()}
    datasets, row = said["prepare"]["rows"], said["audit"]["rows"]

    def change(values: Any) -> None:
        values["prepare"]["rows"].update(datasets)
        values["audit"]["rows"] = row
        audit = values["audit"]
        row["mine"]["layers"], row["mine"]["targets"] = row["mine"]["layers"][:2], 4
        row["mine"]["attacks"] = ["decoder", "peel"]
        audit["attacks"]["decoder"] = {**audit["attacks"]["decoder"], "epochs": 1}
        few = {"levels": [{"smoothness": 1e-4, "outer": 1, "inner": 3}], "polish": []}
        audit["attacks"]["peel"] |= {**few, "descents": [{"steps": 2, "lr": 0.05, "tv_weight": 0.3}]}
        audit["inversion"]["knobs"] |= {
            "samples": 50,
            "candidates": 2,
            "keep": 2,
            "steps": 2,
            "final_views": 2,
        }

    edit(target, change)
    return target


@pytest.fixture(scope="module")
def done(project: Path) -> subprocess.CompletedProcess[str]:
    (command,) = blocks("sh")
    return run(project, *command.split(), MIPRIV_PUBLISH="off")


def table(project: Path, name: str) -> list[dict[str, str]]:
    with (project / "out/audit/mine" / name).open() as file:
        return list(csv.DictReader(file))


def test_only_what_the_row_needs_runs(done: subprocess.CompletedProcess[str]) -> None:
    assert ran(done) == {"check", "prepare@held_out", "prepare@trained", "audit@mine"}


def test_every_threat_is_told_or_left_out_with_a_reason(
    project: Path, done: subprocess.CompletedProcess[str]
) -> None:
    lines, left = table(project, "leakage.csv"), table(project, "left_out.csv")
    assert all(float(line["low"]) <= float(line["point"]) <= float(line["high"]) for line in lines)
    assert all(int(line["n"]) > 1 and line["method"] for line in lines)
    own = {(line["kind"], line["against"]) for line in lines if line["subject"] == "mine"}
    wanted = {f"{attack} after {layer}" for attack in ("decoder", "peel") for layer in ("relu", "layer1")}
    assert {against for kind, against in own if kind == "reconstruction"} == wanted
    (auc,) = (line for line in lines if line["figure"] == "auc")
    assert (auc["against"], auc["n"]) == ("loss", "200")  # 20 x 6 members and 20 x 4 others
    floors = {line["subject"] for line in lines if line["kind"] == "reconstruction floor"}
    assert floors == {"grey", "mean image", "another image"}
    said = {(one["threat"], one["attack"]): one for one in left}
    assert said["membership", "lira"]["why"] == "no shadow models"
    assert "80 distinct non-members" in said["membership", "loss"]["why"]
    assert ("attack", "ppa") in own or "needs judges" in said["inversion", "ppa"]["why"]
    points = json.loads((project / "out/audit/mine/metrics.json").read_text())
    assert points["victim/natural accuracy"] == pytest.approx(
        next(float(line["point"]) for line in lines if line["figure"] == "natural accuracy"), abs=1e-4
    )


def test_the_page_is_offline_with_words_for_every_picture(
    project: Path, done: subprocess.CompletedProcess[str]
) -> None:
    page = (project / "out/audit/mine/report.html").read_text()
    assert "<script" not in page and not re.search(r"(src|href)=\"https?:", page)
    pictures = re.findall(r"<img [^>]*>", page)
    assert len(pictures) >= 5 and all(re.search(r'alt="[^"]{10,}"', picture) for picture in pictures)
    assert "no shadow models" in page and "AUC" in page


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("classes", ["a", "b"], "classes: no 's1', a class of the data"),
        ("layers", ["layer7"], "'layer7' does not exist"),
        ("training", "faces", "a class of the data"),
        ("attacks", ["decodr"], "did you mean 'decoder'?"),
        ("sha256", "0" * 64, "sha256: the weights have "),
    ],
)
def test_a_mistake_is_one_line_and_costs_nothing(
    project: Path, done: subprocess.CompletedProcess[str], key: str, value: object, said: str
) -> None:
    before = (project / "params.yaml").read_text()
    try:
        edit(project, lambda values: values["audit"]["rows"]["mine"].update({key: value}))  # type: ignore[attr-defined,index]
        refused = run(project, "dvc", "repro", "audit@mine", code=None, MIPRIV_PUBLISH="off")
    finally:
        (project / "params.yaml").write_text(before)
    lines = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and lines[0].startswith("error: params.yaml: audit.rows.mine") and said in lines[0]
    assert (project / "out/audit/mine/report.html").exists()


def test_the_refusal_that_the_page_shows_is_what_is_said(
    project: Path, done: subprocess.CompletedProcess[str]
) -> None:
    before = (project / "params.yaml").read_text()

    def fewer(values: Any) -> None:
        values["prepare"]["rows"]["held_out"]["split"] |= {"private": 19}

    try:
        edit(project, fewer)
        refused = run(project, "dvc", "repro", "audit@mine", code=None, MIPRIV_PUBLISH="off")
    finally:
        (project / "params.yaml").write_text(before)
    assert blocks("text")[0].strip() in refused.stderr


def test_shadows_made_as_the_page_says_let_lira_and_rmia_run(
    project: Path, done: subprocess.CompletedProcess[str]
) -> None:
    """The last of this file: what it leaves is not as the others found it."""

    def shadowed(values: Any) -> None:
        values["audit"]["rows"]["mine"]["shadows"] = "mine/shadows.safetensors"

    (made,) = blocks("py")
    assert "PAIRS, EPOCHS = 8, 25" in made
    (project / "shadows.py").write_text(made.replace("8, 25", "2, 2"))
    subprocess.run([sys.executable, "shadows.py"], cwd=project, check=True)
    edit(project, shadowed)
    again = run(project, "dvc", "repro", "audit@mine", MIPRIV_PUBLISH="off")
    assert "audit@mine" in ran(again)
    lines, left = table(project, "leakage.csv"), table(project, "left_out.csv")
    told = {line["against"]: line for line in lines if line["figure"] == "auc"}
    assert list(told) == ["loss", "lira", "rmia"]
    # Of 200 records the loss tells all; 40 that no shadow has are the population of the others.
    assert [line["n"] for line in told.values()] == ["200", "160", "160"]
    ends = [[float(line[end]) for end in ("low", "point", "high")] for line in told.values()]
    assert all(0 <= low <= point <= high <= 1 for low, point, high in ends)
    assert not [one for one in left if "shadow" in one["why"]]
