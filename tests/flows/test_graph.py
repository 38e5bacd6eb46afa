"""The graph and what is stale, held against DVC's own commands."""

import json
import re
import subprocess
import sys
from pathlib import Path

import flow_project
import pytest
from flow_project import ROOT, STAGES, environment, run, turn, wait

from flows import graph
from flows.graph import Busy
from flows.project import Mistake

EDGE = re.compile(r'"(.+)" -> "(.+)";')
TINY = {
    "source": set(),
    "row@left": {"source"},
    "row@right": {"source"},
    "alone": set(),
    "join": {"row@left", "row@right"},
}


def edges(project: Path) -> set[tuple[str, str]]:
    """(needed, stage), as ``dvc dag`` draws them."""
    return set(EDGE.findall(run(project, sys.executable, "-m", "dvc", "dag", "--dot").stdout))


@pytest.mark.parametrize("which", ["tiny", "real"])
def test_the_graph_is_that_of_dvc(which: str, fresh: Path) -> None:
    project = ROOT if which == "real" else fresh
    stages = graph.read(project)
    ours = {(needed, stage.address) for stage in stages.values() for needed in stage.needs}
    assert ours == edges(project) and len(ours) >= 4
    order = list(stages)
    assert all(order.index(needed) < order.index(address) for needed, address in ours)


def test_every_stage_is_there_with_its_outputs_wherever_one_stands(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stages = graph.read(fresh)
    assert {address: set(stage.needs) for address, stage in stages.items()} == TINY
    assert stages["row@left"].outs == (Path("out/row/left"), Path("out/events/row/left.jsonl"))


def test_changed_is_what_dvc_says(done: Path) -> None:
    assert graph.changed(done, STAGES) == set()
    turn(done, row__left=0.2, alone=0.3)
    (done / "out/join").unlink()
    said = json.loads(run(done, sys.executable, "-m", "dvc", "status", "--json").stdout)
    assert graph.changed(done, STAGES) == set(said) == {"row@left", "alone", "join"}
    assert graph.changed(done, ["row@right", "alone"]) == {"alone"}
    stages, selected, changed = graph.look(done, ["join"])
    assert (stages, selected, changed) == (graph.read(done), TINY.keys() - {"alone"}, {"row@left", "join"})


def test_stages_of_other_files_are_asked_after_by_their_addresses(fresh: Path) -> None:
    (fresh / "sub").mkdir()
    (fresh / "sub/dvc.yaml").write_text("stages: {more: {cmd: touch x, outs: [x]}}\n")
    (fresh / "sub/data").write_text("1")
    run(fresh, sys.executable, "-m", "dvc", "add", "sub/data")
    others = {address for address in graph.read(fresh) if address not in STAGES}
    assert others == {"sub/dvc.yaml:more", "sub/data.dvc"}
    assert graph.changed(fresh, others) == {"sub/dvc.yaml:more"}
    (fresh / "sub/data").write_text("2")
    assert graph.changed(fresh, others) == others == graph.look(fresh, sorted(others))[2]


def test_what_changes_makes_its_descendants_stale_and_nothing_else(fresh: Path) -> None:
    stages = graph.read(fresh)
    assert graph.stale(stages, STAGES, ["row@left"]) == {"row@left", "join"}
    assert graph.stale(stages, STAGES, ["source"]) == {"source", "row@left", "row@right", "join"}
    assert graph.stale(stages, ["source", "row@left"], ["source"]) == {"source", "row@left"}


def test_stages_and_rows_are_selected_with_what_they_need(fresh: Path) -> None:
    stages = graph.read(fresh)
    assert graph.select(stages, []) == set(STAGES)
    assert graph.select(stages, ["join"]) == set(STAGES) - {"alone"}
    assert graph.select(stages, ["row@left"]) == graph.select(stages, ["left"]) == {"source", "row@left"}
    assert graph.select(stages, ["row", "alone"]) == {"source", "row@left", "row@right", "alone"}
    with pytest.raises(
        Mistake, match=r"stages: 'rows' is neither a stage nor a row; allowed: alone, join, left"
    ):
        graph.select(stages, ["rows"])


def test_a_broken_project_is_one_line(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (fresh / "dvc.yaml").write_text("stages: {a: {cmd: x, dep: [y]}}")
    with pytest.raises(Mistake):
        graph.read(fresh)
    said = capsys.readouterr().err
    assert said.startswith("error: ") and str(fresh) in said and said.count("\n") == 1


def test_what_another_dvc_holds_is_busy_here_and_in_dvcs_words(done: Path) -> None:
    turn(done, row__left="hangs")
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", "row@left"]
    other = subprocess.Popen(
        command, cwd=done, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait((done / "marks/row@left.pids").exists)
        with pytest.raises(Busy, match="is busy"):
            graph.changed(done, ["row@left"])
        assert graph.changed(done, ["alone"]) == set()
        said = run(done, sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", "row@left", code=None)
        assert said.returncode and graph.busy(said.stderr.splitlines()), said.stderr
    finally:
        flow_project.kill(other)
    assert not graph.busy(["'x' is busy, it is being blocked by me", "error: Unable to acquire lock"])


def test_the_longest_chain_of_minutes_to_the_end() -> None:
    needs = {"a": [], "b": [], "c": ["a"], "d": ["a", "b"], "e": ["d"]}
    stages = {name: graph.Stage(name, frozenset(of), ()) for name, of in needs.items()}
    minutes = {"a": 1.0, "b": 0.5, "c": 7.0, "d": 2.0, "e": 3.0}
    assert graph.chains(stages, minutes.__getitem__) == {"a": 8.0, "b": 5.5, "c": 7.0, "d": 5.0, "e": 3.0}
