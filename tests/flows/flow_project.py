"""A tiny DVC project whose stages take as long as its parameters say, and what tests ask of it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

PARAMS: dict[str, Any] = {
    "source": {"seconds": 0.1},
    "row": {"rows": {"left": {"seconds": 0.1}, "right": {"seconds": 0.1}}},
    "alone": {"seconds": 0.1},
    "join": {"seconds": 0.1},
    "cost": {"threads": 1, "ray": "always"},
}
STAGES = ["source", "row@left", "row@right", "alone", "join"]


def _stage(name: str, seconds: str, out: str, *inputs: str) -> dict[str, Any]:
    events = f"out/events/{name.replace('@', '/')}.jsonl"
    return {
        "cmd": f"python toy.py {name} {seconds} {out} {events} {' '.join(inputs)}",
        "deps": ["toy.py", *inputs],
        "outs": [out, events],
    }


def make(project: Path) -> Path:
    """source -> row@left, row@right -> join (which reads the rows' folder by name); alone stands apart."""
    row = _stage("row@${key}", "${item.seconds}", "out/row/${key}", "out/source")
    join = _stage("join", "${join.seconds}", "out/join", "out/row/left", "out/row/right")
    join["deps"] = ["toy.py", "out/row"]
    stages = {
        "source": _stage("source", "${source.seconds}", "out/source"),
        "row": {"foreach": "${row.rows}", "do": row},
        "alone": _stage("alone", "${alone.seconds}", "out/alone"),
        "join": join,
    }
    project.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "toy.py", project)
    (project / ".gitignore").write_text("/out/\n/marks/\n.prefect/\n.scales/\nmlflow.db*\nmlartifacts/\n")
    _dump(project / "dvc.yaml", {"stages": stages, "artifacts": {"events": {"path": "out/events"}}})
    _dump(project / "params.yaml", PARAMS)
    run(project, "git", "init", "-q")
    run(project, sys.executable, "-m", "dvc", "init", "-q")
    commit(project)
    return project


def commit(project: Path) -> None:
    run(project, "git", "add", "-A")
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    run(project, "git", *who, "commit", "-q", "--allow-empty", "-m", "tiny")


def turn(project: Path, **seconds: object) -> None:
    """Change how long stages take (``row__left=...`` for a row), or what goes wrong in them."""
    values = YAML(typ="safe").load((project / "params.yaml").read_text())
    for name, value in seconds.items():
        stage, _, row = name.partition("__")
        (values[stage]["rows"][row] if row else values[stage])["seconds"] = value
    _dump(project / "params.yaml", values)


def environment(**more: str) -> dict[str, str]:
    """Finds `flows` and `tasks` from anywhere; no server, tracking or Ray head unless a test asks."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "MIPRIV_", "PREFECT_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {
        **kept,
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "DVC_NO_ANALYTICS": "1",
        "MIPRIV_PUBLISH": "off",
        "MIPRIV_WARM": "off",  # toy stages import nothing
        "RAY_ADDRESS": "127.0.0.1:1",  # the toy stages have no cells, and never look
        **more,
    }


def run(
    project: Path, *command: object, code: int | None = 0, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command there and hold its exit code against `code` (None: any)."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=project, env=environment(**env), capture_output=True, text=True, check=False
    )
    assert code is None or done.returncode == code, (
        f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done


def flow(
    project: Path, *arguments: object, code: int | None = 0, **env: str
) -> subprocess.CompletedProcess[str]:
    """``python -m flows.run`` there."""
    return run(project, sys.executable, "-m", "flows.run", *arguments, code=code, **env)


def spans(project: Path) -> dict[str, tuple[float, float]]:
    """When each stage that ran to its end began and ended; asserts that none did twice. Forgets them."""
    found: dict[str, tuple[float, float]] = {}
    for mark in (project / "marks").glob("*.done"):
        name, begun, ended = mark.read_text().split()
        assert name not in found, f"{name} ran twice"
        found[name] = (float(begun), float(ended))
        mark.unlink()
    return found


def wait(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Until `condition` holds; fails after `seconds`."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "what the test waits for does not come"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants(pid: int) -> set[int]:
    """Processes that a process has started, and those that these have."""
    parents: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(process.name))
    found: set[int] = set()
    new = [pid]
    while new:
        new = [child for one in new for child in parents.get(one, [])]
        found |= set(new)
    return found


def inside(project: Path) -> list[str]:
    """Command lines of all processes whose working directory is in the project, or that name it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            folder = os.readlink(process / "cwd")
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if int(process.name) != os.getpid() and (folder.startswith(str(project)) or str(project) in command):
            found.append(f"{process.name} {command}")
    return found


def stop(process: "subprocess.Popen[Any]") -> None:
    """End what a test has started, if it still runs."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _dump(path: Path, values: object) -> None:
    """Whole or not at all, as somebody may be reading it."""
    new = path.with_suffix(".new")
    with new.open("w") as file:
        YAML(typ="safe").dump(values, file)
    new.replace(path)


def kill(process: "subprocess.Popen[Any]") -> None:
    """End a whole group at once."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
