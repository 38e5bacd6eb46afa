"""`make compare` on git revisions, end to end: a repository whose commits record different tables."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flow_project import ROOT, commit, run
from ruamel.yaml import YAML

from mipriv.metrics import membership as metrics
from mipriv.stats import Figure, paired_difference
from tasks import people, table
from tasks.joined import cells
from tasks.joined.cells import COLUMNS, Cell, Row
from tasks.leakage import points
from tasks.memberships import scored
from tasks.memberships.scored import Scored
from tasks.people import Values

SEEDS, DRAWS = [0, 1], np.random.default_rng(0)
REACHED = DRAWS.integers(0, 5, (2, 12)) / 4  # the attack's top 1 on every training seed and person
FILES = (table.FILE, people.FILE, scored.FILE, table.DIGESTS)
MEMBERS = torch.arange(60).repeat(2, 1) < 30
TOLD = torch.randn(2, 60, generator=torch.Generator().manual_seed(0)) + MEMBERS  # scores of the records


def membership(told: torch.Tensor, seeds: list[int], records: str = "faces, pool 0") -> Scored:
    """Of an attack with these scores."""
    return Scored("lira", records, 0.34, 40, seeds, told, MEMBERS)


def leave(
    folder: Path,
    name: str,
    reached: np.ndarray,
    seeds: list[int],
    data: str = "d",
    scores: Scored | None = None,
) -> None:
    """Files of a table with one victim, whose inversion reaches this, and whose members are told so."""
    folder.mkdir(exist_ok=True)
    point = float(reached.mean())
    found = {column.name: Cell(None, "not run at this scale: a toy") for column in COLUMNS}
    leak = Figure(point, point / 2, (1 + point) / 2, reached.shape[1], len(seeds), "by hand")
    found["inversion"] = Cell(leak, floor=0.1, by="ppa")
    own = scores or membership(TOLD, seeds)
    found["membership"] = Cell(own.at(seeds).tpr, floor=0.34, by="lira at FPR 0.34")
    scored.write(folder / scored.FILE, {("none", "lira"): own})
    row = Row("none", "faces", f"finetune@{name}", {0: "ab" * 32}, found)
    cells.write(folder / table.FILE, [row])
    people.write(folder / people.FILE, {("none", "inversion", ""): Values(seeds, reached)})
    known = {"data": {"faces": data}, "victims": {"none": {"0": "ab" * 32}}}
    (folder / table.DIGESTS).write_text(json.dumps(known))


def described(with_scores: bool = True) -> dict[str, Any]:
    """A `dvc.yaml` whose stage `table` leaves files where the real one does, or an earlier one did."""
    artifacts = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["artifacts"]
    kept = {name: {"path": artifacts[name]["path"]} for name in ("table", "people", "scores", "digests")}
    outs = [one["path"] for name, one in kept.items() if with_scores or name != "scores"]
    copy = {"cmd": "cp made/* out/table/", "deps": ["made"], "outs": outs}
    return {"stages": {"table": copy}, "artifacts": kept}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Revisions `none` (no table yet), `first` (no scores beside it), `old`, `better` (less leaks),
    `other` (of other training seeds), `drawn` (other records)."""
    project = tmp_path_factory.mktemp("compare") / "project"
    (project / "out/table").mkdir(parents=True)
    (project / ".gitignore").write_text("/out/\n")
    with (project / "dvc.yaml").open("w") as file:
        YAML(typ="safe").dump(described(), file)
    run(project, "git", "init", "-q")
    run(project, sys.executable, "-m", "dvc", "init", "-q")
    commit(project)
    run(project, "git", "tag", "none")
    for name, reached, scores in (
        ("first", REACHED, membership(TOLD, SEEDS)),
        ("old", REACHED, membership(TOLD, SEEDS)),
        ("better", REACHED / 2, membership(TOLD - MEMBERS.float(), SEEDS)),
        ("other", REACHED, membership(TOLD, [7, 8])),
        ("drawn", REACHED, membership(TOLD, SEEDS, records="faces, pool 1")),
    ):
        leave(project / "made", "none", reached, scores.seeds, scores=scores)
        with (project / "dvc.yaml").open("w") as file:
            YAML(typ="safe").dump(described(with_scores=name != "first"), file)
        if name == "first":
            (project / "made" / scored.FILE).unlink()
        run(project, sys.executable, "-m", "dvc", "repro", "-q")
        commit(project)
        run(project, "git", "tag", name)
    return project


