"""Cells in processes of their own: kills, two at once, the same bytes."""

import re
import signal
from pathlib import Path

import engine_toys
import pytest
from engine_processes import Launch, wait_for

from tasks.engine import sealed


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_starts_again_where_it_was(
    tmp_path: Path, start: Launch, log: Path, how: signal.Signals
) -> None:
    process = start(engine_toys.__file__, "gated", tmp_path)
    # Killed in the middle of the second of three cells, with half a file on the disk.
    halves = ".cells/*.part/files/half.txt"
    wait_for(
        lambda: engine_toys.ran(log) == [0, 1] and any(p.stat().st_size for p in tmp_path.glob(halves)),
        seconds=300,
    )
    process.send_signal(how)
    process.wait(300)
    assert process.returncode == -how
    assert len(list(tmp_path.glob(".cells/*/cell.json"))) == 1
    (tmp_path / "gate").touch()
    again = start(engine_toys.__file__, "gated", tmp_path)
    _, said = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert engine_toys.ran(log) == [0, 1, 1, 2]
    assert re.findall(r"(seed-\d)  (kept|done)", said) == [
        ("seed-0", "kept"),
        ("seed-1", "done"),
        ("seed-2", "done"),
    ]
    written = sorted(path.read_text() for path in tmp_path.glob(".cells/*/files/half.txt"))
    assert written == [f"first half, second half of {seed}" for seed in range(3)]
    assert not list(tmp_path.glob(".cells/*.part"))


@pytest.mark.parametrize("ignore", ["0", "1"])
def test_two_processes_on_one_cell_do_not_harm_each_other(
    tmp_path: Path, start: Launch, log: Path, ignore: str
) -> None:
    both = [
        start(engine_toys.__file__, "slow", tmp_path, env={"MIPRIV_IGNORE_CELLS": ignore}) for _ in range(2)
    ]
    for process in both:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    assert len(engine_toys.ran(log)) == (1 if ignore == "0" else 2)
    (result,) = (path.parent for path in tmp_path.glob(".cells/*/cell.json"))
    assert sealed.damage(result) is None
    assert len(list((result / "files").iterdir())) == 20
    assert not [path for path in (tmp_path / ".cells").iterdir() if path.suffix in (".part", ".old")]


def test_the_same_bytes_from_two_processes(tmp_path: Path, start: Launch) -> None:
    roots = [tmp_path / "one", tmp_path / "two"]
    for root in roots:
        root.mkdir()
        assert start(engine_toys.__file__, "square", root).wait(300) == 0
    first, second = (
        sorted((path.name, path.read_bytes()) for path in root.glob(".cells/*/files/**/*") if path.is_file())
        for root in roots
    )
    assert first == second and len(first) == 4
