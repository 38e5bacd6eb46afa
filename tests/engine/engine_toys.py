"""Cell functions and a driver for tests; also run as a program, so that it can be killed."""

import sys
import time
from pathlib import Path
from typing import Any

from mipriv.errors import InputError
from tasks.engine import fanout
from tasks.engine.cells import Cell, Place


def square(out: Path, inputs: dict[str, Path], progress: Any, events: Any, seed: int, log: str) -> None:
    """Writes seed * seed; leaves a mark in `log` that it really ran."""
    note(log, seed)
    for step in range(3):
        events.metric("loss", seed + 1 / (step + 1), step)
        progress(step + 1, 3)
    (out / "deep").mkdir()
    (out / "deep" / "square.txt").write_text(str(seed * seed))
    (out / "seed.txt").write_text(str(seed))
    events.artifact(out / "deep" / "square.txt")


def gated(
    out: Path, inputs: dict[str, Path], progress: Any, events: Any, seed: int, log: str, gate: str
) -> None:
    """Seed 1 stops half way until the file `gate` is there."""
    note(log, seed)
    with (out / "half.txt").open("w") as file:
        file.write("first half, ")
        file.flush()
        while seed == 1 and not Path(gate).exists():
            time.sleep(0.01)
        file.write(f"second half of {seed}")


def slow(out: Path, inputs: dict[str, Path], progress: Any, events: Any, log: str) -> None:
    """Takes long enough for two processes to meet."""
    note(log, 0)
    for part in range(20):
        (out / f"{part}.txt").write_text("x" * 1000)
        time.sleep(0.03)


def refuses(out: Path, inputs: dict[str, Path], progress: Any, events: Any) -> None:
    """What a user's mistake looks like."""
    raise InputError("finetune.epochs: 0 is not allowed")


def breaks(out: Path, inputs: dict[str, Path], progress: Any, events: Any) -> None:
    """What a bug looks like."""
    (out / "half.txt").write_text("half")
    raise ZeroDivisionError("a bug")


def odd(out: Path, inputs: dict[str, Path], progress: Any, events: Any) -> None:
    """An error that pickle writes and cannot read."""
    raise Odd(3, 4)


class Odd(Exception):
    def __init__(self, one: int, of: int) -> None:
        super().__init__(f"{one} of {of}")


def meets(
    out: Path, inputs: dict[str, Path], progress: Any, events: Any, seed: int, log: str, others: int
) -> None:
    """Notes its seed, goes on when others have begun, and notes its end as a negative number."""
    note(log, seed)
    until = time.monotonic() + 60
    while sum(n >= 0 for n in ran(Path(log))) < others:
        assert time.monotonic() < until, "met nobody"
        time.sleep(0.01)
    time.sleep(0.05)
    (out / "seed.txt").write_text(str(seed))
    note(log, -1 - seed)


def meddles(out: Path, inputs: dict[str, Path], progress: Any, events: Any) -> None:
    """Changes what it reads."""
    inputs["data"].write_text("changed")


def note(log: str, seed: int) -> None:
    with Path(log).open("a") as file:
        file.write(f"{seed}\n")


def ran(log: Path) -> list[int]:
    """Seeds that were computed, in order."""
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def main(kind: str, root: str, workers: str = "1") -> None:
    place = Place(Path(root), Path(root, ".cells"), "toy", None, 1, 0, 1, int(workers))
    log, gate = str(Path(root, "log")), str(Path(root, "gate"))
    cells = {
        "gated": [
            Cell(f"seed-{s}", "engine_toys:gated", {"seed": s, "log": log, "gate": gate}) for s in range(3)
        ],
        "slow": [Cell("only", "engine_toys:slow", {"log": log})],
        "square": [Cell(f"seed-{s}", "engine_toys:square", {"seed": s, "log": log}) for s in range(2)],
    }
    fanout.run(cells[kind], place)


if __name__ == "__main__":
    main(*sys.argv[1:])
