"""The head of a run: closed to others, and gone with the run, however that ends."""

import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import engine_remote
import psutil
import pytest
from engine_processes import HERE, ROOT, Launch, wait_for

from flows import cluster
from tasks.engine import fanout
from tasks.engine.cells import Place


def family(token: str) -> list[psutil.Process]:
    """All processes on this machine that were started with that token."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RAY_AUTH_TOKEN") == token and process.status() != "zombie":
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; none of one that has ended since."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # a zombie is one, too
        return []


def connections(process: psutil.Process) -> list[Any]:
    """Its sockets; none of one that has ended since."""
    try:
        return list(process.net_connections())
    except psutil.NoSuchProcess:
        return []


def folder(processes: list[psutil.Process]) -> Path:
    """Ray's folder, from the command line of one of its processes."""
    words = [word for process in processes for word in words_of(process)]
    return Path(next(word.split("=", 1)[1] for word in words if word.startswith("--temp-dir=")))


def test_it_listens_on_loopback_only_and_no_file_holds_its_token(head: dict[str, str]) -> None:
    token = head["RAY_AUTH_TOKEN"]
    processes = [process for process in family(token) if process.pid != os.getpid()]
    listening = {
        connection.laddr
        for process in processes
        for connection in connections(process)
        if connection.status == psutil.CONN_LISTEN
    }
    assert {address.ip for address in listening} <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert int(head["RAY_ADDRESS"].rpartition(":")[2]) in {address.port for address in listening}
    assert not [word for process in processes for word in words_of(process) if token in word]
    files = [path for path in folder(processes).rglob("*") if path.is_file()]
    assert files and not [path for path in files if token.encode() in path.read_bytes()]
    assert not (Path.home() / ".ray" / "auth_token").exists() or token not in (
        (Path.home() / ".ray" / "auth_token").read_text()
    )


def test_a_cluster_that_is_named_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with cluster.local_head(ROOT) as environment:
        assert environment == {}
        assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_a_head_that_cannot_start_is_one_line_and_nothing_stays(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as refused, cluster.local_head(ROOT, cpus=-1):
        pytest.fail("it started")
    said = capsys.readouterr().err
    assert refused.value.code == 2 and said.startswith("error: Ray did not start: ") and said.count("\n") == 1


def test_a_node_that_would_end_longer_cells_is_refused(
    tmp_path: Path, start: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "patience", dict)
    with cluster.local_head(ROOT, cpus=1) as environment:
        process = start(engine_remote.__file__, "rests", tmp_path, 0, env=environment)
        _, said = process.communicate(timeout=120)
    refusal = r"RAY_ADDRESS: the node 127\S+ was started without RAY_\w+, .*; allowed: nodes that start with"
    assert process.returncode and re.search(refusal, said), said
    assert not (tmp_path / "log").exists(), "before any work"


@pytest.mark.slow
def test_cells_take_as_long_as_they_need(
    place: Place, head: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Ray's own settings the worker is ended after 50 s, because its driver asks too often."""
    for name, value in {**head, "PYTHONPATH": str(HERE)}.items():
        monkeypatch.setenv(name, value)
    assert fanout.run(engine_remote.resting(place, 80.0, 1), replace(place, retries=0))


def gone(processes: list[psutil.Process]) -> bool:
    return not any(alive(process) for process in processes)


def alive(process: psutil.Process) -> bool:
    """Neither gone nor a zombie; it may go between the two questions."""
    try:
        return process.is_running() and process.status() != "zombie"
    except psutil.NoSuchProcess:
        return False


def guard(processes: list[psutil.Process]) -> psutil.Process:
    (found,) = (process for process in processes if "flows.cluster" in words_of(process))
    return found


def test_it_ends_with_its_run(tmp_path: Path, start: Launch) -> None:
    """Three at once, for each takes seconds to start; a worker of each is in the middle of a cell."""
    names = ("killed", "terminated", "interrupted")
    for name in names:
        (tmp_path / name).mkdir()
    runs = {name: start(HERE / "engine_head.py", tmp_path / name) for name in names}
    wait_for(lambda: all((tmp_path / name / "pid").exists() for name in names), seconds=90)
    families = {name: family((tmp_path / name / "token").read_text()) for name in names}
    folders = {name: folder(processes) for name, processes in families.items()}
    for name in names:
        worker = int((tmp_path / name / "pid").read_text())
        assert {worker, guard(families[name]).pid} < {process.pid for process in families[name]}
    runs["killed"].kill()
    runs["terminated"].terminate()
    guard(families["interrupted"]).kill()
    runs["interrupted"].send_signal(signal.SIGINT)
    wait_for(lambda: all(gone(processes) for processes in families.values()), seconds=90)
    assert [runs[name].wait(60) for name in names] == [-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT]
    assert not folders["killed"].exists() and not folders["terminated"].exists()
    shutil.rmtree(folders["interrupted"])  # nobody was left to do it


def test_a_stage_whose_cluster_dies_fails(tmp_path: Path, start: Launch) -> None:
    """It is not left waiting, though its cell was in the cluster's hands."""
    run = start(HERE / "engine_head.py", tmp_path)
    wait_for(lambda: (tmp_path / "pid").exists(), seconds=90)
    processes = family((tmp_path / "token").read_text())
    (ray,) = (process for process in processes if "ray.scripts.scripts" in words_of(process))
    ray.kill()
    assert run.wait(60) == 0 and (tmp_path / "ended").read_text() != "0"
    wait_for(lambda: gone(processes), seconds=90)
