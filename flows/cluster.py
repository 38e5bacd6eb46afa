"""One Ray head on this machine for a run, where one pays: it listens on loopback, and ends with the run.

Between the run and Ray stands a guard, this module run as a program. It holds the reading end of a pipe that
only the run can write to: when that closes, be it because the run was killed, the guard ends Ray's whole
process group and removes its folder.
"""

import contextlib
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flows.cost import processors, threads, wants_ray
from flows.project import fail

HOST = "127.0.0.1"
STORE = 80_000_000  # bytes of Ray's object store, about the least it takes: cells pass files, not objects
START, END = 90.0, 3.0  # seconds that Ray gets to start, and to end by itself
LONGEST = 40  # characters of its folder: sockets lie 65 deeper, and 107 is all that a socket's path may have


def for_run(project: Path) -> "contextlib.AbstractContextManager[dict[str, str]]":
    """What children of a run need in their environment: `local_head`, or nothing where it would not pay."""
    if os.environ.get("RAY_ADDRESS") or wants_ray(project):
        return local_head(project)
    return contextlib.nullcontext({})


@contextlib.contextmanager
def local_head(project: Path, cpus: int | None = None, gpus: int | None = None) -> Iterator[dict[str, str]]:
    """Start a Ray head, wait until it is healthy, and end it.

    With ``RAY_ADDRESS`` set, that cluster is used and nothing is started.

    Args:
        project: whose cells it has to be large enough for.
        cpus: that Ray may hand out; None: all that this process may use, yet enough for one cell.
        gpus: likewise; None: all that Ray finds.

    Yields:
        What children need in their environment to reach it, a random token among it that no file or command
        line holds.

    Raises:
        SystemExit: Ray did not start; one line says why.
    """
    if os.environ.get("RAY_ADDRESS"):
        yield {}
        return
    access = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray looks for an address that others can reach
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "10",  # of a minute, that stages wait for a head that died
    }
    guard = subprocess.Popen(
        [sys.executable, "-m", "flows.cluster", *_sizes(cpus or max(processors(), *threads(project)), gpus)],
        cwd=Path(__file__).resolve().parents[1],
        env={**patience(), **_plain(), **access},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C in a terminal reaches the run, which then ends Ray in its own time
        text=True,
    )
    assert guard.stdin is not None and guard.stdout is not None
    group = None
    try:
        kind, _, said = guard.stdout.readline().strip().partition(" ")
        if kind != "ready":
            fail(f"Ray did not start: {said or 'no reason given'}; `dvc repro` needs none")
        group, _, address = said.partition(" ")
        yield {**access, "RAY_ADDRESS": address}
    finally:
        guard.stdin.close()
        guard.stdout.close()
        if guard.wait() and group:  # the guard itself was killed
            _kill(int(group))


def patience() -> dict[str, str]:
    """What every node has to start with: else it ends cells that take longer than 50 s (docs/cluster.md)."""
    kept = Path(__file__).resolve().parents[1] / "infra" / "ray.env"
    lines = kept.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _sizes(cpus: int, gpus: int | None) -> list[str]:
    sizes = [f"--num-cpus={cpus}", f"--object-store-memory={STORE}"]
    return sizes if gpus is None else [*sizes, f"--num-gpus={gpus}"]


def _plain() -> dict[str, str]:
    """The environment less what belongs to single stages: workers get that from their own driver."""
    return {k: v for k, v in os.environ.items() if not k.startswith("MIPRIV_") and k != "RAY_ADDRESS"}


def _command(folder: Path, sizes: Sequence[str]) -> list[str]:
    where = [
        f"--node-ip-address={HOST}",
        "--port=0",
        "--dashboard-agent-listen-port=0",
        f"--temp-dir={folder}",
    ]
    less = [
        "--include-dashboard=false",
        "--include-log-monitor=false",
        "--no-monitor",
        "--disable-usage-stats",
    ]
    # The server for remote clients cannot be left out, and its default port is the same for every head.
    less += [f"--ray-client-server-port={_free_port()}"]
    return [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", *where, *sizes, *less]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mipriv-ray-"))
    if len(str(folder)) > LONGEST:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="mipriv-ray-", dir="/tmp"))
    return folder


def _guard(sizes: Sequence[str]) -> int:
    """Start Ray, say where it listens, and end it when the pipe on standard input closes."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    folder = _folder()
    ray: subprocess.Popen[Any] | None = None
    try:
        with (folder / "start.log").open("wb") as log:
            ray = subprocess.Popen(
                _command(folder, sizes),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if not _healthy(ray, folder):
            print("failed", _last_line(folder / "start.log"), flush=True)
            return 1
        print("ready", ray.pid, (folder / "ray_current_cluster").read_text().strip(), flush=True)
        while ray.poll() is None and not _closed(1.0):
            pass
        return 0
    finally:
        if ray is not None:
            _end(ray)
        shutil.rmtree(folder, ignore_errors=True)


def _healthy(ray: "subprocess.Popen[Any]", folder: Path) -> bool:
    """Wait for the file that `ray start` writes when all its parts have answered."""
    until = time.monotonic() + START
    while ray.poll() is None and time.monotonic() < until:
        if (folder / "ray_current_cluster").is_file():
            return True
        if _closed(0.05):
            return False
    return False


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _closed(seconds: float) -> bool:
    """Wait, and say whether standard input has been closed at its other end."""
    readable, _, _ = select.select([0], [], [], seconds)
    return bool(readable) and os.read(0, 4096) == b""


def _end(ray: "subprocess.Popen[Any]") -> None:
    """Ask `ray start` to end its parts, then end what is left of the group."""
    ray.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        ray.wait(END)
    _kill(ray.pid)
    ray.wait()


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(_guard(sys.argv[1:]))
