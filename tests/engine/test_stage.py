"""A whole stage, run by DVC in a project of its own."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from engine_processes import COMMAND, Launch, dvc

from mipriv.errors import InputError
from tasks.engine import events, runtime
from tasks.engine.cells import Cell
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch

HIDDEN = "error: dvc.yaml: toy@plain: imports mipriv/hidden.py, which its deps do not name; add them there"


def direct(project: Path, start: Launch, **env: str) -> tuple[int, str]:
    """The stage's own command, as DVC would give it."""
    process = start(*COMMAND, cwd=project, path=project, env=env)
    _, said = process.communicate(timeout=300)
    return process.returncode, said


def recorded(project: Path, name: str = "x") -> list[events.Line]:
    return events.read(project / "out" / "events" / f"{name}.jsonl")


def test_dvc_runs_it_and_the_results_are_there(project: Path) -> None:
    done = dvc(project, "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    sums = {path.parent.relative_to(project / "out" / "toy").as_posix(): path.read_text()
            for path in (project / "out" / "toy").rglob("sum.txt")}  # fmt: skip
    assert sums == {
        "plain/seed-0": "11.0",
        "plain/seed-1": "12.0",
        "other/seed-0": "111.0",
        "other/seed-1": "112.0",
    }
    lines = recorded(project, "toy/other")
    assert [line["event"] for line in lines] == [
        "start",
        "params",
        "cell",
        "cell",
        "metric",
        "artifact",
        "end",
    ]
    assert (lines[0]["stage"], lines[0]["row"]) == ("toy", "other")
    assert lines[1]["values"] == {"seeds": [0, 1], "row": {"kind": "other", "offset": 10.0}}
    assert lines[2]["folder"] == "out/toy/other/seed-0" and not lines[2]["resumed"]
    inner = {line["event"]: line for line in lines[2]["events"]}
    assert inner["metric"]["values"] == {"sum": 110.0}
    assert inner["input"]["digest"] and inner["start"]["cell"] == "seed-0"
    assert lines[5]["path"] == "out/toy/other/seed-0/sum.txt"
    assert dvc(project, "status", "--quiet").returncode == 0


def test_it_says_first_what_it_will_take(project: Path, start: Launch) -> None:
    _, said = direct(project, start)
    assert said.splitlines()[0] == "toy@plain: 2 cells, about 0.1 min"
    (project / "params.yaml").write_text(
        (project / "params.yaml").read_text().replace("toy: {minutes", "x: {minutes")
    )
    _, said = direct(project, start)
    assert said.splitlines()[0] == "toy@plain: 2 cells"


def test_a_restart_keeps_cells_and_their_time(project: Path, start: Launch) -> None:
    assert direct(project, start)[0] == 0
    first = recorded(project)
    assert direct(project, start)[0] == 0
    second = recorded(project)
    assert [line["resumed"] for line in first if line["event"] == "cell"] == [False, False]
    assert [line["resumed"] for line in second if line["event"] == "cell"] == [True, True]
    assert second[2]["events"] == first[2]["events"]


@pytest.mark.parametrize(
    ("toy", "code", "said", "error"),
    [
        ("refuses", 2, "error: data.txt: no good", "InputError: data.txt: no good"),
        ("imports", 2, HIDDEN, None),
        ("cell imports", 2, HIDDEN, None),
    ],
)  # fmt: skip
def test_a_users_mistake_is_one_line_and_code_2(
    project: Path, start: Launch, toy: str, code: int, said: str, error: str | None
) -> None:
    got, lines = direct(project, start, TOY=toy)
    assert (got, [line for line in lines.splitlines() if not line.startswith("toy@plain")]) == (code, [said])
    end = recorded(project)[-1]
    assert (end["event"], end["status"]) == ("end", "failed")
    assert end["error"] == (error or f"InputError: {said.removeprefix('error: ')}")


def test_a_cell_that_imports_an_unnamed_file_is_not_stored(project: Path, start: Launch) -> None:
    assert direct(project, start, TOY="cell imports")[0] == 2
    assert not list(project.glob(".cells/*/cell.json"))


def test_dvc_refuses_to_record_an_unnamed_import_until_it_is_named(project: Path) -> None:
    failed = dvc(project, "repro", "toy@plain", TOY="imports")
    assert failed.returncode != 0 and "mipriv/hidden.py, which its deps do not name" in failed.stderr
    assert not (project / "dvc.lock").exists()
    definition = project / "dvc.yaml"
    definition.write_text(definition.read_text().replace("mipriv/errors.py", "mipriv"))
    definition.write_text(definition.read_text().replace("        - mipriv/plugin.py\n", "")
                          .replace("        - mipriv/kind_${item.kind}.py\n", ""))  # fmt: skip
    named = dvc(project, "repro", "toy@plain", TOY="imports")
    assert named.returncode == 0, named.stderr


def test_a_file_without_statements_need_not_be_named(project: Path, start: Launch) -> None:
    code, said = direct(project, start, TOY="imports nothing")
    assert code == 0, said


def test_another_rows_source_is_no_source_of_this_one(project: Path) -> None:
    code = (
        "from pathlib import Path; from tasks.engine import imports;"
        "print(*imports.named_by_dvc('toy@other', Path.cwd()), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [
        "mipriv/errors.py", "mipriv/kind_other.py", "mipriv/plugin.py", "tasks/__init__.py", "tasks/engine",
        "tasks/toy.py",
    ]  # fmt: skip


