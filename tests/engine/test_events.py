"""Event files: what is written, what is refused, what a killed writer leaves."""

import hashlib
import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mipriv.errors import InputError
from tasks.engine import events
from tasks.engine.events import Events


def writer(root: Path) -> Events:
    return Events(root / "out" / "events.jsonl", root, root, "finetune", "none", None)


def of(lines: list[events.Line], kind: str) -> list[events.Line]:
    return [line for line in lines if line["event"] == kind]


def test_what_is_recorded_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "grid.png").write_bytes(b"pixels")
    before = datetime.now(UTC)
    with writer(tmp_path) as log:
        log.params({"epochs": 3, "recipe": {"lr": 0.1}})
        log.metrics({"loss": 0.5, "accuracy": 1}, step=7)
        log.metric("top1", 0.25)
        log.artifact(tmp_path / "grid.png", kind="image", name="plots/grid.png")
        log.input("data", "abc", tmp_path / "out" / "data")
        log.input("elsewhere", "abc", tmp_path.parent)
        log.text("device", "cpu")
        assert not events.ended(tmp_path / "out" / "events.jsonl")
    lines = events.read(tmp_path / "out" / "events.jsonl")
    assert events.ended(tmp_path / "out" / "events.jsonl")
    assert lines == log.lines
    kinds = ["start", "params", "metric", "metric", "artifact", "input", "input", "text", "end"]
    assert [line["event"] for line in lines] == kinds
    assert {key: lines[0][key] for key in ("stage", "row", "cell")} == {
        "stage": "finetune",
        "row": "none",
        "cell": None,
    }
    assert lines[1]["values"] == {"epochs": 3, "recipe": {"lr": 0.1}}
    assert (lines[2]["values"], lines[2]["step"], lines[3]["step"]) == (
        {"loss": 0.5, "accuracy": 1.0},
        7,
        None,
    )
    digest = hashlib.sha256(b"pixels").hexdigest()
    assert (
        lines[4]["path"] == "grid.png"
        and lines[4]["sha256"] == digest
        and lines[4]["name"] == "plots/grid.png"
    )
    assert [line["path"] for line in of(lines, "input")] == ["out/data", None]
    assert lines[-1]["status"] == "finished" and lines[-1]["seconds"] >= 0
    times = [datetime.fromisoformat(line["time"]) for line in lines]
    assert times == sorted(times) and abs((times[0] - before).total_seconds()) < 5
    assert all(time.utcoffset() is not None for time in times)


def test_lines_are_in_the_file_before_the_end(tmp_path: Path) -> None:
    with writer(tmp_path) as log:
        log.metric("loss", 1.0)
        assert [line["event"] for line in events.read(tmp_path / "out" / "events.jsonl")] == [
            "start",
            "metric",
        ]


def test_without_a_path_lines_stay_in_memory(tmp_path: Path) -> None:
    with Events(None, tmp_path, tmp_path, "a", None, None) as log:
        log.metric("loss", 1.0)
    assert [line["event"] for line in log.lines] == ["start", "metric", "end"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_metric_that_is_not_finite_is_kept_and_named(tmp_path: Path, value: float) -> None:
    with writer(tmp_path) as log:
        log.metrics({"loss": value, "accuracy": 0.5})
    line = of(events.read(tmp_path / "out" / "events.jsonl"), "metric")[0]
    assert line["values"] == {"loss": str(value), "accuracy": 0.5}
    assert line["nonfinite"] == ["loss"]
    assert str(float(line["values"]["loss"])) == str(value)


@pytest.mark.parametrize(
    ("error", "said"), [(InputError("no data"), "InputError: no data"), (KeyError("s3cret"), "KeyError")]
)
def test_a_failure_is_recorded_and_passes_on(tmp_path: Path, error: Exception, said: str) -> None:
    with pytest.raises(type(error)), writer(tmp_path):
        raise error
    end = events.read(tmp_path / "out" / "events.jsonl")[-1]
    assert (end["event"], end["status"], end["error"]) == ("end", "failed", said)
    assert "s3cret" not in (tmp_path / "out" / "events.jsonl").read_text()


def test_values_of_environment_variables_stay_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "HOME"):
        monkeypatch.setenv(name, "/hush-hush")
    with writer(tmp_path) as log:
        log.params({"a": 1})
    assert "hush" not in (tmp_path / "out" / "events.jsonl").read_text()


