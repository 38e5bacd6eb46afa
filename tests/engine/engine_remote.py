"""Cells that wait, die or break elsewhere; run as a program, a driver that can be killed."""

import os
import sys
import time
from pathlib import Path
from typing import Any

from engine_toys import note

from tasks.engine import fanout, progress
from tasks.engine.cells import Cell, Place


def half(
    out: Path, inputs: dict[str, Path], progress: Any, events: Any, seed: int, log: str, gate: str
) -> None:
    """Seed 1 says that it is half way and who it is, and waits for the file `gate`."""
    note(log, seed)
    (out / "half.txt").write_text("first half")
    progress(1, 2)
    if seed == 1:
        Path(gate).with_name("pid.part").write_text(str(os.getpid()))
        Path(gate).with_name("pid.part").rename(Path(gate).with_name("pid"))
        while not Path(gate).exists():
            time.sleep(0.01)
    (out / "all.txt").write_text(f"both halves of {seed}")


def dies(out: Path, inputs: dict[str, Path], progress: Any, events: Any, seed: int, log: str) -> None:
    """As the kernel's out-of-memory killer would have it."""
    note(log, seed)
    os.kill(os.getpid(), 9)


def counted(out: Path, inputs: dict[str, Path], progress: Any, events: Any, log: str) -> None:
    """A bug, and how often it was run into."""
    note(log, 0)
    raise ZeroDivisionError("a bug")


def gpus(out: Path, inputs: dict[str, Path], progress: Any, events: Any) -> None:
    """Writes down what it sees of them."""
    (out / "gpus.txt").write_text(str(os.environ.get("CUDA_VISIBLE_DEVICES")))


def rests(
    out: Path, inputs: dict[str, Path], progress: Any, events: Any, seed: int, log: str, seconds: float
) -> None:
    """Says on which node it is, and takes as long as it is told."""
    with Path(log).open("a") as file:
        file.write(f"{seed} {os.getppid()}\n")
    time.sleep(seconds)
    (out / "rested.txt").write_text(f"{seed} has rested")


RESTING = 16


def resting(place: Place, seconds: float, count: int = RESTING) -> list[Cell]:
    """Cells whose results do not depend on how long they take."""
    log = str(place.root / "log")
    kwargs = [{"seed": seed, "log": log, "seconds": seconds} for seed in range(count)]
    return [Cell(f"seed-{one['seed']}", "engine_remote:rests", one) for one in kwargs]


def nodes(log: Path) -> list[int]:
    """For each cell that began, the process of its node."""
    return [int(line.split()[1]) for line in log.read_text().splitlines()] if log.exists() else []


class Odd(Exception):
    """Holds what cannot be sent."""

    def __init__(self) -> None:
        super().__init__("an odd bug")
        self.held = sys.stderr


def odd(out: Path, inputs: dict[str, Path], progress: Any, events: Any) -> None:
    raise Odd


def halves(place: Place, count: int = 4) -> list[Cell]:
    log, gate = str(place.root / "log"), str(place.root / "gate")
    return [
        Cell(f"seed-{seed}", "engine_remote:half", {"seed": seed, "log": log, "gate": gate})
        for seed in range(count)
    ]


def main(kind: str, root: Path, threads: int) -> None:
    place = Place(root, root / ".cells", "toy", "row", threads, 0, 1)
    progress.LINE_EVERY = 0.0
    cells: dict[str, list[Cell]] = {
        "half": halves(place),
        "waits": halves(place, 2)[1:],
        "rests": resting(place, 2.5),
        "few": resting(place, 600.0),
        "many": resting(place, 600.0, 10_000),
        "torch": [Cell(name, f"engine_torch:{name}", {"seed": 1}) for name in ("numbers", "facts")],
    }
    fanout.run(cells[kind], place)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
