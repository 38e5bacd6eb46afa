"""What a stage asks of the Ray cluster that ``RAY_ADDRESS`` names, and what its workers start with."""

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mipriv.errors import InputError
from tasks.engine import runtime
from tasks.engine.cells import Place

CODE = Path(__file__).resolve().parents[2]
# Of a driver, for hosts whose link goes silent: by itself Ray waits for minutes, and healthy nodes with it.
# Every node has to start with the same, from infra/ray.env: one without takes a driver's fourth question
# within a cell, after 48 s, for an attack, and its worker dies of it ("Too many pings").
PATIENCE = {
    "RAY_grpc_client_keepalive_time_ms": "12000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
    "RAY_grpc_keepalive_time_ms": "5000",
    "RAY_grpc_keepalive_timeout_ms": "5000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
}


def reach(address: str) -> None:
    """Refuse an address where nobody listens: Ray itself would try for many seconds and say little."""
    host, _, port = address.rpartition(":")
    allowed = "allowed: host:port of a running cluster's head; unset, cells are computed in process"
    if not host or not port.isdigit() or "/" in address:
        raise InputError(f"RAY_ADDRESS: {address!r} is no address; {allowed}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"RAY_ADDRESS: no answer from {address!r} ({error}); {allowed}") from error


def fits(nodes: Sequence[Mapping[str, Any]], place: Place) -> None:
    """Refuse a cell that would wait for ever, because no machine of the cluster is large enough for it."""
    sizes = [node["Resources"] for node in nodes if node["Alive"]]
    for name, kind, wanted in (("threads", "CPU", place.threads), ("gpus", "GPU", place.gpus)):
        most = max((size.get(kind, 0) for size in sizes), default=0)
        if wanted > most:
            raise InputError(
                f"params.yaml: cost.{name}: {wanted:g}; allowed: at most {most:g}, the {kind}s of the "
                "largest machine in the Ray cluster"
            )


def started_alike(host: str) -> None:
    """In a worker: refuse a node that would end its longer cells.

    Raises:
        InputError: it was started without infra/ray.env.
    """
    if missing := [name for name in PATIENCE if name not in os.environ]:
        raise InputError(
            f"RAY_ADDRESS: the node {host} was started without {missing[0]}, and "
            "would end every cell after 50 s; allowed: nodes that start with the variables of infra/ray.env"
        )


def environment(place: Place) -> dict[str, str]:
    """Variables of workers: there before torch is imported, and the same sources as here."""
    passed = {name: value for name, value in os.environ.items() if name.startswith("MIPRIV_")}
    path = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return {
        **passed,
        **dict.fromkeys(runtime.VARIABLES, str(place.threads)),
        "PYTHONPATH": os.pathsep.join([str(CODE), *map(os.path.abspath, path)]),
        # Else Ray hides all GPUs from a cell that was promised none.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
