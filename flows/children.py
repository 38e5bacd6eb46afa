"""Processes that end with the one that started them, however that ends; see `flows.leash`."""

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from flows import leash

PATIENCE = leash.GRACE + 5.0  # seconds until a leash that does not do its work is cut
Child = subprocess.Popen[bytes]


def start(
    module: str, *arguments: str, cwd: Path, env: Mapping[str, str], output: int | IO[bytes] | None = None
) -> Child:
    """Start ``python -m MODULE ARGUMENTS`` on a leash, in a session of its own.

    Args:
        output: where its standard output and error go; None: to ours.
    """
    command = [sys.executable, "-P", leash.__file__, module, *arguments]
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        start_new_session=True,
    )


def end(*children: Child) -> None:
    """End process groups, and wait until they have."""
    for child in children:
        assert child.stdin is not None
        child.stdin.close()
    for child in children:
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


class Children:
    """Runs programs from several threads; leaving the context ends those that still run.

    Args:
        cwd: their working directory.
        env: their environment, whole.
    """

    def __init__(self, cwd: Path, env: Mapping[str, str]) -> None:
        self.cwd, self._env = cwd, env
        self._running: set[Child] = set()
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.end()

    @property
    def ended(self) -> bool:
        """Whether `end` has been called."""
        return self._closed

    def run(self, module: str, *arguments: str, say: Callable[[str], None]) -> int:
        """Run ``python -m MODULE ARGUMENTS`` to its end; `say` gets each line as it comes.

        Returns:
            Exit code, negative for a signal; -SIGTERM, and nothing is started, after `end`.
        """
        with self._lock:
            if self._closed:
                return -signal.SIGTERM
            child = start(module, *arguments, cwd=self.cwd, env=self._env, output=subprocess.PIPE)
            self._running.add(child)
        for line in _lines(child):
            say(line)
        code = child.wait()
        with self._lock:
            self._running.discard(child)
            assert child.stdin is not None and child.stdout is not None
            child.stdin.close()
            child.stdout.close()
        return code

    def end(self) -> None:
        """End what runs, and let nothing new begin."""
        with self._lock:
            self._closed = True
            end(*self._running)


def _lines(child: Child) -> Iterator[str]:
    """Lines until the child has ended, even where something that escaped it keeps its output open."""
    assert child.stdout is not None
    fd, rest = child.stdout.fileno(), b""
    while True:
        readable, _, _ = select.select([fd], [], [], 0.5)
        chunk = os.read(fd, 65536) if readable else b""
        if not chunk and (readable or child.poll() is not None):
            break
        *whole, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
        yield from (line.decode(errors="replace") for line in whole if line.strip())
    if rest.strip():
        yield rest.decode(errors="replace")
