"""What the block `cost` says of a machine that runs several stages at once."""

import os
from pathlib import Path

import pytest

from flows import cost
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
    assert [cost.minutes(tmp_path, name) for name in ("judge@a", "invert", "other")] == [0.2, 2.0, 0.1]
    assert cost.at_once(wrote(tmp_path, "cost: {threads: 4096}")) == 1


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
