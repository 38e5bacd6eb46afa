"""How far a stage is: a bar on a terminal, elsewhere a line now and then."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

LINE_EVERY, BAR_EVERY = 15.0, 0.2  # seconds
NOTE_EVERY = 0.5  # seconds between two notes of one cell
NAMED = 3  # parts that a line names


class Progress:
    """Progress of a stage of `parts` parts of about the same work; a context manager.

    `part` gives the callable of signature ``(done, total)`` that mipriv's loops take. Several parts may be at
    work at once. The estimate is for the whole stage, from the parts that this run computes.
    """

    def __init__(self, address: str, parts: int) -> None:
        self.address, self.parts = address, parts
        self._done, self._spent = 0, 0.0
        self._at_work: dict[str, float] = {}
        self._began = self._spoke = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            form = "{desc} {percentage:3.0f}% |{bar}| {elapsed}{postfix}"
            self._bar = tqdm(total=self.parts, desc=self.address, leave=False, bar_format=form)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    @property
    def due(self) -> bool:
        """Whether it is time to say how far the stage is."""
        return time.monotonic() - self._spoke >= (LINE_EVERY if self._bar is None else BAR_EVERY)

    def part(self, name: str) -> Callable[[int, int], None]:
        """Begin a part; call what is returned with (done, total)."""
        if not self._at_work:
            self._began = time.monotonic()
        self._at_work[name] = 0.0
        return lambda done, total: self.look({name: done / total})

    def end(self, name: str, resumed: bool, seconds: float) -> None:
        """End a part and say so; a `resumed` one is left out of the estimate."""
        self._at_work.pop(name, None)
        if resumed:
            self.parts -= 1
        else:
            self._done += 1
            self._spent += 0.0 if self._at_work else time.monotonic() - self._began
        self._say(f"{name}  {'kept, was done' if resumed else 'done'} in {_clock(seconds)}")

    def look(self, fractions: Mapping[str, float]) -> None:
        """Take note of how far the named parts are, from 0 to 1, and say it if that is due."""
        self._at_work |= fractions
        if not self.due:
            return
        done = self._done + sum(self._at_work.values())
        spent = self._spent + time.monotonic() - self._began
        eta = _clock(spent * (self.parts - done) / done) if done else "?"
        if self._bar is None:
            self._say(f"{self._shown(percent=True)}  eta {eta}")
            return
        self._spoke, self._bar.n, self._bar.total = time.monotonic(), done, self.parts
        self._bar.set_description_str(f"{self.address}  {self._shown()}", refresh=False)
        self._bar.set_postfix_str(f"eta {eta}", refresh=True)

    def _shown(self, percent: bool = False) -> str:
        moving = {name: part for name, part in self._at_work.items() if part} or self._at_work
        named = [f"{name}  {moving[name]:.0%}" if percent else name for name in list(moving)[:NAMED]]
        more = [f"{len(moving) - NAMED} more"] if len(moving) > NAMED else []
        return ", ".join(named + more)

    def _say(self, text: str) -> None:
        self._spoke = time.monotonic()
        tqdm.write(f"{self.address}  {text}", file=sys.stderr)


@contextlib.contextmanager
def noting(path: Path) -> Iterator[Callable[[int, int], None]]:
    """Progress of work that another process watches: a note in the file `path`, which goes with the work."""
    spoke = -NOTE_EVERY

    def note(done: int, total: int) -> None:
        nonlocal spoke
        if (now := time.monotonic()) - spoke >= NOTE_EVERY:
            spoke = now
            path.write_text(f"{done / total:.4f}\n")

    try:
        yield note
    finally:
        path.unlink(missing_ok=True)


def noted(path: Path) -> float | None:
    """How far that work is, from 0 to 1; None before its first note, after its end and while it writes."""
    try:
        text = path.read_text()
        return float(text) if text.endswith("\n") else None
    except (OSError, ValueError):
        return None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
