"""Replay of event files into MLflow: what is written, once."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from engine_mlflow import PUBLISHER, by_name, client, snapshot, stage
from engine_processes import Launch

from tasks.engine import record
from tasks.engine.events import Events
from tasks.engine.publisher import Publisher


def test_a_stage_is_a_run_and_its_cells_are_children(root: Path) -> None:
    file = stage(root)
    one = record.read(file)
    assert Publisher(root).publish([one]) == 1
    store = client(root)
    runs = snapshot(store)
    assert sorted((run["name"], run["parent"]) for run in runs) == [
        ("finetune@none", None), ("seed-0", "finetune@none"), ("seed-1", "finetune@none"),
    ]  # fmt: skip
    parent, child = by_name(runs, "finetune@none"), by_name(runs, "seed-1")
    md5 = subprocess.run(["md5sum", file], capture_output=True, text=True, check=True).stdout.split()[0]
    for run in runs:
        assert (run["status"], run["stage"], run["tags"]["mipriv.complete"]) == ("FINISHED", "active", "true")
        assert (run["tags"]["dvc.hash"], run["tags"]["mipriv.stage"], run["tags"]["mipriv.row"]) == (
            md5, "finetune@none", "none",
        )  # fmt: skip
    assert parent["times"] == (one.begin, one.end)
    assert child["times"] == (one.children[1].begin, one.children[1].end)
    assert parent["params"]["recipe.epochs"] == "3" and parent["params"]["recipe.sizes"] == "[1, 2]"
    assert len(parent["params"]["recipe.note"]) == 6000 and parent["params"]["recipe.note"].endswith(
        "cut, 9000 characters"
    )
    assert [(step, value) for step, _, value in parent["metrics"]["loss"]] == [(4, "1.0")]
    assert [(step, value) for step, _, value in parent["metrics"]["diverged"]] == [(4, "nan")]
    assert parent["tags"]["mipriv.nonfinite"] == "diverged"
    assert parent["inputs"] == [("data", "d" * 36, '{"uri": "out/data"}')]
    assert parent["tags"]["input.data"] == "d" * 64
    assert parent["artifacts"] == ["device.txt", "plots/grid.png"]
    assert len(child["params"]) == 151 and child["tags"]["mipriv.cell.key"] == "1" * 64
    assert [(step, value) for step, _, value in child["metrics"]["loss"]] == [
        (step, str(1 + 1 / (step + 1))) for step in range(1100)
    ]
    assert child["artifacts"] == ["log.txt"]
    assert (root / "mlartifacts").is_dir() and not (root / "mlruns").exists()


def test_replaying_twice_changes_nothing(root: Path) -> None:
    files = [stage(root), stage(root, "tl-dmi")]
    Publisher(root).publish(map(record.read, files))
    before = snapshot(client(root))
    assert len(before) == 6
    for path in files:  # a restored stage has new times on disk
        os.utime(path, (1, 1))
    assert Publisher(root).publish(map(record.read, files)) == 0
    assert snapshot(client(root)) == before


def test_new_results_are_a_new_run(root: Path) -> None:
    Publisher(root).publish([record.read(stage(root))])
    before = snapshot(client(root))
    assert Publisher(root).publish([record.read(stage(root, loss=2.0))]) == 1
    after = snapshot(client(root))
    age = [run["tags"].pop("mipriv.recent", None) for run in before + after]
    assert len(after) == 6 and [run for run in after if run in before] == before
    # Two runs of the stage itself carry the tag, the newer one as the last; cells never do.
    both = zip(before + after, age, strict=True)
    marked = [(run["metrics"]["loss"][0][2], tag) for run, tag in both if tag]
    assert sorted(marked) == [("1.0", "last"), ("1.0", "previous"), ("2.0", "last")]
    Publisher(root).publish([record.read(stage(root, loss=3.0))])
    tags = {run["metrics"]["loss"][0][2]: run["tags"] for run in snapshot(client(root)) if not run["parent"]}
    assert [tags[loss].get("mipriv.recent") for loss in ("1.0", "2.0", "3.0")] == [None, "previous", "last"]


def test_a_finding_is_a_child_with_the_stages_tags_and_its_own(root: Path) -> None:
    file = root / "out/events/evaluate.jsonl"
    with Events(file, root, root, "evaluate", None, None) as log:
        log.tags({"backbone": "imagenet", "defense": "all"})
        log.finding("ppa by vgg", {"attack": "ppa", "defense": "none"}, {"natural_accuracy": 0.9, "knn": 2})
        log.finding("gmi by vgg", {"attack": "gmi"}, {"natural_accuracy": 0.8})
    assert Publisher(root).publish([record.read(file)]) == 1
    assert Publisher(root).publish([record.read(file)]) == 0
    runs = snapshot(client(root))
    finding = by_name(runs, "ppa by vgg")
    assert finding["parent"] == "evaluate" and finding["status"] == "FINISHED" and len(runs) == 3
    wanted = {"attack": "ppa", "defense": "none", "backbone": "imagenet", "mipriv.stage": "evaluate"}
    wanted |= {"mipriv.kind": "finding", "mipriv.recent": "last", "mipriv.complete": "true"}
    assert wanted.items() <= finding["tags"].items()
    values = {key: [value for _, _, value in of] for key, of in finding["metrics"].items()}
    assert values == {"natural_accuracy": ["0.9"], "knn": ["2.0"]}
    with Events(None, root, root, "evaluate", None, None) as log, pytest.raises(ValueError, match=r"a\?b"):
        log.finding("a?b", {}, {})


def test_a_failed_stage_is_a_failed_run(root: Path) -> None:
    Publisher(root).publish([record.read(stage(root, fail=True))])
    run = by_name(snapshot(client(root)), "finetune@none")
    assert (run["status"], run["tags"]["mipriv.error"]) == ("FAILED", "KeyError")


def test_an_artifact_that_has_changed_is_a_warning(root: Path) -> None:
    file = stage(root)
    (root / "out/finetune/none/grid.png").write_bytes(b"others")
    (root / "out/finetune/none/seed-0/log.txt").unlink()
    Publisher(root).publish([record.read(file)])
    runs = snapshot(client(root))
    assert by_name(runs, "finetune@none")["tags"]["mipriv.warning"] == "changed or gone: plots/grid.png"
    assert by_name(runs, "finetune@none")["artifacts"] == ["device.txt"]
    assert by_name(runs, "seed-0")["tags"]["mipriv.warning"] == "changed or gone: log.txt"
    assert by_name(runs, "seed-1")["artifacts"] == ["log.txt"]


DIES = """
import os, signal, sys
from mlflow import MlflowClient
from tasks.engine import publisher
left = int(sys.argv.pop(1))
def dying(name):
    real = getattr(MlflowClient, name)
    def call(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    setattr(MlflowClient, name, call)
for name in "create_run log_batch log_inputs log_artifact log_text set_terminated set_tag".split():
    dying(name)
publisher.main()
"""


def test_one_killed_in_the_middle_is_completed_and_never_doubled(
    root: Path, start: Launch, fresh: Path
) -> None:
    file = stage(root)
    elsewhere = root / "whole"
    shutil.copytree(root / "out", elsewhere / "out")
    shutil.copy(fresh, elsewhere / "mlflow.db")
    Publisher(elsewhere).publish([record.read(file)])
    for writes in (1, 3, 7, 7):  # each goes on where the one before was killed
        process = start("-c", DIES, writes, file, cwd=root)
        process.communicate(timeout=300)
        assert process.returncode == -signal.SIGKILL
    process = start(*PUBLISHER, "--strict", file, cwd=root)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert snapshot(client(root)) == snapshot(client(elsewhere))


def test_files_that_are_not_whole_are_left_out_and_said(root: Path, start: Launch) -> None:
    good, torn, running = stage(root, "good"), stage(root, "torn"), stage(root, "running")
    torn.write_text("{broken\n" + torn.read_text())
    running.write_text("\n".join(running.read_text().splitlines()[:-1]) + "\n")
    process = start(*PUBLISHER, "--events", root / "out" / "events", "--strict", cwd=root)
    _, said = process.communicate(timeout=300)
    lines = sorted(said.splitlines())
    assert process.returncode == 1 and len(lines) == 3
    assert lines[0].startswith("publisher: 1 new of 3 in sqlite:///")
    assert "running.jsonl: has no end" in lines[1] and "torn.jsonl, line 1: not an event" in lines[2]
    assert by_name(snapshot(client(root)), "finetune@good")
    assert good.exists()


def test_an_experiment_of_ones_own(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    Publisher(root).publish([record.read(stage(root))])
    assert client(root).get_experiment_by_name("mipriv") is None
    assert client(root).get_experiment_by_name("mine").name == "mine"


def test_no_stage_imports_mlflow(start: Launch) -> None:
    code = "import sys, json; import tasks.engine.stage; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(start("-c", code).communicate(timeout=300)[0])
    assert not {"mlflow", "dvc", "ray", "boto3", "torch", "tasks.engine.publisher"} & set(loaded)
