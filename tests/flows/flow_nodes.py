"""Two Ray nodes of one CPU each on this machine, as a program: ``python flow_nodes.py NOTE``.

It writes their address and the processes of both nodes into the file, and ends them when its standard input
closes.
"""

import json
import sys
from pathlib import Path

from ray.cluster_utils import Cluster

SIZES = {"num_cpus": 1, "object_store_memory": 80_000_000}


def main(note: Path) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={**SIZES, "include_dashboard": False})
    try:
        nodes = [cluster.head_node, cluster.add_node(**SIZES)]
        raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
        part = note.with_suffix(".part")
        part.write_text(json.dumps({"address": cluster.address, "raylets": raylets}))
        part.rename(note)
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
