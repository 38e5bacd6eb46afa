"""What the block `cost` says of a machine that runs several stages at once."""

import contextlib
import os
from pathlib import Path

import pytest

from flows import cluster, cost
from flows.project import Mistake


def wrote(folder: Path, text: str) -> Path:
    (folder / "params.yaml").write_text(text)
    return folder


def test_threads_of_cells_and_how_many_stages_that_leaves_room_for(tmp_path: Path) -> None:
    usable = len(os.sched_getaffinity(0))
    wrote(
        tmp_path, "cost: {threads: 1, stages: {judge: {minutes: 0.2, threads: 4096}, invert: {minutes: 2}}}"
    )
    assert cost.threads(tmp_path) == [1, 4096] and cost.at_once(tmp_path) == cost.processors() == usable
    minutes = cost.minutes(tmp_path)
    assert [minutes(name) for name in ("judge@a", "invert", "other")] == [0.2, 2.0, 0.1]
    assert cost.at_once(wrote(tmp_path, "cost: {threads: 4096}")) == 1


def test_a_stage_fills_as_many_places_as_it_has_workers_but_on_ray(tmp_path: Path) -> None:
    stages = "shadows: {minutes: 2, workers: 2}, shadows@small: {minutes: 1}, judge: {minutes: 1}"
    wrote(tmp_path, f"cost: {{threads: 1, stages: {{{stages}}}}}")
    names = ("shadows", "shadows@digits", "shadows@small", "judge@a", "other")
    for shared, expected in ((False, [2, 2, 1, 1, 1]), (True, [1, 1, 1, 1, 1])):
        filled = cost.filled(tmp_path, shared)
        assert [filled(name) for name in names] == expected
    assert [cost.minutes(tmp_path)(name) for name in names] == [2, 2, 1, 1, 0.1]


@pytest.mark.parametrize("workers", ["0", "two", "1.5"])
def test_what_is_no_number_of_workers_is_one_line(
    workers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Mistake):
        cost.filled(
            wrote(tmp_path, f"cost: {{threads: 1, stages: {{shadows: {{workers: {workers}}}}}}}"),
            shared=False,
        )
    assert capsys.readouterr().err.startswith("error: params.yaml: cost.stages.shadows.workers: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cost: 3", "cost.threads: None"),
        ("cost: {threads: 1.5}", "cost.threads: 1.5"),
        ("cost: {threads: 1, stages: {judge: {threads: 0}}}", "cost.stages.judge.threads: 0"),
    ],
)
def test_what_is_no_number_of_threads_is_one_line(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Mistake):
        cost.threads(wrote(tmp_path, text))
    assert (
        capsys.readouterr().err
        == f"error: params.yaml: {said} is not allowed; allowed: a whole number above 0\n"
    )


def test_a_run_starts_ray_where_it_pays_or_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for processors, gpus, auto in ((2, 0, False), (4, 0, False), (5, 0, True), (2, 0.5, True)):
        monkeypatch.setattr(cost, "processors", lambda n=processors: n)
        for asked, expected in (("auto", auto), ("always", True), ("never", False)):
            assert cost.wants_ray(wrote(tmp_path, f"cost: {{gpus: {gpus}, ray: {asked}}}")) is expected
    assert isinstance(cluster.for_run(tmp_path), contextlib.nullcontext)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with cluster.for_run(tmp_path) as environment:
        assert environment == {}
    with pytest.raises(Mistake):
        cost.wants_ray(wrote(tmp_path, "cost: {ray: sometimes}"))
    assert "cost.ray: 'sometimes' is not allowed; allowed: auto, always, never" in capsys.readouterr().err
