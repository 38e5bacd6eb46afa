"""Cells on a real Ray head: results and errors as in process, and no more at once than fits."""

import json
import os
import re
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import engine_remote
import engine_toys
import pytest
from engine_processes import COMMAND, ROOT, Launch, dvc

from mipriv.errors import InputError
from tasks.engine import fanout, sealed
from tasks.engine.cells import Cell, Place
from tasks.engine.progress import Progress

pytestmark = pytest.mark.usefixtures("on_ray")


def squares(place: Place, count: int) -> list[Cell]:
    log = str(place.root / "log")
    return [Cell(f"seed-{s}", "engine_toys:square", {"seed": s, "log": log}) for s in range(count)]


def test_the_same_bytes_as_in_process_on_as_many_threads(tmp_path: Path, start: Launch) -> None:
    """Each in a process of its own, which has not torch's threads set by the tests before."""
    for name, more in (("there", {"MIPRIV_DATA": "some/where"}), ("here", {"RAY_ADDRESS": ""})):
        (tmp_path / name).mkdir()
        process = start(engine_remote.__file__, "torch", tmp_path / name, 2, env=more)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    there, here = (
        {path.name: path.read_bytes() for path in tmp_path.glob(f"{name}/.cells/*/files/*")}
        for name in ("there", "here")
    )
    assert there["numbers.safetensors"] == here["numbers.safetensors"]
    facts = [json.loads(files["facts.json"]) for files in (there, here)]
    assert facts[0].pop("parent") == "raylet" != facts[1].pop("parent")
    assert facts[0] == {
        "folder": str(tmp_path / "there"),
        "threads": 2,
        "deterministic": True,
        "sources": [str(ROOT / "mipriv"), str(ROOT / "tasks")],
        "environment": {
            "MIPRIV_DATA": "some/where",
            "OMP_NUM_THREADS": "2",
            "MKL_NUM_THREADS": "2",
            "OPENBLAS_NUM_THREADS": "2",
        },
    }
    assert [fact["threads"] for fact in facts] == [2, 2]


@pytest.mark.parametrize(("gpus", "seen"), [(0, os.environ.get("CUDA_VISIBLE_DEVICES")), (0.5, "0")])
def test_a_cell_sees_the_gpu_that_is_kept_for_it_or_all(place: Place, gpus: float, seen: str | None) -> None:
    (result,) = fanout.run([Cell("a", "engine_remote:gpus", {})], replace(place, gpus=gpus)).values()
    assert (result.files / "gpus.txt").read_text() == str(seen)


