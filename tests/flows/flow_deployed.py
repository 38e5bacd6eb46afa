"""A deployment of `prefect.yaml` that runs every few seconds, a worker of its pool, and two Ray nodes."""

import contextlib
import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import flow_checkout
from flow_prefect import Server
from flow_project import HERE, ROOT, commit, environment, stop, wait

PREFECT = (sys.executable, "-m", "prefect")


def deployed_often(project: Path, seconds: int = 20, stages: Sequence[str] = ()) -> None:
    """Its own `prefect.yaml`, with a nightly run every few seconds, of all stages or of some."""
    shutil.copy(ROOT / "prefect.yaml", project)

    def often(described: Any) -> None:
        (nightly,) = (one for one in described["deployments"] if one["name"] == "nightly")
        assert nightly["schedules"] == [{"cron": "0 2 * * *", "timezone": "UTC", "active": False}]
        nightly["schedules"] = [{"interval": seconds}]
        if stages:
            nightly["parameters"] = {"stages": list(stages)}

    flow_checkout.edit(project / "prefect.yaml", often)
    commit(project)


def deploy(project: Path, env: dict[str, str]) -> None:
    """The commands at the head of `prefect.yaml`, up to the worker's."""
    for words in (
        ["work-pool", "create", "mipriv", "--type", "process", "--overwrite"],
        ["work-pool", "set-concurrency-limit", "mipriv", "1"],
        ["--no-prompt", "deploy", "--all"],
    ):
        done = subprocess.run([*PREFECT, *words], cwd=project, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def at_work(project: Path, log: Path, env: dict[str, str]) -> "contextlib.AbstractContextManager[Any]":
    """A worker of the pool."""
    return started(project, log, *PREFECT, "worker", "start", "--pool", "mipriv", **env)


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
def nodes(folder: Path, access: dict[str, str], cpus: int = 1) -> Iterator[dict[str, Any]]:
    """Two Ray nodes of so many CPUs each: their address, and the processes `raylets`."""
    note = folder / "nodes.json"
    command = [sys.executable, HERE / "flow_nodes.py", note, cpus]
    with started(folder, folder / "nodes.log", *command, **environment(**access)):
        wait(note.exists)
        yield json.loads(note.read_text())


def runs_of(tracking: str) -> list[dict[str, Any]]:
    """Everything in MLflow's experiment."""
    asked = f"{tracking}/api/2.0/mlflow/experiments/get-by-name?experiment_name=mipriv"
    with urllib.request.urlopen(asked, timeout=30) as answer:
        number = json.load(answer)["experiment"]["experiment_id"]
    request = urllib.request.Request(
        f"{tracking}/api/2.0/mlflow/runs/search",
        data=json.dumps({"experiment_ids": [number], "max_results": 50000}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: list[dict[str, Any]] = json.load(answer)["runs"]
    return found


def completed(server: Server) -> list[str]:
    """What scheduled runs said in the end, oldest first."""
    found = [run for run in server.ended() if run["auto_scheduled"]]
    assert not [run for run in found if run["state"]["type"] in ("FAILED", "CRASHED")], found
    return [run["state"]["message"] for run in found if run["state"]["type"] == "COMPLETED"]
