"""Replay of event files into MLflow, on real SQLite databases and a real server."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Launch
from filelock import FileLock

from tasks.engine import events, publisher, record
from tasks.engine.events import Events
from tasks.engine.publisher import Publisher

PUBLISHER = ("-m", "tasks.engine.publisher")


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with tables and nothing in it; making one takes seconds."""
    root = tmp_path_factory.mktemp("fresh")
    client(root).search_experiments()
    return root / "mlflow.db"


@pytest.fixture
def root(tmp_path: Path, fresh: Path) -> Path:
    shutil.copy(fresh, tmp_path / "mlflow.db")
    return tmp_path


def client(root: Path, uri: str | None = None) -> Any:
    publisher._environment()
    from mlflow import MlflowClient

    return MlflowClient(uri or f"sqlite:///{root / 'mlflow.db'}")


def stage(root: Path, row: str = "none", loss: float = 1.0, fail: bool = False) -> Path:
    """The event file of a stage with two cells, as the engine writes it."""
    out = root / "out" / "finetune" / row
    out.mkdir(parents=True, exist_ok=True)
    (out / "grid.png").write_bytes(b"pixels")
    file = root / "out" / "events" / "finetune" / f"{row}.jsonl"
    with contextlib.suppress(KeyError), Events(file, root, root, "finetune", row, None) as log:
        log.params({"recipe": {"epochs": 3, "note": "n" * 9000, "sizes": [1, 2]}, "name": "none"})
        log.metrics({"loss": loss, "diverged": float("nan")}, step=4)
        log.input("data", "d" * 64, root / "out" / "data")
        log.text("device", "cpu " * 3000)
        log.artifact(out / "grid.png", kind="image", name="plots/grid.png")
        for seed in range(2):
            log.cell(f"seed-{seed}", f"{seed}" * 64, False, out / f"seed-{seed}", cell(root, out, seed))
        if fail:
            raise KeyError("a bug")
    return file


def cell(root: Path, out: Path, seed: int) -> list[events.Line]:
    folder = out / f"seed-{seed}"
    folder.mkdir(exist_ok=True)
    (folder / "log.txt").write_text(f"seed {seed}")
    with Events(None, folder, root, "finetune", out.name, f"seed-{seed}") as log:
        log.params({"seed": seed, **{f"knob{i}": i for i in range(150)}})
        for step in range(1100):
            log.metric("loss", seed + 1 / (step + 1), step)
        log.artifact(folder / "log.txt")
    return log.lines


def snapshot(store: Any) -> list[dict[str, Any]]:
    """Everything MLflow holds, run by run, without the ids it makes up."""
    experiment = store.get_experiment_by_name("mipriv")
    runs = store.search_runs([experiment.experiment_id], run_view_type=3, max_results=1000)  # 3: deleted too
    names = {run.info.run_id: run.info.run_name for run in runs}
    return sorted((shown(store, run, names) for run in runs), key=lambda run: (run["times"], run["name"]))


def shown(store: Any, run: Any, names: dict[str, str]) -> dict[str, Any]:
    """One run as plain values."""
    info, tags = run.info, dict(run.data.tags)
    history = {key: store.get_metric_history(info.run_id, key) for key in run.data.metrics}
    return {
        "name": info.run_name,
        "parent": names.get(tags.pop("mlflow.parentRunId", None)),
        "tags": tags,
        "status": info.status,
        "stage": info.lifecycle_stage,
        "times": (info.start_time, info.end_time),
        "params": run.data.params,
        "metrics": {
            key: sorted((m.step, m.timestamp, str(m.value)) for m in of) for key, of in history.items()
        },
        "artifacts": sorted(artifacts(store, info.run_id, None)),
        "inputs": [(d.dataset.name, d.dataset.digest, d.dataset.source) for d in run.inputs.dataset_inputs],
    }


def artifacts(store: Any, run: str, below: str | None) -> list[str]:
    """Paths of all files of a run."""
    files = store.list_artifacts(run, below)
    return [
        path for file in files for path in (artifacts(store, run, file.path) if file.is_dir else [file.path])
    ]


