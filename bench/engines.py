"""What the engines cost, and what they save: ``python -m bench.engines`` from the project's top folder.

Two tables in Markdown, from one run. *Where a stage's time goes*: a stage whose one cell computes nothing,
with one engine more in each line, all of them up already (Ray head, Prefect server, MLflow server). *Two at
once*: independent stages of some seconds of one thread's work, by plain ``dvc repro`` and through the flow.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from ruamel.yaml import YAML

from flows import scale, server, ui
from flows.cluster import local_head
from flows.project import environment, root

STAGE = '''"""A stage of one cell that multiplies matrices for a while, or computes nothing."""

from pathlib import Path
from typing import Any

from tasks.engine.cells import Cell
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch


class Bench(Block):
    products: int
    rows: dict[str, int]


def work(out: Path, inputs: Any, progress: Any, events: Any, products: int, number: int) -> None:
    if products:  # torch is no engine: a stage that computes nothing does without it
        import torch

        matrix = torch.eye(1000)
        for done in range(products):
            matrix = matrix @ matrix
            progress(done + 1, products)
    (out / "result.txt").write_text(str(number))


def run(stage: Stage[Bench]) -> None:
    number = stage.params.rows[stage.row or ""]
    stage.cells([Cell("cell", "tasks.bench:work", {"products": stage.params.products, "number": number}, {})])


if __name__ == "__main__":
    raise SystemExit(launch(run, [], Bench))
'''
EVENTS = "out/events/bench/{}.jsonl"


def make(source: Path, project: Path, rows: int) -> None:
    """A copy of the project that has the benchmark's stage alone."""
    scale.copy(source, project)
    (project / "tasks/bench.py").write_text(STAGE, encoding="utf-8")
    cost = {"device": "cpu", "threads": 1, "gpus": 0, "retries": 0, "stages": {}}
    one = {
        "cmd": command("${key}"),
        "deps": ["tasks/bench.py", "tasks/__init__.py", "tasks/engine", "mipriv"],
        "params": ["bench.products", "bench.rows.${key}"],
        "outs": ["out/bench/${key}", EVENTS.format("${key}")],
    }
    dump(
        project / "dvc.yaml",
        {
            "stages": {"bench": {"foreach": "${bench.rows}", "do": one}},
            "artifacts": {"events": {"path": "out/events"}},
        },
    )
    numbers = {f"row{i}": 0 for i in range(rows)}
    dump(project / "params.yaml", {"bench": {"products": 0, "rows": numbers}, "cost": cost})
    (project / "dvc.lock").unlink(missing_ok=True)
    (project / ".dvc/config.local").unlink()  # a cache of its own


def command(row: str) -> str:
    """What DVC runs."""
    return f"python -m tasks.bench --row {row} --out out/bench/{row} --events {EVENTS.format(row)}"


def dump(path: Path, values: object) -> None:
    """Write YAML."""
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(values, file)


class Bench:
    """One project to measure in; each measurement changes it, so that nothing is skipped or resumed."""

    def __init__(self, project: Path, rows: int) -> None:
        self.project, self.rows, self._number = project, [f"row{i}" for i in range(rows)], 0

    def renew(self, products: int) -> None:
        """Make every row stale."""
        self._number += 1
        path = self.project / "params.yaml"
        values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        rows = {row: self._number * len(self.rows) + i for i, row in enumerate(self.rows)}
        values["bench"] = {"products": products, "rows": rows}
        dump(path, values)

    def seconds(self, *words: str, env: Mapping[str, str], products: int = 0) -> float:
        """Wall time of a command in the project, all rows being stale."""
        self.renew(products)
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *words], cwd=self.project, env=env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"error: {words}: {done.stdout}{done.stderr}")
        return time.perf_counter() - begun


def table(title: str, columns: str, rows: Mapping[str, str]) -> None:
    """Print one table."""
    width = columns.count("|")
    print(f"\n**{title}**\n\n| | {columns} |\n| --- |{' ---: |' * (width + 1)}")
    for name, values in rows.items():
        print(f"| {name} | {values} |")


