"""The Prefect server of this project: found, or started on a leash, on loopback only.

Its state is in PREFECT_HOME, which is the project's `.prefect` where the user sets nothing else.
"""

import atexit
import contextlib
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from flows import children
from flows.children import Child
from flows.project import environment, fail

HOST = "127.0.0.1"
PORT = 4200
PATIENCE = 120.0  # seconds until it answers; its first start makes a database


def free_port(wanted: int) -> int:
    """`wanted`, or the next port that nobody listens on."""
    for port in range(wanted, wanted + 100):
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)):
                return port
    fail(f"no free port from {wanted} to {wanted + 99}")


def attach(project: Path, announce: bool = False) -> str:
    """An address of Prefect's API, put into this process's environment; call it before Prefect is imported.

    That of PREFECT_API_URL; else of the server that ``make ui`` or ``python -m flows.deploy`` runs for this
    project; else of a new one, which ends with this process, however that ends.
    """
    api = os.environ.get("PREFECT_API_URL") or _announced(project)
    if api is None:
        # No context for the caller to leave: Prefect sends its last log lines and events when the interpreter
        # ends, just before this.
        server = contextlib.ExitStack()
        atexit.register(server.close)
        api = server.enter_context(started(project, announce=announce))
    os.environ["PREFECT_API_URL"] = api
    return api


@contextlib.contextmanager
def started(project: Path, port: int = PORT, announce: bool = False) -> Iterator[str]:
    """A new server on a leash, on `port` or the next free one; gives its API's address once it answers.

    Args:
        announce: let other processes of this project find it, by a note in PREFECT_HOME.
    """
    number = free_port(port)
    api = f"http://{HOST}:{number}/api"
    where = ["--host", HOST, "--port", str(number), "--log-level", "ERROR"]
    child = children.start(
        "prefect", "server", "start", *where, cwd=project, env=_settings(api), output=subprocess.DEVNULL
    )
    try:
        await_answer(f"{api}/health", child, "Prefect")
        with _announcement(project, api) if announce else contextlib.nullcontext():
            yield api
    finally:
        children.end(child)


def _settings(api: str) -> dict[str, str]:
    # Whatever answers from elsewhere, the browser is told this server's own address.
    return environment(PREFECT_API_URL=api, PREFECT_SERVER_UI_API_URL=api)


def await_answer(url: str, child: Child, name: str, patience: float = PATIENCE) -> None:
    """Wait until a server answers at an address.

    Raises:
        Mistake: it has ended, or does not answer for `patience` seconds.
    """
    until = time.monotonic() + patience
    while not _answers(url):
        if child.poll() is not None:
            fail(f"{name}'s server ended with code {child.returncode}")
        if time.monotonic() > until:
            fail(f"{name}'s server does not answer at {url}")
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _note(project: Path) -> Path:
    return Path(os.environ.get("PREFECT_HOME", project / ".prefect"), "serving")


def _announced(project: Path) -> str | None:
    try:
        api = _note(project).read_text(encoding="ascii")
    except OSError:
        return None
    return api if _answers(f"{api}/health") else None


@contextlib.contextmanager
def _announcement(project: Path, api: str) -> Iterator[None]:
    note = _note(project)
    note.write_text(api, encoding="ascii")
    try:
        yield
    finally:
        note.unlink(missing_ok=True)
