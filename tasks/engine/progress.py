"""How far a stage is: a bar on a terminal, elsewhere a line now and then."""

import sys
import time
from collections.abc import Callable
from typing import Any, Self

from tqdm import tqdm

LINE_EVERY, BAR_EVERY = 15.0, 0.2  # seconds


class Progress:
    """Progress of a stage of `parts` parts of about the same work; a context manager.

    `part` gives the callable of signature ``(done, total)`` that mipriv's loops take. The estimate is for the
    whole stage, from the parts that this run computes.
    """

    def __init__(self, address: str, parts: int) -> None:
        self.address, self.parts = address, parts
        self._done, self._spent = 0, 0.0
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

    def part(self, name: str) -> Callable[[int, int], None]:
        """Begin the next part; call what is returned with (done, total)."""
        self._began = time.monotonic()
        return lambda done, total: self._tick(name, done / total)

    def end(self, name: str, resumed: bool, seconds: float) -> None:
        """End a part and say so; a `resumed` one is left out of the estimate."""
        if resumed:
            self.parts -= 1
        else:
            self._done += 1
            self._spent += time.monotonic() - self._began
        self._say(f"{name}  {'kept, was done' if resumed else 'done'} in {_clock(seconds)}")

    def _tick(self, name: str, fraction: float) -> None:
        now = time.monotonic()
        if now - self._spoke < (LINE_EVERY if self._bar is None else BAR_EVERY):
            return
        done = self._done + fraction
        eta = _clock((self._spent + now - self._began) * (self.parts - done) / done) if done else "?"
        if self._bar is None:
            self._say(f"{name}  {fraction:.0%}  eta {eta}")
            return
        self._spoke, self._bar.n, self._bar.total = now, done, self.parts
        self._bar.set_description_str(f"{self.address}  {name}", refresh=False)
        self._bar.set_postfix_str(f"eta {eta}", refresh=True)

    def _say(self, text: str) -> None:
        self._spoke = time.monotonic()
        tqdm.write(f"{self.address}  {text}", file=sys.stderr)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
