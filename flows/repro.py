"""One stage, brought up to date in a child by ``dvc --wait-for-lock repro --single-item`` (`flows.dvc`)."""

import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from flows import graph
from flows.children import Children
from flows.graph import Busy

KEPT = 200  # lines of a stage's output to find the reason of its failure in
SAME = "what it depends on came out as it was"
ADVICE = re.compile(r"\s*(To track the changes|git add|To enable auto staging|dvc config|Use `dvc push`)")


class End(Enum):
    """How it ended; `BUSY`: another DVC holds its files, and trying again later helps."""

    COMPUTED, UNCHANGED, BUSY = "computed", "unchanged", "busy"
    FAILED, ENDED, NOT_RUN = "failed", "ended with the run", "needs a stage that failed"


@dataclass(frozen=True)
class Outcome:
    """How a stage ended, one line about it, and the seconds of a computed one."""

    end: End
    message: str
    seconds: float = 0.0


def bring(address: str, children: Children, say: Callable[[str], None], stale: bool) -> Outcome:
    """Compute the stage, unless nothing that it depends on has changed; `say` gets each line of output.

    Args:
        stale: it has changed, or what it needs was computed anew. DVC's process is then started at once; it
            looks for itself, and asking it here first costs as much again. Otherwise it is asked here, which
            is cheaper than a process that has nothing to do.
    """
    try:
        if not stale and not graph.changed(children.cwd, [address]):
            return Outcome(End.UNCHANGED, SAME)
    except Busy as busy:
        return Outcome(End.BUSY, str(busy))
    said = deque[str](maxlen=KEPT)

    def hear(line: str) -> None:
        if not ADVICE.match(line):  # DVC's, five lines after each stage
            say(line)
            said.append(line)

    begun = time.perf_counter()
    command = ("flows.dvc", "--wait-for-lock", "repro", "--single-item", address)
    code = children.run("tasks.engine.forked", *command, say=hear)
    seconds = time.perf_counter() - begun
    if not code and f"Stage '{address}' didn't change, skipping" in said:
        return Outcome(End.UNCHANGED, SAME)
    if not code:
        return Outcome(End.COMPUTED, f"{seconds:.1f} s", seconds)
    if children.ended:
        return Outcome(End.ENDED, f"{address}: ended with the flow")
    if graph.busy(said):
        return Outcome(End.BUSY, f"{address}: another DVC holds a lock")
    return Outcome(End.FAILED, f"{address}: {_reason(code, said)}")


def waits(retries: int) -> list[float]:
    """Seconds before each new try of a busy stage; short, because a run that is cancelled sits them out."""
    return [min(2.0**n, 8.0) for n in range(retries)]


def _reason(code: int, said: Sequence[str]) -> str:
    """The most telling line of what DVC and the stage said."""
    errors = [line for line in said if line.startswith("error:")]
    others = [line for line in said if not line.startswith("ERROR:")]
    return ([*others[-1:], *errors][-1:] or list(said)[-1:] or [f"exit code {code}"])[0]