@pytest.mark.parametrize("name", ["", "/abs", "../up", "a//b", "a#b", ".hidden", "x" * 201, "a\nb"])
def test_names_that_no_tracking_server_takes_are_refused(tmp_path: Path, name: str) -> None:
    with writer(tmp_path) as log:
        with pytest.raises(ValueError, match="cannot name a record"):
            log.metric(name, 1.0)
        with pytest.raises(ValueError, match="cannot name a record"):
            log.input(name, "digest")
        with pytest.raises(ValueError, match="cannot name a record"):
            log.text(name, "text")


def test_artifacts_outside_of_the_root_and_twice_named_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "a.txt").touch()
    (tmp_path / "root" / "b.txt").touch()
    with Events(None, tmp_path / "root", tmp_path, "a", None, None) as log:
        with pytest.raises(ValueError, match="not in the subpath"):
            log.artifact(tmp_path / "a.txt")
        log.artifact(tmp_path / "root" / "b.txt")
        with pytest.raises(ValueError, match="recorded twice"):
            log.artifact(tmp_path / "root" / "b.txt")


@pytest.mark.parametrize("cut", [1, 2, 10, 40])
def test_half_a_last_line_is_reported_and_the_rest_is_read(tmp_path: Path, cut: int) -> None:
    with writer(tmp_path) as log:
        log.text("note", "ä" * 30)
    file = tmp_path / "out" / "events.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    lines = events.read(file)
    assert lines[:2] == log.lines[:2]
    # Only the newline gone: the event itself is whole.
    assert lines[2] == (log.lines[2] if cut == 1 else {"event": "truncated", "line": 3})
    assert not events.ended(file)


@pytest.mark.parametrize("line", ["{broken", "[1, 2]", '{"no": "event"}', "7"])
def test_damage_elsewhere_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(f'{{"event": "start"}}\n{line}\n{{"event": "end"}}\n')
    with pytest.raises(InputError, match=r"events\.jsonl, line 2: not an event"):
        events.read(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.jsonl: cannot be read \(No such file"):
        events.read(tmp_path / "absent.jsonl")


def git(root: Path, *arguments: str) -> str:
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@a",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@a",
    }
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, **identity}
    ).stdout.strip()


def test_commit_and_dirt_are_recorded_dvc_lock_apart(tmp_path: Path) -> None:
    def seen() -> object:
        events._git.cache_clear()
        with Events(None, tmp_path, tmp_path, "a", None, None) as log:
            return log.lines[0]["git"]

    assert seen() == {"commit": None, "dirty": None}
    git(tmp_path, "init", "--quiet")
    for name in ("dvc.lock", "code.py"):
        (tmp_path / name).write_text("1")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert seen() == {"commit": commit, "dirty": False}
    (tmp_path / "dvc.lock").write_text("2")
    assert seen() == {"commit": commit, "dirty": False}
    (tmp_path / "new.py").write_text("1")
    assert seen() == {"commit": commit, "dirty": True}


def test_a_cells_events_are_embedded_whole(tmp_path: Path) -> None:
    with Events(None, tmp_path, tmp_path, "a", None, "seed-0") as cell:
        cell.metric("loss", 1.0)
    with writer(tmp_path) as log:
        log.cell("seed-0", "k" * 64, True, tmp_path / "out" / "seed-0", cell.lines)
    line = json.loads((tmp_path / "out" / "events.jsonl").read_text().splitlines()[1])
    assert line["folder"] == "out/seed-0" and line["resumed"] is True and line["events"] == cell.lines
