"""Hands on event files as they end, until told to stop."""

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tasks.engine.events import ended

POLL, RETRY = 1.0, 30.0  # seconds between looks at the folder; after a failure


def watch(folder: Path, publish: Callable[[Sequence[Path]], bool]) -> None:
    """Call `publish` with the event files below `folder` that have ended and were not accepted before.

    Ends when standard input is closed at its other end, or at SIGTERM or SIGINT; what is left then gets a
    last call.

    Args:
        publish: says whether it accepted the files; if not, they come again after `RETRY` seconds.
    """
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stop.append(received))
    accepted: dict[Path, tuple[int, int]] = {}
    resting = 0.0
    while True:
        last = _closed(POLL) or bool(stop)
        seen = {path: _stamp(path) for path in folder.rglob("*.jsonl")}
        new = sorted(path for path, stamp in seen.items() if accepted.get(path) != stamp)
        fresh = [path for path in new if ended(path)]
        stamps = {path: _stamp(path) for path in fresh}  # of the whole file: it may have ended since
        if fresh and (last or time.monotonic() >= resting):
            if publish(fresh):
                accepted |= stamps
            else:
                resting = time.monotonic() + RETRY
        if last:
            return


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


def _closed(seconds: float) -> bool:
    """Wait, and say whether standard input has been closed at its other end."""
    readable, _, _ = select.select([0], [], [], seconds)
    return bool(readable) and os.read(0, 4096) == b""
