"""A stage as small as a stage can be."""

import importlib
import os
import time
from pathlib import Path
from typing import Any

from mipriv.errors import InputError
from tasks.engine.cells import Cell
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch


class Row(Block):
    kind: str
    offset: float


class Toy(Block):
    seeds: list[int]
    rows: dict[str, Row]


def add(
    out: Path, inputs: dict[str, Path], progress: Any, events: Any, seed: int, kind: str, offset: float
) -> None:
    if "cell imports" in (os.environ.get("TOY"), os.environ.get("MIPRIV_TOY")):  # the latter reaches workers
        importlib.import_module("mipriv.hidden")
    if os.environ.get("TOY") == "cells wait":
        for number in range(4000):  # cleaning up takes a while, in which a second signal may come
            (out / str(number)).touch()
        Path(f"at-work-{os.getpid()}").touch()
        while not Path("gate").exists():
            time.sleep(0.01)
    plus = importlib.import_module(f"mipriv.kind_{kind}").ADD
    events.metric("sum", seed + plus + offset)
    (out / "sum.txt").write_text(str(seed + plus + offset + int(inputs["data"].read_text())))


def run(stage: Stage[Toy]) -> None:
    match os.environ.get("TOY"):
        case "refuses":
            raise InputError("data.txt: no good")
        case "breaks":
            raise ZeroDivisionError("a bug with a secret")
        case "waits":
            Path("waiting").touch()
            time.sleep(60)
        case "imports" | "imports nothing" as which:
            importlib.import_module("mipriv.hidden" if which == "imports" else "mipriv.hollow")
        case "torch":
            importlib.import_module("torch")
    row = stage.params.rows[stage.row or ""]
    work = [
        Cell(f"seed-{seed}", "tasks.toy:add", {"seed": seed, "kind": row.kind, "offset": row.offset},
             {"data": stage.path("data")})
        for seed in stage.params.seeds
    ]  # fmt: skip
    folders = stage.cells(work)
    stage.events.metric("cells", len(folders))
    stage.events.artifact(folders["seed-0"] / "sum.txt")


if __name__ == "__main__":
    raise SystemExit(launch(run, ["data"], Toy))
