"""The loop over cells: order, refusals, and what is said meanwhile."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import engine_toys
import pytest
from engine_processes import HERE, ROOT

from mipriv.errors import InputError
from tasks.engine import fanout, progress
from tasks.engine.cells import Cell, Place


def square(name: str, seed: int, place: Place) -> Cell:
    return Cell(name, "engine_toys:square", {"seed": seed, "log": str(place.root / "log")})


def test_cells_run_in_the_order_given(place: Place) -> None:
    work = [square(f"seed-{seed}", seed, place) for seed in (2, 0, 1)]
    results = fanout.run(work, place)
    assert engine_toys.ran(place.root / "log") == [2, 0, 1]
    assert list(results) == ["seed-2", "seed-0", "seed-1"]
    assert [(r.files / "seed.txt").read_text() for r in results.values()] == ["2", "0", "1"]


def test_a_users_mistake_passes_as_it_is(place: Place) -> None:
    with pytest.raises(InputError) as refused:
        fanout.run([Cell("a", "engine_toys:refuses", {})], place)
    assert str(refused.value) == "finetune.epochs: 0 is not allowed" and not hasattr(
        refused.value, "__notes__"
    )


def test_a_bug_names_its_cell(place: Place) -> None:
    with pytest.raises(ZeroDivisionError, match="a bug") as broken:
        fanout.run([square("good", 1, place), Cell("seed-1/ids-000", "engine_toys:breaks", {})], place)
    assert broken.value.__notes__ == ["in cell seed-1/ids-000 of toy@row"]


@pytest.mark.parametrize("name", ["", ".", "/a", "../a", "a/../b", "a/", "a//b"])
def test_a_name_that_is_no_relative_path_is_refused(place: Place, name: str) -> None:
    with pytest.raises(ValueError, match="a name is a relative path"):
        fanout.run([square(name, 1, place)], place)


def test_a_name_or_a_key_given_twice_is_refused_before_any_work(place: Place) -> None:
    with pytest.raises(ValueError, match="a name is a relative path that no other has"):
        fanout.run([square("a", 1, place), square("a", 2, place)], place)
    with pytest.raises(ValueError, match="cells seed-0 and seed-1 are the same work"):
        fanout.run([square("seed-0", 7, place), square("seed-1", 7, place)], place)
    assert engine_toys.ran(place.root / "log") == []


def test_without_a_terminal_lines_are_sparse(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    fanout.run([square(f"seed-{seed}", seed, place) for seed in range(2)], place)
    assert capsys.readouterr().err == "toy@row  seed-0  done in 0:00\ntoy@row  seed-1  done in 0:00\n"


def test_a_line_has_cell_percent_and_estimate(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    fanout.run([square("seed-0", 0, place)], place)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "toy@row  seed-0  33%  eta 0:00"
    assert len(lines) == 4


def test_the_estimate_is_of_the_whole_stage_and_leaves_kept_cells_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    now = [0.0]
    monkeypatch.setattr("tasks.engine.progress.time.monotonic", lambda: now[0])
    with progress.Progress("toy", 4) as shown:
        shown.part("a")
        shown.end("a", resumed=True, seconds=3700)
        shown.part("b")
        now[0] += 100
        shown.end("b", resumed=False, seconds=100)
        tick = shown.part("c")
        now[0] += 50
        tick(1, 2)  # 1.5 of 3 parts took 150 s
    assert capsys.readouterr().err.splitlines() == [
        "toy  a  kept, was done in 1:01:40", "toy  b  done in 1:40", "toy  c  50%  eta 2:30",
    ]  # fmt: skip


def test_a_terminal_gets_a_bar_with_an_estimate(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}"}
    code = (
        "import sys, engine_toys; from tasks.engine import progress; progress.BAR_EVERY = 0; "
        "engine_toys.main('square', sys.argv[1])"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, env=environment, stderr=theirs, timeout=300, check=False)
    os.close(theirs)
    said = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.returncode == 0, said
    assert re.search(r"toy  seed-1 +\d+% \|.*\| .*eta 0:00", said), said


def test_nothing_to_do_is_nothing(place: Place) -> None:
    assert fanout.run([], place) == {}
