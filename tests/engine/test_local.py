"""Cells in forks of their stage: the same bytes and errors, and nothing left when something is killed."""

import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import engine_toys
import pytest
from engine_processes import COMMAND, Launch, alive, wait_for

from mipriv.errors import InputError
from tasks.engine import fanout, local
from tasks.engine.cells import Cell, Place


def children(pid: int) -> set[int]:
    """Processes that a process has started and that still run."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return set()
    return {int(child) for child in found if alive(int(child))}


def square(seed: int, place: Place) -> Cell:
    return Cell(f"seed-{seed}", "engine_toys:square", {"seed": seed, "log": str(place.root / "log")})


def files(place: Place) -> dict[str, bytes]:
    """By key and path, what cells have written."""
    found = place.store.glob("*/files/**/*")
    return {str(path.relative_to(place.store)): path.read_bytes() for path in found if path.is_file()}


def test_the_same_bytes_in_the_order_asked_for_and_none_computed_again(tmp_path: Path, place: Place) -> None:
    beside = replace(place, root=tmp_path / "beside", store=tmp_path / "beside" / ".cells", workers=2)
    beside.root.mkdir()
    seeds = [3, 1, 2, 0, 4]
    work = [Cell(f"seed-{s}", "engine_toys:square", {"seed": s, "log": str(tmp_path / "log")}) for s in seeds]
    alone, shared = fanout.run(work, place), fanout.run(work, beside)
    assert list(alone) == list(shared) == [f"seed-{seed}" for seed in seeds]
    assert files(place) == files(beside) and len(files(place)) == 2 * len(seeds)
    told = [[(line["event"], line.get("values")) for line in r["seed-2"].events()] for r in (alone, shared)]
    assert told[0] == told[1]
    assert not any(result.resumed for result in shared.values())
    assert all(result.resumed for result in fanout.run(work, beside).values())
    assert len(engine_toys.ran(tmp_path / "log")) == 2 * len(seeds)
    assert not list(beside.store.glob("*.p*"))  # neither parts nor notes of progress


def test_as_many_are_at_work_as_there_are_workers_and_no_more(place: Place) -> None:
    log = place.root / "log"
    work = [Cell(f"{s}", "engine_toys:meets", {"seed": s, "log": str(log), "others": 2}) for s in range(6)]
    fanout.run(work, replace(place, workers=2))  # each waits until it has met another
    level = highest = 0
    for seed in engine_toys.ran(log):
        level += 1 if seed >= 0 else -1
        highest = max(highest, level)
    assert (level, highest) == (0, 2)


def test_a_users_mistake_passes_as_it_is(place: Place) -> None:
    with pytest.raises(InputError) as refused:
        fanout.run([Cell("a", "engine_toys:refuses", {})], replace(place, workers=2))
    assert str(refused.value) == "finetune.epochs: 0 is not allowed"
    assert not hasattr(refused.value, "__notes__")


def test_a_bug_names_its_cell_and_the_line_and_ends_the_others(place: Place) -> None:
    others = children(os.getpid())  # servers that other tests of this process share
    work = [
        Cell("long", "engine_toys:gated", {"seed": 1, "log": str(place.root / "log"), "gate": "/nowhere"}),
        Cell("seed-1/ids-000", "engine_toys:breaks", {}),
    ]
    with pytest.raises(ZeroDivisionError, match="a bug") as broken:
        fanout.run(work, replace(place, workers=2))
    assert broken.value.__notes__ == ["in cell seed-1/ids-000 of toy@row"]
    assert 'engine_toys.py", line' in str(broken.value.__cause__)
    assert children(os.getpid()) <= others


def test_an_error_that_cannot_be_sent_is_told_in_words(place: Place) -> None:
    with pytest.raises(RuntimeError, match="Odd: 3 of 4") as broken:
        fanout.run([Cell("a", "engine_toys:odd", {})], replace(place, workers=2))
    assert broken.value.__notes__ == ["in cell a of toy@row"]


def test_workers_are_no_more_than_processors_of_their_threads_leave_room_for() -> None:
    usable = len(os.sched_getaffinity(0))
    assert [local.most(n, 1) for n in (1, usable, 4096)] == [1, usable, usable]
    assert local.most(4096, usable) == local.most(4096, 4096) == 1


def test_a_killed_worker_ends_the_stage_by_name_and_the_next_run_goes_on(
    tmp_path: Path, start: Launch, log: Path
) -> None:
    process = start(engine_toys.__file__, "gated", tmp_path, 2)
    wait_for(lambda: set(engine_toys.ran(log)) == {0, 1, 2} and len(children(process.pid)) == 1, seconds=300)
    (worker,) = children(process.pid)
    os.kill(worker, signal.SIGKILL)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "its process was ended (SIGKILL, as where memory runs out)" in said, said
    assert "in cell seed-1 of toy" in said
    (tmp_path / "gate").touch()
    again = start(engine_toys.__file__, "gated", tmp_path, 2)
    _, said = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert sorted(re.findall(r"(seed-\d)  (kept|done)", said)) == [
        ("seed-0", "kept"),
        ("seed-1", "done"),
        ("seed-2", "kept"),
    ]
    assert not list(tmp_path.glob(".cells/*.part"))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("parent", ["alone", "warm"])
def test_no_worker_outlives_its_stage(
    project: Path, start: Launch, how: signal.Signals, parent: str, tmp_path: Path
) -> None:
    values = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(values.replace("{minutes: 0.1}", "{minutes: 0.1, workers: 2}"))
    env = {"TOY": "cells wait", "PYTHONPATH": str(project)}
    if parent == "warm":
        socket = tmp_path / "s"
        holder = start("-m", "tasks.engine.warm", socket, cwd=project, path=project)
        wait_for(lambda: socket.exists() or holder.poll() is not None, seconds=300)
        assert holder.poll() is None, holder.communicate()
        env["MIPRIV_WARM"] = str(socket)
    stage = start(*COMMAND, cwd=project, path=project, env=env)
    wait_for(lambda: len(list(project.glob("at-work-*"))) == 2 or stage.poll() is not None, seconds=300)
    assert stage.poll() is None, stage.communicate()
    workers = [int(path.name.rpartition("-")[2]) for path in project.glob("at-work-*")]
    assert all(alive(pid) for pid in workers) and stage.pid not in workers
    stage.send_signal(how)
    assert stage.wait(300) == (-signal.SIGKILL if how == signal.SIGKILL else 128 + signal.SIGTERM)
    wait_for(lambda: not any(alive(pid) for pid in workers), seconds=60)
    if parent == "warm":
        wait_for(lambda: not children(holder.pid), seconds=60)
    if how == signal.SIGTERM:
        assert not list(project.glob(".cells/*.part")), "workers that are told to end clean up"
    (project / "gate").touch()
    again = start(*COMMAND, cwd=project, path=project, env=env)
    _, said = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert {path.read_text() for path in project.glob("out/x/*/sum.txt")} == {"11.0", "12.0"}


def test_what_a_worker_imports_is_held_against_the_deps_of_its_stage(project: Path, start: Launch) -> None:
    values = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(values.replace("{minutes: 0.1}", "{minutes: 0.1, workers: 2}"))
    stage = start(*COMMAND, cwd=project, path=project, env={"TOY": "cell imports"})
    _, said = stage.communicate(timeout=300)
    assert stage.returncode == 2
    assert said.splitlines()[-1] == (
        "error: dvc.yaml: toy@plain: imports mipriv/hidden.py, which its deps do not name; add them there"
    )