@pytest.mark.parametrize("left", ["", "{", "{}", "[]", '{"toy@plain": 3}'])
def test_what_is_kept_of_dvc_is_no_source_of_errors(project: Path, start: Launch, left: str) -> None:
    """It is asked again where that is of no use; a kept answer is one for the files as they are."""
    assert direct(project, start, TOY="imports")[0] == 2
    (kept,) = (project / ".dvc" / "tmp").glob("sources-*.json")
    answer = json.loads(kept.read_text())
    kept.write_text(left)
    code, said = direct(project, start, TOY="imports")
    assert code == 2 and "mipriv/hidden.py, which its deps do not name" in said, said
    assert json.loads(kept.read_text()) == answer


@pytest.mark.parametrize("left", ["schema: '2.0'\nstages: 3\n", "schema: '2.0'\nstages:\n  toy@pl"])
def test_a_lock_file_that_another_dvc_is_writing_is_nothing_to_a_stage(
    project: Path, start: Launch, left: str
) -> None:
    """Of several at once one may end, and half of `dvc.lock` be there, while another begins."""
    (project / "dvc.lock").write_text(left)
    code, said = direct(project, start, TOY="imports nothing")
    assert code == 0, said


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: (p / "dvc.yaml").unlink(), "dvc.yaml: toy@plain: 'dvc.yaml' does not exist"),
        (lambda p: (p / "dvc.yaml").write_text("stages: {}\n"), "dvc.yaml: toy@plain: "),
        (lambda p: (p / "params.yaml").write_text("toy: {}\n"), "params.yaml: toy.seeds: is missing"),
        (lambda p: (p / "params.yaml").write_text("a: {}\n"), "params.yaml: block: 'toy' does not exist"),
        (lambda p: shutil.rmtree(p / ".dvc"), "dvc.yaml: toy@plain: "),
    ],
)  # fmt: skip
def test_a_broken_project_is_one_line(project: Path, start: Launch, change: Any, says: str) -> None:
    change(project)
    code, said = direct(project, start)
    assert (code, said.count("\n")) == (2, 1), said
    assert said.startswith(f"error: {says}")


def test_an_unknown_row_or_option_is_refused(project: Path, start: Launch) -> None:
    process = start(*COMMAND[:-1], "plane", cwd=project, path=project)
    assert (
        process.communicate()[1]
        == "error: params.yaml: row: 'plane' does not exist (did you mean 'plain'?); allowed: other, plain\n"
    )
    assert process.returncode == 2
    process = start(*COMMAND, "--seed", "3", cwd=project, path=project)
    assert "unrecognized arguments: --seed 3" in process.communicate()[1]
    process = start(*COMMAND[:2], cwd=project, path=project)
    assert "required: --data, --out, --events" in process.communicate()[1]


def test_a_bug_is_a_traceback_code_1_and_a_failed_record(project: Path, start: Launch) -> None:
    code, said = direct(project, start, TOY="breaks")
    assert code == 1 and "Traceback" in said and "a bug with a secret" in said
    end = recorded(project)[-1]
    assert (end["status"], end["error"]) == ("failed", "ZeroDivisionError")


def test_sigterm_ends_the_record(project: Path, start: Launch) -> None:
    process = start(*COMMAND, cwd=project, path=project, env={"TOY": "waits"})
    until = time.monotonic() + 300
    while not (project / "waiting").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == 128 + signal.SIGTERM
    assert (recorded(project)[-1]["event"], recorded(project)[-1]["status"]) == ("end", "failed")


def test_torch_that_comes_too_late_is_refused(project: Path, start: Launch) -> None:
    code, said = direct(project, start, TOY="torch")
    assert code == 1 and "import it at the top of the module" in said


def test_torch_is_deterministic_and_has_its_threads() -> None:
    import torch

    runtime.settle(2)
    assert torch.get_num_threads() == 2 and torch.are_deterministic_algorithms_enabled()
    runtime.check("here")
    torch.use_deterministic_algorithms(False)
    with pytest.raises(RuntimeError, match="here: torch is not deterministic"):
        runtime.check("here")


class Nothing(Block):
    """The block of a stage that is this test module."""

    seeds: list[int]


def run(stage: Stage[Nothing]) -> None:
    assert stage.deps is None and stage.address == "test_stage" and stage.path("data") == Path("data.txt")
    assert stage.params.seeds == [5] and stage.cost.threads == 1 and stage.seconds >= 0
    assert stage.block("other", Nothing).seeds == [6]
    with pytest.raises(InputError, match=r"params\.yaml: block: 'absent' does not exist"):
        stage.block("absent", Nothing)
    with stage.progress() as progress:
        progress.part("reading")(1, 1)
    cell = Cell("seed-5", "engine_toys:square", {"seed": 5, "log": "log"})
    assert (stage.cells([cell])["seed-5"] / "seed.txt").read_text() == "5"


def test_outside_of_dvc_it_runs_unchecked_only_if_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cost = {"device": "cpu", "threads": 1, "gpus": 0, "retries": 0, "stages": {}}
    values = {"test_stage": {"seeds": [5]}, "other": {"seeds": [6]}, "cost": cost}
    (tmp_path / "params.yaml").write_text(json.dumps(values))
    argv = ["--data", "data.txt", "--out", "out", "--events", "events.jsonl"]
    handler = signal.getsignal(signal.SIGTERM)
    assert launch(run, ["data"], Nothing, argv, deps=None) == 0
    assert {"event": "text", "key": "deps"}.items() <= events.read(tmp_path / "events.jsonl")[-2].items()
    assert signal.getsignal(signal.SIGTERM) is handler
    assert launch(run, ["data"], Nothing, argv) == 2  # not silently: this is no DVC project


def test_publishing_is_on_or_off(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MIPRIV_PUBLISH", "no")
    assert launch(run, [], Nothing, ["--out", "o", "--events", "e"], deps=None) == 2
    assert capsys.readouterr().err == "error: MIPRIV_PUBLISH: 'no' does not exist; allowed: off, on\n"