def overhead(bench: Bench, plain: Mapping[str, str], up: Mapping[str, str], repeats: int) -> None:
    """Median seconds of a stage that computes nothing, with one engine more in each line."""
    off, ray = {**plain, "MIPRIV_PUBLISH": "off"}, {**up, "MIPRIV_PUBLISH": "off"}
    stage = command("row0").split()[1:]
    single = ["-m", "dvc", "--wait-for-lock", "repro", "--single-item", "bench@row0"]
    publish = ["-m", "tasks.engine.publisher", "--strict", EVENTS.format("row0")]

    def flow(rows: list[str]) -> Callable[[], float]:
        words = ["-m", "flows.run", "--parallel", "1", *(f"bench@{row}" for row in rows)]
        return lambda: bench.seconds(*words, env=up)

    few, many = bench.rows[:1], bench.rows
    parts: dict[str, Callable[[], float]] = {
        "Python and the engine's modules": lambda: bench.seconds("-c", "import tasks.bench", env=off),
        "the stage, its cell in process": lambda: bench.seconds(*stage, env=off),
        "its cell on Ray": lambda: bench.seconds(*stage, env=ray),
        "under DVC": lambda: bench.seconds(*single, env=ray),
    }
    found = {name: [measure() for _ in range(repeats)] for name, measure in parts.items()}
    # What a whole flow costs once (start, plan, publisher) is the same for one stage and for many.
    slope = [(flow(many)() - flow(few)()) / (len(many) - len(few)) for _ in range(repeats)]
    found["in the flow, published to the server"] = slope
    lines, before = {}, 0.0
    for name, values in found.items():
        middle = statistics.median(values)
        lines[name] = f"{middle:.1f} | {middle - before:+.1f} | {min(values):.1f} to {max(values):.1f}"
        before = middle
    torch = [bench.seconds("-c", "import torch", env=off) for _ in range(repeats)]
    once = []
    for _ in range(repeats):
        bench.seconds(*stage, env=ray)
        once.append(bench.seconds(*publish, env=up))
    table("Where a stage's time goes", "seconds | more | range", lines)
    alone = statistics.median(once)
    middle = statistics.median(torch)
    print(f"\nn = {repeats}. Torch, which most stages and their workers import: {middle:.1f} s each.")
    print(f"A publisher of its own, as `dvc repro` starts one: {alone:.1f} s.")


def parallel(bench: Bench, plain: Mapping[str, str], up: Mapping[str, str], repeats: int, work: int) -> None:
    """Wall time of independent stages by both, alternating."""
    off = {**plain, "MIPRIV_PUBLISH": "off"}
    repro = ["-m", "dvc", "repro", "-q"]
    flow = ["-m", "flows.run", "--parallel", "2"]
    pairs = [
        (bench.seconds(*repro, env=off, products=work), bench.seconds(*flow, env=up, products=work))
        for _ in range(repeats)
    ]
    cells = sum(cell_seconds(bench.project / EVENTS.format(row)) for row in bench.rows) / len(bench.rows)
    ratios = sorted(through / alone for alone, through in pairs)
    alone, through = (statistics.median(side) for side in zip(*pairs, strict=True))
    title = f"{len(bench.rows)} independent stages, one cell of {cells:.0f} s each, on {os.cpu_count()} cores"
    spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}, n = {repeats})"
    table(
        title,
        "seconds | ratio",
        {
            "`dvc repro`, no engine beside it": f"{alone:.1f} | 1",
            "the flow, two at once, all engines up": f"{through:.1f} | {spread}",
        },
    )


def cell_seconds(events: Path) -> float:
    """Seconds of the one cell of a stage."""
    lines = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    (cell,) = (line for line in lines if line["event"] == "cell")
    return float(cell["events"][-1]["seconds"])


def main() -> None:
    """Start every engine, measure, end them."""
    parser = argparse.ArgumentParser(prog="python -m bench.engines", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--part", choices=["all", "overhead", "parallel"], default="all")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--products", type=int, default=600, help="matrix products of a cell; 600: some 10 s")
    given, source = parser.parse_args(), root()
    folder = Path(tempfile.mkdtemp(prefix="mipriv-bench-"))
    project = folder / "project"
    make(source, project, given.rows)
    bench = Bench(project, given.rows)
    plain = environment(DVC_NO_ANALYTICS="1", PREFECT_HOME=str(project / ".prefect"))
    os.environ["PREFECT_HOME"] = plain["PREFECT_HOME"]
    with ExitStack() as engines:
        engines.callback(shutil.rmtree, folder, ignore_errors=True)
        api = engines.enter_context(server.started(project))
        store = engines.enter_context(ui.mlflow(project, 5000))
        cluster = engines.enter_context(local_head(project))
        up = {**plain, **cluster, "PREFECT_API_URL": api, "MLFLOW_TRACKING_URI": store}
        if given.part != "overhead":
            parallel(bench, plain, up, given.repeats, given.products)
        if given.part != "parallel":
            overhead(bench, plain, up, given.repeats)


if __name__ == "__main__":
    main()
