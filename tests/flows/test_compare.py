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
from flow_project import ROOT, commit, run
from ruamel.yaml import YAML

from mipriv.stats import Figure, paired_difference
from tasks import people, table
from tasks.joined import cells
from tasks.joined.cells import COLUMNS, Cell, Row
from tasks.leakage import points
from tasks.people import Values

SEEDS, DRAWS = [0, 1], np.random.default_rng(0)
REACHED = DRAWS.integers(0, 5, (2, 12)) / 4  # the attack's top 1 on every training seed and person
FILES = (table.FILE, people.FILE, table.DIGESTS)


def leave(folder: Path, name: str, reached: np.ndarray, seeds: list[int], data: str = "d") -> None:
    """Files of a table with one victim, whose inversion reaches this."""
    folder.mkdir(exist_ok=True)
    point = float(reached.mean())
    found = {column.name: Cell(None, "not run at this scale: a toy") for column in COLUMNS}
    leak = Figure(point, point / 2, (1 + point) / 2, reached.shape[1], len(seeds), "by hand")
    found["inversion"] = Cell(leak, floor=0.1, by="ppa")
    row = Row("none", "faces", f"finetune@{name}", {0: "ab" * 32}, found)
    cells.write(folder / table.FILE, [row])
    people.write(folder / people.FILE, {("none", "inversion", ""): Values(seeds, reached)})
    known = {"data": {"faces": data}, "victims": {"none": {"0": "ab" * 32}}}
    (folder / table.DIGESTS).write_text(json.dumps(known))


def described() -> dict[str, Any]:
    """A `dvc.yaml` whose stage `table` leaves files where the real one does."""
    artifacts = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["artifacts"]
    kept = {name: {"path": artifacts[name]["path"]} for name in ("table", "people", "digests")}
    outs = [one["path"] for one in kept.values()]
    copy = {"cmd": "cp made/* out/table/", "deps": ["made"], "outs": outs}
    return {"stages": {"table": copy}, "artifacts": kept}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Revisions `none` (no table yet), `old`, `better` (less leaks), `other` (of other training seeds)."""
    project = tmp_path_factory.mktemp("compare") / "project"
    (project / "out/table").mkdir(parents=True)
    (project / ".gitignore").write_text("/out/\n")
    with (project / "dvc.yaml").open("w") as file:
        YAML(typ="safe").dump(described(), file)
    run(project, "git", "init", "-q")
    run(project, sys.executable, "-m", "dvc", "init", "-q")
    commit(project)
    run(project, "git", "tag", "none")
    for name, reached, seeds in (
        ("old", REACHED, SEEDS),
        ("better", REACHED / 2, SEEDS),
        ("other", REACHED, [7, 8]),
    ):
        leave(project / "made", "none", reached, seeds)
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