def by_name(runs: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = (run for run in runs if run["name"] == name)
    return found


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
    assert child["times"] == (one.cells[1].begin, one.cells[1].end)
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
    assert len(after) == 6 and [run for run in after if run in before] == before


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
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL
    process = start(*PUBLISHER, "--strict", file, cwd=root)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert snapshot(client(root)) == snapshot(client(elsewhere))


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield silent.getsockname()[1]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", ["closed", "silent"])
def test_a_dead_server_is_one_warning(
    tmp_path: Path, start: Launch, silent_port: int, kind: str, strict: bool
) -> None:
    port = closed_port() if kind == "closed" else silent_port
    file, began = stage(tmp_path), time.monotonic()
    env = {"MLFLOW_TRACKING_URI": f"http://me:pass-word@127.0.0.1:{port}"}
    process = start(*PUBLISHER, *(["--strict"] if strict else []), file, cwd=tmp_path, env=env)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (1 if strict else 0)
    assert time.monotonic() - began < 10
    assert ("refused" if kind == "closed" else "timed out") in said
    assert (
        said.startswith(f"publisher: warning: no answer from http://127.0.0.1:{port}")
        and said.count("\n") == 1
    )
    assert "pass-word" not in said and not (tmp_path / "mlflow.db").exists()


def test_a_database_that_cannot_be_is_one_warning_without_its_password(tmp_path: Path, start: Launch) -> None:
    file = stage(tmp_path)
    (tmp_path / "file").touch()
    for uri in (f"sqlite:///{tmp_path}/file/mlflow.db", "nonsense://me:pass-word@host/db"):
        process = start(*PUBLISHER, "--strict", file, cwd=tmp_path, env={"MLFLOW_TRACKING_URI": uri})
        _, said = process.communicate(timeout=60)
        assert (
            process.returncode == 1 and said.startswith("publisher: warning: ") and said.count("\n") == 1
        ), said
        assert "pass-word" not in said


def test_files_that_are_not_whole_are_left_out_and_said(root: Path, start: Launch) -> None:
    good, torn, running = stage(root, "good"), stage(root, "torn"), stage(root, "running")
    torn.write_text("{broken\n" + torn.read_text())
    running.write_text("\n".join(running.read_text().splitlines()[:-1]) + "\n")
    process = start(*PUBLISHER, "--events", root / "out" / "events", "--strict", cwd=root)
    _, said = process.communicate(timeout=60)
    lines = sorted(said.splitlines())
    assert process.returncode == 1 and len(lines) == 3
    assert lines[0].startswith("publisher: 1 new of 3 in sqlite:///")
    assert "running.jsonl: has no end" in lines[1] and "torn.jsonl, line 1: not an event" in lines[2]
    assert by_name(snapshot(client(root)), "finetune@good")
    assert good.exists()


def test_several_at_once_make_one_database(tmp_path: Path, start: Launch) -> None:
    files = [stage(tmp_path, row) for row in ("a", "b", "c")]
    processes = [start(*PUBLISHER, "--strict", file, cwd=tmp_path) for file in files]
    for process in processes:
        _, said = process.communicate(timeout=180)
        assert (process.returncode, said.count("\n")) == (0, 1), said
    assert len(snapshot(client(tmp_path))) == 9


def published(root: Path, name: str) -> bool:
    store = client(root)
    experiment = store.get_experiment_by_name("mipriv")
    found = (
        store.search_runs([experiment.experiment_id], "tags.`mipriv.complete` = 'true'") if experiment else []
    )
    return name in [run.info.run_name for run in found]


@pytest.mark.parametrize("stop", ["close", "term"])
def test_follow_publishes_what_appears_and_the_rest_at_the_end(root: Path, start: Launch, stop: str) -> None:
    stage(root, "before")
    process = start(
        *PUBLISHER, "--events", root / "out" / "events", "--follow", cwd=root, stdin=subprocess.PIPE
    )
    until = time.monotonic() + 60
    while not published(root, "finetune@before"):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.2)
    stage(root, "during")
    while not published(root, "finetune@during"):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.2)
    stage(root, "last")
    with FileLock(root / "mlflow.db.lock"):
        assert not published(root, "finetune@last")
        if stop == "close":
            process.stdin.close()  # type: ignore[union-attr]
        else:
            process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    assert process.wait(60) == 0
    assert published(root, "finetune@last")
    assert len(snapshot(client(root))) == 9


COMMAND = "-m tasks.toy --data data.txt --out out/x --events out/events/x.jsonl --row plain".split()


def test_a_stage_publishes_itself(project: Path, fresh: Path, start: Launch) -> None:
    shutil.copy(fresh, project / "mlflow.db")
    process = start(*COMMAND, cwd=project, path=project, env={"MIPRIV_PUBLISH": "on"})
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0 and "publisher: 1 new of 1" in said
    runs = snapshot(client(project))
    assert sorted(run["name"] for run in runs) == ["seed-0", "seed-1", "toy@plain"]
    assert by_name(runs, "toy@plain")["artifacts"] == ["sum.txt"]
    assert by_name(runs, "seed-1")["inputs"][0][0] == "data"


def test_a_stage_survives_a_dead_server(project: Path, start: Launch) -> None:
    dead = {"MIPRIV_PUBLISH": "on", "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{closed_port()}"}
    process = start(*COMMAND, cwd=project, path=project, env=dead)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0 and said.count("publisher: warning: no answer from") == 1
    assert (project / "out" / "x" / "seed-0" / "sum.txt").exists()


@pytest.fixture
def server(tmp_path: Path, fresh: Path) -> Iterator[str]:
    """A real MLflow server that proxies artifacts."""
    shutil.copy(fresh, tmp_path / "server.db")
    port = closed_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"]
    command += ["--artifacts-destination", str(tmp_path / "served")]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=tmp_path)
    until = time.monotonic() + 90
    try:
        while True:
            assert process.poll() is None and time.monotonic() < until, (tmp_path / "server.log").read_text()
            try:
                publisher._probe(f"http://127.0.0.1:{port}")
                break
            except publisher.Unpublished:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_server_gets_the_same_as_a_database(root: Path, start: Launch, server: str, tmp_path: Path) -> None:
    file = stage(root)
    Publisher(root).publish([record.read(file)])
    for new in (1, 0):
        uri = server.replace("//", "//me:pass-word@")  # which this server does not ask for
        process = start(*PUBLISHER, "--strict", file, cwd=root, env={"MLFLOW_TRACKING_URI": uri})
        _, said = process.communicate(timeout=120)
        assert (process.returncode, said) == (0, f"publisher: {new} new of 1 in {server}\n")
    assert snapshot(client(root, server)) == snapshot(client(root))
    assert [path.name for path in (tmp_path / "served").rglob("*.png")] == ["grid.png"]


def test_an_experiment_of_ones_own(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    Publisher(root).publish([record.read(stage(root))])
    assert client(root).get_experiment_by_name("mipriv") is None
    assert client(root).get_experiment_by_name("mine").name == "mine"


def test_no_stage_imports_mlflow(start: Launch) -> None:
    code = "import sys, json; import tasks.engine.stage; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(start("-c", code).communicate(timeout=60)[0])
    assert not {"mlflow", "dvc", "ray", "boto3", "torch", "tasks.engine.publisher"} & set(loaded)
