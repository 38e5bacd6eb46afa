"""The flow from a shell, against a real server: what runs, when, what is shown of it."""

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import flow_project
from flow_prefect import Server
from flow_project import STAGES, environment, flow, run, spans, turn, wait


def last(server: Server) -> Any:
    return server.runs()[0]


def test_a_first_run_computes_each_stage_once_in_order_and_independent_ones_at_once(
    fresh: Path, server: Server
) -> None:
    turn(fresh, row__left="meets", row__right="meets")  # else they fail
    done = flow(fresh, "--parallel", 2, PREFECT_API_URL=server.api)
    assert "Completed: 5 of 5 stages computed" in done.stderr
    times = spans(fresh)
    assert set(times) == set(STAGES)
    left, right = times["row@left"], times["row@right"]
    assert max(left[0], right[0]) < min(left[1], right[1])
    assert times["source"][1] <= min(left[0], right[0])
    assert times["join"][0] >= max(left[1], right[1])
    assert "up to date" in run(fresh, "dvc", "status").stdout

    flow_run = last(server)["id"]
    tasks = server.tasks(flow_run)
    names = {task["id"]: name for name, task in tasks.items()}
    drawn = {
        name: {names[need["id"]] for need in task["task_inputs"].get("wait_for", [])}
        for name, task in tasks.items()
    }
    assert drawn == {
        "plan": set(),
        "source": {"plan"},
        "alone": {"plan"},
        "row@left": {"source"},
        "row@right": {"source"},
        "join": {"row@left", "row@right"},
    }
    logs = server.logs(flow_run)
    assert "Running stage 'row@left':" in logs and not [line for line in logs if "git add" in line]

    artifacts = server.artifacts(flow_run)
    table = json.loads(artifacts["row-left"]["data"])
    values = {(row["cell"], row["metric"]): row["value"] for row in table}
    assert values.pop(("", "seconds")) >= 0  # the one that comes last need not wait for the other
    assert values == {
        ("", "accuracy"): 0.5,
        ("", "gap"): 0.1,
        ("seed-0", "loss"): 1.5,
        ("seed-0", "seconds"): 0.1,
    }
    assert artifacts["row-left"]["task_run_id"] == tasks["row@left"]["id"]
    assert {"stages", "source", "alone", "row-right", "join"} <= set(artifacts)


def test_what_is_up_to_date_is_not_launched_and_one_at_a_time_means_it(done: Path, server: Server) -> None:
    said = flow(done, PREFECT_API_URL=server.api).stderr
    assert "nothing to do: all 5 stages are up to date" in said
    # Another second changes the output, hence the stage after it; another tenth does not.
    turn(done, row__left=1.1, alone=0.2)
    flow(done, "join", PREFECT_API_URL=server.api)
    assert set(spans(done)) == {"row@left", "join"}
    turn(done, row__left=1.2)
    flow(done, "--parallel", 1, PREFECT_API_URL=server.api)
    times = spans(done)
    assert set(times) == {"row@left", "alone"}
    first, second = sorted(times.values())
    assert first[1] <= second[0]
    tasks = server.tasks(last(server)["id"])
    assert tasks["join"]["state"]["name"] == "Unchanged"
    assert "source" not in tasks and "row@right" not in tasks


def test_a_failed_stage_stops_its_descendants_only_and_is_not_tried_again(done: Path, server: Server) -> None:
    turn(done, row__left="fails", row__right="pretends", alone=0.2)
    said = flow(done, code=1, PREFECT_API_URL=server.api).stderr.splitlines()
    assert said[-1] == "Failed: failed: row@left, row@right; not run, because they need them: 1"
    assert set(spans(done)) == {"alone"}
    flow_run = last(server)
    tasks = server.tasks(flow_run["id"])
    messages = {name: (tasks[name]["state"]["name"], tasks[name]["state"]["message"]) for name in tasks}
    assert messages["row@left"] == ("Failed", "row@left: error: toy.yaml: colour: 'blue' is not allowed")
    assert messages["row@right"][0] == "Failed" and "some/file" in messages["row@right"][1]
    assert messages["join"] == ("NotRun", "join: not run, because of row@left, row@right")
    assert tasks["join"]["state"]["type"] == flow_run["state"]["type"] == "FAILED"
    assert {tasks[name]["run_count"] for name in ("row@left", "row@right", "join")} == {1}


def test_a_stage_that_another_dvc_holds_is_tried_again(done: Path, server: Server) -> None:
    turn(done, row__left="hangs")
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", "row@left"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    other = subprocess.Popen(command, cwd=done, env=environment(), start_new_session=True, **quiet)  # type: ignore[call-overload]
    try:
        wait((done / "marks/row@left.pids").exists)
        flow_ = subprocess.Popen(
            [sys.executable, "-m", "flows.run", "row@left"],
            cwd=done,
            env=environment(PREFECT_API_URL=server.api),
            stderr=subprocess.PIPE,
            text=True,
        )
        wait(
            lambda: any(
                "Retry 1/6 will start 1.0 second(s) from now" in line
                for run in server.runs()[:1]  # the flow takes a moment to tell of itself
                for line in server.logs(run["id"])
            )
        )
        turn(done, row__left=0.3)
        shutil.rmtree(done / "marks")
    finally:
        flow_project.kill(other)
    said = flow_.communicate(timeout=60)[1]
    assert flow_.returncode == 0, said
    assert set(spans(done)) == {"row@left"}


def test_other_parameters_run_in_a_copy_and_records_are_the_projects(done: Path, server: Server) -> None:
    before = (done / "out/row/left").read_text()
    shutil.rmtree(done / "out/row")  # not there, so that a run in the working tree would bring it back
    asked = ["join", "-S", "row.rows.left.seconds=1.1"]
    env = {"PREFECT_API_URL": server.api, "MIPRIV_PUBLISH": "on"}
    flow(done, *asked, **env)
    assert run(done, "git", "status", "--porcelain").stdout == "" and not (done / "out/row").exists()
    (copy,) = (done / ".scales").iterdir()
    assert set(spans(copy)) == {"row@left", "join"} and (copy / "out/row/left").read_text() != before

    artifacts = server.artifacts(last(server)["id"])
    link = artifacts["mlflow-row-left"]["data"]
    with contextlib.closing(sqlite3.connect(done / "mlflow.db")) as store:
        ((number,),) = store.execute("SELECT experiment_id FROM experiments WHERE name = 'mipriv'")
        stages = store.execute("SELECT value FROM tags WHERE key = 'mipriv.stage'").fetchall()
    assert f"http://127.0.0.1:5000/#/experiments/{number}/runs?searchFilter=" in link
    assert ("row@left",) in stages
    assert "mlflow-join" in artifacts and "mlflow-source" not in artifacts

    again = flow(done, *asked, **env).stderr
    assert "nothing to do: all 4 stages are up to date" in again


def test_mistakes_are_one_line_and_change_nothing(done: Path, server: Server) -> None:
    said = flow(done, "-S", "join.second=2", code=1, PREFECT_API_URL=server.api).stderr
    assert "Failed: overrides: 'join.second' is no key of params.yaml" in said and "Traceback" not in said
    assert "allowed: key=value" in flow(done, "-S", "join", code=2).stderr
    assert spans(done) == {} and run(done, "git", "status", "--porcelain").stdout == ""
