"""The publisher as a process: dead and live servers, several at once, follow mode, and from a stage."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_mlflow import PUBLISHER, by_name, client, closed_port, published, snapshot, stage
from engine_processes import COMMAND, Launch
from filelock import FileLock

from tasks.engine import address, record
from tasks.engine.publisher import Publisher


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
    file = stage(tmp_path)
    env = {"MLFLOW_TRACKING_URI": f"http://me:pass-word@127.0.0.1:{port}"}
    process = start(*PUBLISHER, *(["--strict"] if strict else []), file, cwd=tmp_path, env=env)
    _, said = process.communicate(timeout=300)
    assert process.returncode == (1 if strict else 0)
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
        _, said = process.communicate(timeout=300)
        assert (
            process.returncode == 1 and said.startswith("publisher: warning: ") and said.count("\n") == 1
        ), said
        assert "pass-word" not in said


def test_several_at_once_make_one_database(tmp_path: Path, start: Launch) -> None:
    files = [stage(tmp_path, row) for row in ("a", "b", "c")]
    processes = [start(*PUBLISHER, "--strict", file, cwd=tmp_path) for file in files]
    for process in processes:
        _, said = process.communicate(timeout=300)
        assert (process.returncode, said.count("\n")) == (0, 1), said
    assert len(snapshot(client(tmp_path))) == 9


@pytest.mark.parametrize("stop", ["close", "term"])
def test_follow_publishes_what_appears_and_the_rest_at_the_end(root: Path, start: Launch, stop: str) -> None:
    stage(root, "before")
    process = start(
        *PUBLISHER, "--events", root / "out" / "events", "--follow", cwd=root, stdin=subprocess.PIPE
    )
    until = time.monotonic() + 300
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
    assert process.wait(300) == 0
    assert published(root, "finetune@last")
    assert len(snapshot(client(root))) == 9


def test_a_stage_publishes_itself(project: Path, fresh: Path, start: Launch) -> None:
    shutil.copy(fresh, project / "mlflow.db")
    process = start(*COMMAND, cwd=project, path=project, env={"MIPRIV_PUBLISH": "on"})
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0 and "publisher: 1 new of 1" in said
    runs = snapshot(client(project))
    assert sorted(run["name"] for run in runs) == ["seed-0", "seed-1", "toy@plain"]
    assert by_name(runs, "toy@plain")["artifacts"] == ["sum.txt"]
    assert by_name(runs, "seed-1")["inputs"][0][0] == "data"


def test_a_stage_survives_a_dead_server(project: Path, start: Launch) -> None:
    dead = {"MIPRIV_PUBLISH": "on", "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{closed_port()}"}
    process = start(*COMMAND, cwd=project, path=project, env=dead)
    _, said = process.communicate(timeout=300)
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
    until = time.monotonic() + 300
    try:
        while True:
            assert process.poll() is None and time.monotonic() < until, (tmp_path / "server.log").read_text()
            try:
                address.probe(f"http://127.0.0.1:{port}")
                break
            except ConnectionError:
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
        _, said = process.communicate(timeout=300)
        assert (process.returncode, said) == (0, f"publisher: {new} new of 1 in {server}\n")
    assert snapshot(client(root, server)) == snapshot(client(root))
    assert [path.name for path in (tmp_path / "served").rglob("*.png")] == ["grid.png"]
