"""Real kills of what computes on Ray: a worker, the stage, and every worker that takes a cell."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import engine_remote
import engine_toys
import psutil
import pytest
from engine_processes import HERE, ROOT, Launch, wait_for

from flows.cluster import local_head
from tasks.engine import fanout
from tasks.engine.cells import Cell, Place

pytestmark = pytest.mark.usefixtures("on_ray")


def half_way(root: Path, cells: list[int]) -> int:
    """Waits until those seeds ran and the second of them stands half way; returns its worker's process."""
    wait_for(lambda: sorted(engine_toys.ran(root / "log")) == cells and (root / "pid").exists())
    return int((root / "pid").read_text())


def finished(place: Place) -> list[str]:
    return sorted(path.read_text() for path in place.store.glob("*/files/all.txt"))


def scraps(place: Place) -> list[Path]:
    return [path for path in place.store.iterdir() if path.suffix in (".part", ".progress", ".old")]


def test_a_worker_killed_in_the_middle_costs_its_cell_once(
    tmp_path: Path, place: Place, start: Launch
) -> None:
    process = start(engine_remote.__file__, "half", tmp_path, 1)
    worker = half_way(tmp_path, [0, 1, 2, 3])  # the other worker has gone on with the rest
    (tmp_path / "pid").unlink()
    os.kill(worker, signal.SIGKILL)
    assert half_way(tmp_path, [0, 1, 1, 2, 3]) != worker
    (tmp_path / "gate").touch()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert sorted(engine_toys.ran(tmp_path / "log")) == [0, 1, 1, 2, 3]
    assert sorted(re.findall(r"(seed-\d)  done", said)) == [f"seed-{seed}" for seed in range(4)]
    assert finished(place) == [f"both halves of {seed}" for seed in range(4)] and not scraps(place)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_stage_killed_in_the_middle_starts_again_where_it_was(
    tmp_path: Path, place: Place, start: Launch, how: signal.Signals
) -> None:
    process = start(engine_remote.__file__, "half", tmp_path, 1)
    worker = psutil.Process(half_way(tmp_path, [0, 1, 2, 3]))
    wait_for(lambda: len([at for at in tmp_path.glob(".cells/*/cell.json") if not at.parent.suffix]) == 3)
    wait_for(lambda: len(list(tmp_path.glob(".cells/*.progress"))) <= 1)  # theirs are gone, too
    process.send_signal(how)
    assert process.wait(30) == -how
    worker.wait(30)  # no worker goes on for a stage that is gone
    (tmp_path / "gate").touch()
    again = start(engine_remote.__file__, "half", tmp_path, 1)
    _, said = again.communicate(timeout=60)
    assert again.returncode == 0, said
    assert sorted(engine_toys.ran(tmp_path / "log")) == [0, 1, 1, 2, 3]
    assert sorted(re.findall(r"(seed-\d)  (kept|done)", said)) == [
        ("seed-0", "kept"), ("seed-1", "done"), ("seed-2", "kept"), ("seed-3", "kept"),
    ]  # fmt: skip
    assert finished(place) == [f"both halves of {seed}" for seed in range(4)] and not scraps(place)


@pytest.mark.parametrize("retries", [0, 2])
def test_a_cell_that_kills_its_worker_is_given_up(place: Place, retries: int) -> None:
    log = str(place.root / "log")
    work = [
        Cell("good", "engine_toys:square", {"seed": 1, "log": log}),
        Cell("bad", "engine_remote:dies", {"seed": 9, "log": log}),
    ]
    with pytest.raises(Exception, match="worker died") as died:
        fanout.run(work, replace(place, retries=retries))
    assert died.value.__notes__ == ["in cell bad of toy@row"]
    assert engine_toys.ran(place.root / "log").count(9) == 1 + retries


def test_running_out_of_memory_is_not_tried_for_ever(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself would: this head kills every worker for memory, and a cell waits to be killed."""
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    with local_head(ROOT, cpus=1) as environment:
        command = [sys.executable, engine_remote.__file__, "waits", place.root, "1"]
        done = subprocess.run(
            command,
            env={**os.environ, **environment, "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 1 and "OutOfMemoryError" in done.stderr
    assert done.stderr.endswith("in cell seed-1 of toy@row\n")
