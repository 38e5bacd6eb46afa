"""`make run`: independent stages at once without a server, on a terminal or not."""

import sys
from pathlib import Path

from flow_project import STAGES, run, spans, turn


def whole(project: Path, *arguments: str, code: int = 0) -> list[str]:
    """Lines on standard error."""
    return run(project, sys.executable, "-m", "flows.whole", *arguments, code=code).stderr.splitlines()


def test_independent_stages_at_once_each_once_and_never_again(fresh: Path) -> None:
    turn(fresh, row__left="meets", row__right="meets")  # each waits for the other, and fails without it
    said = whole(fresh, "join")
    assert {"source", "row@left", "row@right", "join"} == set(spans(fresh))
    assert "Running stage 'row@left':" in "\n".join(said) and not [line for line in said if "git add" in line]
    assert whole(fresh, "join") == ["nothing to do: all 4 stages are up to date"]
    assert spans(fresh) == {}
    whole(fresh, "alone")
    assert set(spans(fresh)) == set(STAGES) - {"source", "row@left", "row@right", "join"}


def test_a_failed_stage_is_named_with_its_reason_and_the_others_are_computed(done: Path) -> None:
    turn(done, row__left="fails", alone=0.2)
    said = whole(done, "alone", "join", code=1)
    assert said[-2:] == [
        "failed: row@left: error: toy.yaml: colour: 'blue' is not allowed",
        "not run, because they need them: 1 stages",
    ]
    assert set(spans(done)) == {"alone"}


def test_mistakes_are_one_line(done: Path) -> None:
    (line,) = whole(done, "jion", code=2)
    assert line.startswith("error: stages: 'jion' is neither a stage nor a row; allowed: ")
    values = (done / "params.yaml").read_text().replace("threads: 1", "threads: 0")
    (done / "params.yaml").write_text(values)
    turn(done, alone=0.3)
    (line,) = whole(done, "alone", code=2)
    assert line == "error: params.yaml: cost.threads: 0 is not allowed; allowed: a whole number above 0"
