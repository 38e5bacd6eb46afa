"""What cells cost on Ray, and what more nodes save: ``python -m bench.scaling [PART ...]``.

Parts, each a line or more of one Markdown table: ``input`` (how often a 100 MB input is read on each of two
nodes), ``workers`` (two single-thread workers against one), ``overhead`` (of a cell, 1,000 of them),
``nodes`` (sleeping cells on 1, 2 and 4 nodes), ``queue`` (memory of a driver of ten thousand cells; minutes).
Nodes are processes of this machine. Seconds are from the first cell's begin to the last one's end, so that
the ten seconds to come to Ray, which a stage pays once, are told apart.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flows.cluster import STORE, patience
from tasks.engine import fanout
from tasks.engine.cells import Cell, Place

ROOT = Path(__file__).resolve().parents[1]
INPUT = 100_000_000  # bytes
SLEEP, SLEEPERS = 1.0, 20  # seconds of a cell, and cells a node


def nothing(out: Path, inputs: Any, progress: Any, events: Any, number: int, work: float, kind: str) -> None:
    """A cell that sleeps, multiplies or does nothing; writes down when, where, and what its process read."""
    begun = time.time()
    if kind == "sleep":
        time.sleep(work)
    if kind == "multiply":
        matrix = np.eye(700, dtype=np.float32)
        for _ in range(int(work)):
            matrix = matrix @ matrix
    read = int(Path("/proc/self/io").read_text().split()[1])
    facts = {"begun": begun, "ended": time.time(), "pid": os.getpid(), "node": os.getppid(), "read": read}
    (out / "facts.json").write_text(json.dumps(facts))


def cells(kind: str, count: int, work: float = 0.0, file: Path | None = None) -> list[Cell]:
    """Of one kind, which differ by their number."""
    kwargs = [{"number": number, "work": work, "kind": kind} for number in range(count)]
    inputs = {} if file is None else {"file": file}
    return [Cell(f"cell-{one['number']}", "bench.scaling:nothing", one, inputs) for one in kwargs]


@contextlib.contextmanager
def nodes(count: int, cpus: int = 1) -> Iterator[None]:
    """That many Ray nodes, where cells of this process then go."""
    from ray.cluster_utils import Cluster

    sizes: dict[str, Any] = {"num_cpus": cpus, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args={**sizes, "include_dashboard": False})
    try:
        for _ in range(count - 1):
            cluster.add_node(**sizes)
        os.environ["RAY_ADDRESS"] = cluster.address
        yield
    finally:
        cluster.shutdown()


def run(folder: Path, work: list[Cell]) -> tuple[float, float, list[dict[str, Any]]]:
    """Seconds of all, seconds from first begin to last end, and what the cells wrote down."""
    place = Place(ROOT, folder / secrets.token_hex(4), "bench", None, 1, 0, 0)
    begun = time.perf_counter()
    with contextlib.redirect_stderr(open(os.devnull, "w")):
        results = fanout.run(work, place)
    seconds = time.perf_counter() - begun
    facts = [json.loads((result.files / "facts.json").read_text()) for result in results.values()]
    shutil.rmtree(place.store)
    return seconds, max(f["ended"] for f in facts) - min(f["begun"] for f in facts), facts


def _input(folder: Path) -> Iterator[str]:
    file = folder / "input.bin"
    file.write_bytes(os.urandom(INPUT))
    small = folder / "small.bin"
    small.write_bytes(b"x")
    with nodes(2):
        read: dict[Path, dict[int, int]] = {}
        for one in (small, file):  # new workers each time: what they read of Python's modules is the same
            _, _, facts = run(folder, cells("sleep", 20, 0.2, one))
            read[one] = {f["node"]: max(g["read"] for g in facts if g["node"] == f["node"]) for f in facts}
        times = [(read[file][node] - read[small].get(node, 0)) / INPUT for node in read[file]]
    yield f"times that a 100 MB input of 20 cells is read on each of {len(times)} nodes | " + ", ".join(
        f"{value:.2f}" for value in times
    )


def _workers(folder: Path) -> Iterator[str]:
    took = {}
    for cpus in (1, 2):
        with nodes(1, cpus):
            _, took[cpus], _ = run(folder, cells("multiply", 16, 150))
    yield f"16 computing cells, one worker | {took[1]:.1f} s"
    yield f"16 computing cells, two workers | {took[2]:.1f} s, {took[1] / took[2]:.2f} times as fast"


def _overhead(folder: Path) -> Iterator[str]:
    os.environ.pop("RAY_ADDRESS", None)
    own, before = cells("none", 1000), time.process_time()
    seconds, _, _ = run(folder, own)
    spent = time.process_time() - before
    yield f"a cell that does nothing, in process, of 1,000 | {seconds:.1f} ms, {spent:.1f} of a processor"
    with nodes(1, 2):
        whole, inside, _ = run(folder, own)
    yield f"the same on Ray with 2 CPUs | {inside:.1f} ms"
    yield f"coming to Ray and leaving it, once a stage | {whole - inside:.1f} s"


def _nodes(folder: Path) -> Iterator[str]:
    for count in (1, 2, 4):
        with nodes(count):
            _, seconds, _ = run(folder, cells("sleep", SLEEPERS * count, SLEEP))
        ideal = SLEEP * SLEEPERS
        what = f"{SLEEPERS * count} cells that sleep {SLEEP:g} s, nodes: {count}"
        yield f"{what} | {seconds:.1f} s, {ideal / seconds:.0%} of the ideal"


def _queue(folder: Path) -> Iterator[str]:
    with nodes(1, 2):
        for count in (1000, 10_000):
            queue: Any = multiprocessing.get_context("spawn").Queue()
            process = multiprocessing.get_context("spawn").Process(target=_drive, args=(folder, count, queue))
            process.start()
            most = queue.get()
            process.join()
            yield f"most memory of a driver of {count:,} cells | {most / 1e6:.0f} MB"


def _drive(folder: Path, count: int, queue: Any) -> None:
    run(folder, cells("none", count))
    lines = Path("/proc/self/status").read_text().splitlines()
    queue.put(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")))


PARTS = {"input": _input, "workers": _workers, "overhead": _overhead, "nodes": _nodes, "queue": _queue}


def main() -> None:
    """Print the table, line by line as it is measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    chosen = parser.parse_args().parts
    if unknown := set(chosen) - PARTS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; allowed: {', '.join(PARTS)}")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    os.environ.update({**patience(), **token})
    print("| what | measured |\n| --- | ---: |", flush=True)
    with tempfile.TemporaryDirectory(prefix="mipriv-bench-") as folder:
        for name in chosen:
            for line in PARTS[name](Path(folder)):
                print(f"| {line} |", flush=True)


if __name__ == "__main__":
    main()
