"""Two Ray nodes on this machine, as a program: ``python flow_nodes.py NOTE [CPUS]``, of 1 CPU each or CPUS.

It writes their address and the processes of both nodes into the file, and ends them when its standard input
closes.
"""

import json
import os
import sys
from pathlib import Path

from flows.cluster import patience

STORE = 80_000_000  # bytes


def main(note: Path, cpus: int) -> None:
    os.environ.update(patience())
    from ray.cluster_utils import Cluster

    sizes = {"num_cpus": cpus, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args={**sizes, "include_dashboard": False})
    try:
        nodes = [cluster.head_node, cluster.add_node(**sizes)]
        raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
        part = note.with_suffix(".part")
        part.write_text(json.dumps({"address": cluster.address, "raylets": raylets}))
        part.rename(note)
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 1)
