"""A scheduled deployment end to end: servers on PostgreSQL, artifacts on S3, cells on two Ray nodes.

The commands are those at the head of `prefect.yaml`, with that very file, but for how often it runs.
"""

import contextlib
import json
import secrets
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flow_checkout
import pytest
from flow_prefect import Server
from flow_project import HERE, ROOT, commit, environment, stop, wait
from flow_services import variables


def deployed_often(project: Path) -> None:
    """Its own `prefect.yaml`, with a nightly run every few seconds."""
    shutil.copy(ROOT / "prefect.yaml", project)

    def often(described: Any) -> None:
        (nightly,) = (one for one in described["deployments"] if one["name"] == "nightly")
        assert nightly["schedules"] == [{"cron": "0 2 * * *", "timezone": "UTC", "active": False}]
        nightly["schedules"] = [{"interval": 20}]

    flow_checkout.edit(project / "prefect.yaml", often)
    commit(project)


@contextlib.contextmanager
def started(project: Path, log: Path, *command: object, **env: str) -> Iterator["subprocess.Popen[Any]"]:
    """A process that goes on until the context is left."""
    with log.open("wb") as file:
        words = [str(word) for word in command]
        pipe = subprocess.PIPE
        process = subprocess.Popen(words, cwd=project, env=env, stdin=pipe, stdout=file, stderr=file)
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        if process.args[1:2] != ["-m"]:  # nodes end by themselves; a worker wants a signal
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
        stop(process)


@contextlib.contextmanager
def nodes(folder: Path, access: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Two Ray nodes: their address, and the processes `raylets`."""
    note = folder / "nodes.json"
    with started(
        folder, folder / "nodes.log", sys.executable, HERE / "flow_nodes.py", note, **environment(**access)
    ):
        wait(note.exists)
        yield json.loads(note.read_text())


def runs_of(tracking: str) -> list[dict[str, Any]]:
    """Everything in MLflow's experiment."""
    asked = f"{tracking}/api/2.0/mlflow/experiments/get-by-name?experiment_name=mipriv"
    with urllib.request.urlopen(asked, timeout=30) as answer:
        number = json.load(answer)["experiment"]["experiment_id"]
    request = urllib.request.Request(
        f"{tracking}/api/2.0/mlflow/runs/search",
        data=json.dumps({"experiment_ids": [number], "max_results": 100}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: list[dict[str, Any]] = json.load(answer)["runs"]
    return found


def completed(server: Server) -> list[str]:
    """What scheduled runs said in the end, oldest first."""
    found = server.runs(auto_scheduled=True)[::-1]
    assert not [run for run in found if run["state"]["type"] in ("FAILED", "CRASHED")], found
    return [run["state"]["message"] for run in found if run["state"]["type"] == "COMPLETED"]


@pytest.mark.timeout(600)
def test_a_scheduled_run_on_postgresql_s3_and_two_nodes(served: Path, tmp_path: Path) -> None:
    project, known, marks = tmp_path / "project", variables(served), tmp_path / "marks"
    flow_checkout.make(project, seeds=2, seconds=4)
    deployed_often(project)
    marks.mkdir()
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    server = Server(known["PREFECT_API_URL"], tmp_path)
    with nodes(tmp_path, access) as ray:
        env = environment(
            **known,
            **access,
            RAY_ADDRESS=ray["address"],
            MIPRIV_MARKS=str(marks),
            PREFECT_HOME=str(tmp_path / "prefect"),
            PREFECT_WORKER_QUERY_SECONDS="2",
            PYTHONPATH=str(project),
            PWD=str(project),  # as a shell would have it, and prefect.yaml asks for it
        )
        del env["MIPRIV_PUBLISH"]
        prefect = [sys.executable, "-m", "prefect"]
        for words in (
            ["work-pool", "create", "mipriv", "--type", "process"],
            ["work-pool", "set-concurrency-limit", "mipriv", "1"],
            ["--no-prompt", "deploy", "--all"],
        ):
            done = subprocess.run([*prefect, *words], cwd=project, env=env, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        with started(
            project, tmp_path / "worker.log", *prefect, "worker", "start", "--pool", "mipriv", **env
        ):
            wait(lambda: len(completed(server)) >= 2, 400)
    first, second = completed(server)[:2]
    assert first == "2 of 2 stages computed"
    assert second == "nothing to do: all 2 stages are up to date"

    begun = flow_checkout.computed(marks)
    assert {name: len(nodes) for name, nodes in begun.items()} == {
        f"{kind}-{seed}": 1 for kind in ("plain", "other") for seed in (0, 1)
    }
    assert {node for nodes in begun.values() for node in nodes} == set(ray["raylets"])
    assert flow_checkout.sums(project) == flow_checkout.expected(2)
    found = runs_of(known["MLFLOW_TRACKING_URI"])
    assert len(found) == 6 and all(one["info"]["status"] == "FINISHED" for one in found)  # 2 stages, 4 cells
    bucket = served / ".services/s3/buckets/mipriv/mlflow"
    wait(lambda: len(list(bucket.rglob("sum.txt"))) == 2)  # one artifact a stage
