"""The server's scheduler really makes runs, and they really complete, on the versions that are pinned.

Neither imports nor ``pip check`` see what breaks this: with SQLAlchemy 2.1 the server starts, and schedules
nothing.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from flow_prefect import Server, own_server
from flow_project import STAGES, environment, inside, run, spans, stop, wait


def test_a_scheduled_run_completes(fresh: Path, server: Server) -> None:
    own_server(fresh, server)
    command = [sys.executable, "-m", "flows.deploy", "--every", "10"]
    env = environment(PREFECT_RUNNER_POLL_FREQUENCY="1")
    with (fresh.parent / "log").open("wb") as log:
        deploy = subprocess.Popen(command, cwd=fresh, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        note = fresh / ".prefect" / "serving"
        wait(note.exists)
        server = Server(note.read_text(), note.parent)
        wait(
            lambda: [run for run in server.runs(auto_scheduled=True) if run["state"]["type"] == "COMPLETED"],
            90,
        )
        first = server.runs(auto_scheduled=True)[-1]
        assert first["created_by"]["type"] == "SCHEDULE"
        assert set(spans(fresh)) == set(STAGES) <= set(server.tasks(first["id"]))
        assert "up to date" in run(fresh, "dvc", "status").stdout
        os.kill(deploy.pid, signal.SIGINT)
        deploy.wait(120)
    finally:
        stop(deploy)
    wait(lambda: not inside(fresh) and not note.exists())
