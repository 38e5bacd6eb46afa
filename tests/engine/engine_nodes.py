"""A grid of shadow heads over two Ray nodes of this machine, one of which is killed; run as a program."""

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import torch
from engine_processes import ROOT, wait_for
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from flows.cluster import STORE, patience
from tasks import features, shadows
from tasks.engine import fanout
from tasks.engine.cells import Cell, Place

MODELS = 64
GRID = [(s, c, seed) for s in (8, 12, 16, 24) for c in (2, 5) for seed in (0, 1)]


def cells(folder: Path) -> list[Cell]:
    """16 cells of 64 heads each over the 1,797 digits of scikit-learn."""
    images, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    found = {}
    for name, part in (("pool", slice(0, 1400)), ("population", slice(1400, None))):
        found |= {name: images[part].float(), f"{name}_labels": labels[part].long()}
    folder.mkdir(exist_ok=True)
    save_file({key: value.contiguous() for key, value in found.items()}, folder / features.FILE)
    recipe = {"algorithm": "steps", "knobs": {"steps": 800, "lr": 1e-2}}  # long enough to be killed in
    shared = {"models": MODELS, "distinct": 1, "population": 50, "recipe": recipe, "precision": "auto"}
    return [
        Cell(
            shadows.name(s, c, seed),
            "tasks.shadows:grid",
            {**shared, "examples": s, "classes": c, "seed": seed, "device": "cpu"},
            {"features": folder},
        )
        for s, c, seed in GRID
    ]


def place(store: Path) -> Place:
    return Place(ROOT, store, "shadows", "digits", 1, 0, 2)


def busy(node: psutil.Process) -> bool:
    """Whether a worker of the node is at a cell: Ray names its process after what it computes."""
    names = []
    for one in node.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            names.append(" ".join(one.cmdline()))
    return any(name.startswith("ray::shadows@") for name in names)


def main(root: Path) -> None:
    """Write how many cells were done when the node died."""
    os.environ.update(patience())
    from ray.cluster_utils import Cluster

    # On the machine's own address: Ray keeps a head on loopback to itself. Every call needs the token.
    sizes = {"num_cpus": 1, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args={**sizes, "include_dashboard": False})
    try:
        other = cluster.add_node(**sizes)
        (raylet,) = other.all_processes["raylet"]
        own, store = psutil.Process(raylet.process.pid), root / "shared"
        os.environ["RAY_ADDRESS"] = cluster.address

        def done() -> int:
            return len(list(store.glob("*/cell.json")))

        def kill() -> None:
            wait_for(lambda: done() >= 3 and busy(own), 90)
            (root / "done").write_text(str(done()))
            cluster.remove_node(other, allow_graceful=False)

        killer: Any = threading.Thread(target=kill, daemon=True)
        killer.start()
        fanout.run(cells(root / "model"), place(store))
        killer.join()
        assert not own.is_running()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
