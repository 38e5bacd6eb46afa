"""What tests start as processes of their own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
Launch = Callable[..., subprocess.Popen[str]]  # of the fixture `start`

OPTIONS = {"data": "data.txt", "out": "out/x", "events": "out/events/x.jsonl", "row": "plain"}
COMMAND = ["-m", "tasks.toy", *(word for name, value in OPTIONS.items() for word in (f"--{name}", value))]


def dvc(project: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs DVC there; its stages find the copy of the engine, because DVC runs them in the project."""
    environment = {**os.environ, "PYTHONPATH": str(project), "DVC_NO_ANALYTICS": "1", **env}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Fails where the condition has not come true after so long."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not, and one may go while it is looked at."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
