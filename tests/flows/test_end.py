"""However a flow ends, nothing that it started is left: real signals, a real server, real cancellation."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flow_prefect import Server, own_server
from flow_project import alive, descendants, environment, inside, kill, spans, stop, turn, wait

from flows import children, graph, whole


@pytest.fixture
def hanging(done: Path) -> Path:
    """A project with a stage that never ends, and whose own child ignores SIGTERM."""
    turn(done, row__left="hangs", alone=0.2)
    return done


@pytest.fixture
def start() -> Iterator[Any]:
    """Starts ``python -m MODULE`` in a project; ends it at last, if it has to."""
    started: list[subprocess.Popen[bytes]] = []

    def launch(project: Path, *arguments: str, **env: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", *arguments]
        with (project.parent / "log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=project, env=environment(**env), stdout=log, stderr=log, start_new_session=True
            )
        started.append(process)
        return process

    yield launch
    for process in started:
        stop(process)


def pids(project: Path) -> list[int]:
    """Of the hanging stage, its child, and the shell or DVC above it; waits until they are there."""
    file = project / "marks/row@left.pids"
    wait(lambda: file.exists() and len(file.read_text().split()) == 3)
    found = [int(pid) for pid in file.read_text().split()]
    assert all(alive(pid) for pid in found)
    return found


def gone(project: Path, found: list[int]) -> None:
    """Nothing is left of the stage, nor anything else in the project's folder."""
    wait(lambda: not any(alive(pid) for pid in found) and not inside(project))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_stages_the_flows_own_server_and_its_ray_head(
    number: int, hanging: Path, start: Any, server: Server
) -> None:
    own_server(hanging, server)
    flow = start(hanging, "flows.run", RAY_ADDRESS="")
    found = pids(hanging)
    assert [line for line in inside(hanging) if "server start" in line]
    below = descendants(flow.pid)
    assert [pid for pid in below if "gcs_server" in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(flow.pid, number)
    assert flow.wait(120) != 0
    gone(hanging, found)
    wait(lambda: not any(alive(pid) for pid in below))


def test_a_signal_ends_a_whole_run_without_prefect(hanging: Path, start: Any) -> None:
    run_all = start(hanging, "flows.whole", RAY_ADDRESS="")
    found, below = pids(hanging), descendants(run_all.pid)
    os.kill(run_all.pid, signal.SIGINT)
    assert run_all.wait(120) != 0
    gone(hanging, found)
    wait(lambda: not any(alive(pid) for pid in below))


def test_a_run_ends_though_python_dropped_the_exception_of_its_signal(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "_terminated", threading.Event())
    with pytest.raises(SystemExit):  # here it is dropped, as by a destructor
        whole._terminate(signal.SIGTERM, None)
    stages = graph.read(done)
    with pytest.raises(SystemExit) as ended:
        whole._compute(done, stages, set(stages), {})
    assert ended.value.code == 128 + signal.SIGTERM


def test_control_c_ends_stages_and_is_told_to_the_server(hanging: Path, start: Any, server: Server) -> None:
    flow = start(hanging, "flows.run", PREFECT_API_URL=server.api)
    found = pids(hanging)
    os.kill(flow.pid, signal.SIGINT)
    assert flow.wait(120) == 130
    gone(hanging, found)
    assert server.runs()[0]["state"]["type"] == "CRASHED"


def test_a_run_from_a_shell_is_cancelled_from_the_browser(hanging: Path, start: Any, server: Server) -> None:
    flow = start(hanging, "flows.run", "--parallel", "2", PREFECT_API_URL=server.api)
    found = pids(hanging)
    run = server.runs()[0]["id"]
    wait(lambda: server.tasks(run).get("alone", {}).get("state_type") == "COMPLETED")
    server.cancel(run)
    assert flow.wait(120) == 1
    gone(hanging, found)
    state = server.ask(f"flow_runs/{run}")["state"]
    assert state["type"] == "CANCELLED" and state["message"] == "cancelled after 1 of 3 stages"
    assert server.tasks(run)["row@left"]["state"]["name"] == "Ended"


def test_a_run_of_a_deployment_is_cancelled_from_the_browser(
    hanging: Path, start: Any, server: Server
) -> None:
    deploy = start(hanging, "flows.deploy", PREFECT_API_URL=server.api)
    wait(lambda: len(server.deployments()) == 2)
    made = server.deployments()
    assert not made["nightly"]["schedules"][0]["active"] and made["on-demand"]["schedules"] == []
    limits = {name: one["concurrency_options"]["collision_strategy"] for name, one in made.items()}
    assert limits == {"nightly": "CANCEL_NEW", "on-demand": "ENQUEUE"}

    asked = {"parameters": {"stages": ["row@left"], "parallel": 2}}
    run = server.ask(f"deployments/{made['on-demand']['id']}/create_flow_run", asked)["id"]
    found = pids(hanging)
    server.cancel(run)
    wait(lambda: server.ask(f"flow_runs/{run}")["state"]["type"] == "CANCELLED")
    wait(lambda: not any(alive(pid) for pid in found))
    assert spans(hanging) == {}
    os.kill(deploy.pid, signal.SIGINT)
    deploy.wait(120)
    gone(hanging, found)


def test_a_child_is_told_first_and_sees_no_input(tmp_path: Path) -> None:
    program = tmp_path / "polite.py"
    program.write_text(
        "import sys, signal, time\n"
        "def bye(*_):\n    open('bye', 'w').close(); sys.exit(3)\n"
        "signal.signal(signal.SIGTERM, bye)\n"
        "assert sys.stdin.read() == '' and sys.argv[1:] == ['a', '-b']\n"
        "open('ready', 'w').close()\n"
        "time.sleep(600)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    child = children.start("polite", "a", "-b", cwd=tmp_path, env=env)
    wait((tmp_path / "ready").exists)
    children.end(child)
    assert (tmp_path / "bye").exists() and child.returncode is not None
    try:
        kill(child)
    except ProcessLookupError:
        return
    pytest.fail("the group is still there")


def test_what_runs_to_its_end_gives_its_code_its_lines_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text(
        "import subprocess, sys\n"
        "print('one\\rtwo'); print('three', file=sys.stderr, flush=True)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, end='', flush=True)\n"
        "sys.exit(5)\n"
    )
    said: list[str] = []
    with children.Children(tmp_path, {**os.environ, "PYTHONPATH": str(tmp_path)}) as group:
        assert group.run("leaves", say=said.append) == 5
        left = int(said.pop())
        assert sorted(said) == ["one", "three", "two"]
        wait(lambda: not alive(left))
    assert group.run("leaves", say=said.append) == -signal.SIGTERM and len(said) == 3