def compare(project: Path, revisions: Sequence[str], code: int = 0) -> subprocess.CompletedProcess[str]:
    """The command of `make compare`, by this checkout's code."""
    return run(project, sys.executable, "-m", "flows.compare", *revisions, code=code)


def test_two_revisions_differ_by_person_and_seed(project: Path) -> None:
    said = compare(project, ["old", "better"]).stdout
    assert "A: old" in said and "B: better" in said
    expected = paired_difference(REACHED / 2, REACHED)
    assert expected.high < 0 and f"{points(expected)} lower" in said
    assert "none: the same checkpoint" in said
    assert f"{100 * REACHED.mean():.1f} [" in said and f"{100 * REACHED.mean() / 2:.1f} [" in said
    back = compare(project, ["better", "old"]).stdout
    assert f"{points(paired_difference(REACHED, REACHED / 2))} higher" in back


def test_members_are_paired_record_by_record_and_resample_by_resample(project: Path) -> None:
    """Against resamples of both revisions drawn by themselves, in the same order."""
    found = [metrics.pooled(scores, MEMBERS, 0.34, resamples=40) for scores in (TOLD - MEMBERS.float(), TOLD)]
    again = np.array(found[0].again) - np.array(found[1].again)
    low, high = np.percentile(again, [2.5, 97.5])
    point = found[0].tpr.point - found[1].tpr.point
    assert high < 0 and np.ptp(again) > 0.01
    (line,) = (
        line for line in compare(project, ["old", "better"]).stdout.splitlines() if "membership, TPR" in line
    )
    assert line.endswith(f"{points(Figure(point, low, high, 30, 2, ''))} lower")


@pytest.mark.parametrize(
    ("revision", "said"),
    [
        ("old", "the same for every record and training seed"),
        ("other", "not paired: no training seed in both"),
        ("drawn", "not paired: other records"),
        ("first", "not paired: no scores by record"),
    ],
)
def test_members_that_do_not_pair_say_why(project: Path, revision: str, said: str) -> None:
    for revisions in (["old", revision], [revision, "old"]):
        found = compare(project, revisions).stdout.splitlines()
        (line,) = (line for line in found if "membership, TPR" in line)
        assert line.endswith(said)


def test_a_revision_beside_itself_differs_nowhere(project: Path) -> None:
    said = compare(project, ["old", "old"]).stdout
    assert "the same for every person and training seed" in said and "no change shown" not in said


def test_what_does_not_pair_says_why(project: Path) -> None:
    assert "not paired: no training seed in both" in compare(project, ["old", "other"]).stdout


def test_the_working_tree_is_a_side_too(project: Path, tmp_path: Path) -> None:
    own = tmp_path / "project"
    shutil.copytree(project, own, symlinks=True)
    for name in FILES:
        (own / "out/table" / name).unlink()
    refused = compare(own, ["old", "workspace"], code=2).stderr
    assert refused.count("\n") == 1 and "run the pipeline first" in refused
    leave(own / "out/table", "none", REACHED, SEEDS, data="another")
    assert "not paired: another data set" in compare(own, ["old", "workspace"]).stdout


@pytest.mark.parametrize(
    ("revisions", "said"),
    [
        (
            ["none", "old"],
            "revision 'none' has no table: its dvc.lock names no out/table/table.csv; allowed: ",
        ),
        (["old", "nowhere"], "revision 'nowhere' does not exist; allowed: what git knows, or workspace"),
        (["old", ""], "revision '' does not exist"),
    ],
)
def test_a_revision_without_a_table_is_one_line(project: Path, revisions: list[str], said: str) -> None:
    refused = compare(project, revisions, code=2)
    assert refused.stderr.startswith(f"error: {said}") and refused.stderr.count("\n") == 1
    assert refused.stdout == ""


def test_a_table_that_the_cache_lost_is_one_line(project: Path, tmp_path: Path) -> None:
    own = tmp_path / "project"
    shutil.copytree(project, own, symlinks=True)
    shutil.rmtree(own / ".dvc/cache")
    refused = compare(own, ["old", "better"], code=2).stderr
    assert "out/table/table.csv of revision 'old' is not in DVC's cache; `dvc pull`" in refused
    assert refused.count("\n") == 1
