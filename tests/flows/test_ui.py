"""``make ui``: both browsers answer, other processes find the server, and both end with it."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from flow_prefect import Server, own_server
from flow_project import environment, flow, inside, stop, wait


def test_both_browsers_answer_and_end_with_it(done: Path, server: Server) -> None:
    own_server(done, server)
    log = done.parent / "log"
    with log.open("wb") as file:
        command = [sys.executable, "-m", "flows.ui", "--mlflow-port", "5050", "--prefect-port", "4250"]
        ui = subprocess.Popen(
            command, cwd=done, env=environment(), stdout=file, stderr=file, start_new_session=True
        )
    try:
        wait(lambda: "Ctrl-C" in log.read_text())
        shown = dict(re.findall(r"^(Prefect|MLflow): +(http://127\.0\.0\.1:\d+)$", log.read_text(), re.M))
        prefect, mlflow = shown["Prefect"], shown["MLflow"]
        assert "MLflow" in page(mlflow) and "Prefect" in page(prefect)
        listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        for port in (prefect.rpartition(":")[2], mlflow.rpartition(":")[2]):
            number = f"{int(port):04X}"
            assert f" 0100007F:{number} " in listening and f"00000000:{number} 00000000" not in listening
        flow(done)  # with no address given
        assert "nothing to do" in Server(f"{prefect}/api", done).runs()[0]["state"]["message"]
        os.kill(ui.pid, signal.SIGINT)
        assert ui.wait(120) == 0
    finally:
        stop(ui)
    wait(lambda: not inside(done))
    assert not (done / ".prefect/serving").exists()


def page(address: str) -> str:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return str(answer.read().decode())
