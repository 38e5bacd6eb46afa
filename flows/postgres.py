"""A PostgreSQL of the project's own: its files in one folder, on loopback only, behind a password.

The programs are those of the system, Debian's among them, which lie outside of PATH. PostgreSQL refuses to
run as root, so for root it runs as the user `postgres`, who has to be able to reach the folder.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from flows import children
from flows.project import environment, fail
from flows.server import HOST, PATIENCE, free_port

USER = "mipriv"  # inside the database
DATABASES = Path(__file__).resolve().parents[1] / "infra" / "postgres" / "databases.sql"
DEBIAN = Path("/usr/lib/postgresql")


def programs() -> Path:
    """Folder of `initdb`, `postgres`, `pg_ctl`, `pg_isready` and `psql`: the newest there is.

    Raises:
        Mistake: PostgreSQL is not installed.
    """
    found = shutil.which("initdb")
    debian = [path for path in DEBIAN.glob("*/bin") if (path / "initdb").is_file()]
    newest = sorted(debian, key=lambda path: [int(part) for part in path.parent.name.split(".")])
    if not newest and not found:
        fail("PostgreSQL is not installed; on Debian and Ubuntu: apt-get install postgresql")
    return newest[-1] if newest else Path(str(found)).resolve().parent


@contextlib.contextmanager
def running(folder: Path, password: str, log: IO[bytes], port: int = 5432) -> Iterator[int]:
    """Start it, with the databases of `infra/postgres/databases.sql` in it; gives its port.

    Args:
        folder: for its files, which are made where there are none.
        log: where it says what it does.

    Raises:
        Mistake: PostgreSQL is not installed, does not start, or cannot reach the folder.
    """
    where, data, number = programs(), folder / "data", free_port(port)
    if not data.is_dir():
        _make(where, folder, password)
    _pass(folder / "pgpass", number, password)
    settings = ["-c", f"listen_addresses={HOST}", "-c", "unix_socket_directories=", "-p", str(number)]
    user = [] if _owner() is None else ["--user", str(_owner())]
    command = [*user, str(where / "postgres"), "-D", str(data), *settings]
    child = children.start("flows.program", *command, cwd=folder, env=environment(), output=log)
    try:
        _await(where, child, number)
        _fill(where, folder, number)
        yield number
    finally:
        # Asked by itself first: a SIGTERM waits for clients, and a SIGKILL leaves work for the next start.
        stop = [where / "pg_ctl", "stop", "-D", data, "-m", "fast", "-t", "20"]
        _as_owner(stop, check=False)
        children.end(child)


def _owner() -> str | None:
    return "postgres" if os.geteuid() == 0 else None


def _as_owner(command: list[Any], check: bool = True) -> "subprocess.CompletedProcess[bytes]":
    who: dict[str, Any] = {}
    if user := _owner():
        who = {"user": user, "group": user, "extra_groups": []}
    return subprocess.run(command, cwd="/", capture_output=True, check=check, **who)


def _make(where: Path, folder: Path, password: str) -> None:
    """A new cluster beside, then renamed: one that was killed half made is made again."""
    part = folder / "data.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True, mode=0o700)
    secret = folder / "password"
    secret.unlink(missing_ok=True)
    write(secret, password)
    if user := _owner():
        folder.chmod(0o711)
        for path in (part, secret):
            shutil.chown(path, user, user)
        if _as_owner(["test", "-w", part], check=False).returncode:
            fail(f"{folder}: out of reach for the user {user}, as whom PostgreSQL runs where root starts it")
    try:
        how = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--username", USER]
        made = _as_owner([where / "initdb", "-D", part, "--pwfile", secret, *how], check=False)
    finally:
        secret.unlink()
    if made.returncode:
        fail(f"PostgreSQL's initdb: {made.stderr.decode(errors='replace').strip().splitlines()[-1]}")
    part.rename(folder / "data")


def _pass(file: Path, port: int, password: str) -> None:
    file.unlink(missing_ok=True)
    write(file, f"{HOST}:{port}:*:{USER}:{password}\n")


def write(file: Path, text: str) -> None:
    """A file that only its owner may read, from its first byte on."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)


def _await(where: Path, child: children.Child, port: int) -> None:
    until = time.monotonic() + PATIENCE
    ask: list[Any] = [where / "pg_isready", "-q", "-h", HOST, "-p", str(port), "-U", USER, "-d", "postgres"]
    while subprocess.run(ask, check=False).returncode:
        if child.poll() is not None:
            fail(f"PostgreSQL ended with code {child.returncode}")
        if time.monotonic() > until:
            fail(f"PostgreSQL does not answer on port {port}")
        time.sleep(0.1)


def _fill(where: Path, folder: Path, port: int) -> None:
    ask: list[Any] = [where / "psql", "-X", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-h", HOST, "-p", str(port)]
    made = subprocess.run(
        [*ask, "-U", USER, "-d", "postgres", "-f", DATABASES],
        env=environment(PGPASSFILE=str(folder / "pgpass"), PGOPTIONS="-c client_min_messages=warning"),
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        fail(f"PostgreSQL's databases: {made.stderr.strip().splitlines()[-1]}")