def test_results_keep_their_order_and_what_is_there_is_kept(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = fanout.run(squares(place, 3), place)
    assert list(results) == ["seed-0", "seed-1", "seed-2"] and not any(r.resumed for r in results.values())
    assert sorted(engine_toys.ran(place.root / "log")) == [0, 1, 2]
    lines = sorted(capsys.readouterr().err.splitlines())
    assert lines == [f"toy@row  seed-{seed}  done in 0:00" for seed in range(3)]
    (results["seed-1"].files / "seed.txt").write_text("7")
    again = fanout.run(squares(place, 3), place)
    assert [result.resumed for result in again.values()] == [True, False, True]
    assert sorted(engine_toys.ran(place.root / "log")) == [0, 1, 1, 2]
    assert (
        "seed-1  stored result has an altered files/seed.txt: computing it again" in capsys.readouterr().err
    )
    assert all(sealed.damage(result.folder) is None for result in again.values())
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")  # where nobody listens: nobody is asked
    assert all(result.resumed for result in fanout.run(squares(place, 3), place).values())


def test_a_users_mistake_passes_as_it_is_and_what_is_done_is_kept(place: Place) -> None:
    work = [*squares(place, 2), Cell("a", "engine_toys:refuses", {}), *engine_remote.halves(place, 2)[1:]]
    with pytest.raises(InputError) as refused:
        fanout.run([*work[:3], Cell("half", work[3].function, work[3].kwargs)], place)
    assert str(refused.value) == "finetune.epochs: 0 is not allowed" and type(refused.value) is InputError
    assert not hasattr(refused.value, "__notes__")
    # The one that waits was stopped, and cleaned up.
    assert not [path for path in place.store.iterdir() if path.suffix in (".part", ".progress")]
    # Of the two before it, which share two CPUs, at least one was done before it began.
    done = len(list(place.store.glob("*/cell.json")))
    again = fanout.run(squares(place, 2), place).values()
    assert done >= 1 and sum(result.resumed for result in again) == done


@pytest.mark.parametrize(
    ("function", "kind", "said"), [("counted", ZeroDivisionError, "a bug"), ("odd", Exception, "an odd bug")]
)
def test_a_bug_names_its_cell_and_is_not_tried_again(
    place: Place, function: str, kind: type[Exception], said: str
) -> None:
    kwargs = {"log": str(place.root / "log")} if function == "counted" else {}
    with pytest.raises(kind, match=said) as broken:
        fanout.run([Cell("seed-1/ids-000", f"engine_remote:{function}", kwargs)], place)
    assert "in cell seed-1/ids-000 of toy@row" in broken.value.__notes__
    assert f"in {function}" in str(broken.value.__cause__)  # the traceback of the worker
    assert len(engine_toys.ran(place.root / "log")) == (function == "counted")


def test_ten_thousand_cells_wait_here_and_not_in_ray(place: Place) -> None:
    work = squares(place, 30)
    keys, waiting = fanout._keys(work, place), deque(work)
    left = []
    with Progress("toy", len(work)) as progress, fanout._cluster(place) as ray:
        for result in fanout._computed(ray, waiting, keys, place, progress):
            left.append(len(waiting))
            progress.end(result.name, result.resumed, result.seconds)
    room = 2 * fanout.QUEUED
    assert left[0] == 30 - room and left[-1] == 0
    assert all(len(work) - waits - done <= room for done, waits in enumerate(left))
    assert sorted(engine_toys.ran(place.root / "log")) == list(range(30))


@pytest.mark.parametrize(
    ("cost", "says"),
    [
        ({"threads": 3}, "cost.threads: 3; allowed: at most 2, the CPUs of the largest machine"),
        ({"gpus": 2}, "cost.gpus: 2; allowed: at most 1, the GPUs of the largest machine"),
    ],
)
def test_a_cell_that_fits_nowhere_is_refused(place: Place, cost: dict[str, Any], says: str) -> None:
    sizes = {"threads": 1, "gpus": 0, "retries": 0, **cost}
    with pytest.raises(InputError, match=re.escape(f"params.yaml: {says} in the Ray cluster")):
        fanout.run(squares(place, 1), Place(place.root, place.store, "toy", "row", **sizes))


@pytest.mark.parametrize(
    ("address", "says"),
    [
        (
            "127.0.0.1:9",
            "RAY_ADDRESS: no answer from '127.0.0.1:9' ([Errno 111] Connection refused); allowed:",
        ),
        ("auto", "RAY_ADDRESS: 'auto' is no address; allowed: host:port"),
        ("ray://127.0.0.1:9", "RAY_ADDRESS: 'ray://127.0.0.1:9' is no address; allowed: host:port"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(
    place: Place, monkeypatch: pytest.MonkeyPatch, address: str, says: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=re.escape(says)) as refused:
        fanout.run(squares(place, 1), place)
    assert "\n" not in str(refused.value)


def test_without_the_token_the_cluster_is_closed(tmp_path: Path, start: Launch) -> None:
    process = start(engine_remote.__file__, "half", tmp_path, 1, env={"RAY_AUTH_TOKEN": "0" * 64})
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    last = said.strip().splitlines()[-1]
    assert "does not take this driver" in last and "RAY_AUTH_TOKEN" in last and "0000" not in said


def test_a_stage_of_dvc_on_ray(project: Path, head: dict[str, str]) -> None:
    done = dvc(project, "repro", "toy@plain", **head)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project / "out/toy/plain/seed-1/sum.txt").read_text() == "12.0"


def test_a_worker_holds_its_imports_against_what_dvc_names(project: Path, start: Launch) -> None:
    process = start(*COMMAND, cwd=project, path=project, env={"MIPRIV_TOY": "cell imports"})
    _, said = process.communicate(timeout=60)
    hidden = (
        "error: dvc.yaml: toy@plain: imports mipriv/hidden.py, which its deps do not name; add them there"
    )
    assert (process.returncode, said.splitlines()[-1]) == (2, hidden)
    assert not list(project.glob(".cells/*/cell.json"))


def test_a_line_tells_how_far_cells_elsewhere_are(tmp_path: Path, start: Launch) -> None:
    process = start(engine_remote.__file__, "half", tmp_path, 1)
    seen = []
    for line in process.stderr:  # type: ignore[union-attr]
        seen.append(line)
        if re.fullmatch(r"toy@row  (.*, )?seed-1  50%(, .*)?  eta \d+:\d\d\n", line):
            (tmp_path / "gate").touch()
    assert process.wait(60) == 0 and (tmp_path / "gate").exists(), seen
