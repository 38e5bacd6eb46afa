"""`make ui`: the MLflow browser over the records of this project, on loopback only."""

import argparse
import os
import socket
import subprocess
import sys
from pathlib import Path

from flows.project import root

HOST = "127.0.0.1"


def free_port(wanted: int) -> int:
    """`wanted`, or the next port that nobody listens on."""
    for port in range(wanted, wanted + 100):
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)):
                return port
    raise SystemExit(f"error: no free port from {wanted} to {wanted + 99}")


def command(project: Path, port: int) -> list[str]:
    """What starts the server: the database and the artifacts that the publisher writes."""
    store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project / 'mlflow.db'}"
    where = ["--host", HOST, "--port", str(port), "--workers", "1"]
    artifacts = ["--default-artifact-root", str(project / "mlartifacts")]
    return [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, *artifacts, *where]


def main() -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m flows.ui", description=__doc__, allow_abbrev=False)
    parser.add_argument("--port", type=int, default=5000)
    project, port = root(), free_port(parser.parse_args().port)
    store = os.environ.get("MLFLOW_TRACKING_URI", "")
    if store.startswith(("http://", "https://")):
        print(f"MLflow: records go to the server at {store}; open it there")
        return 0
    # Replaying first makes the database where there is none, and shows what a dead server missed.
    subprocess.run([sys.executable, "-m", "tasks.engine.publisher"], cwd=project, check=False)
    print(f"MLflow: http://{HOST}:{port} (Ctrl-C ends it)", flush=True)
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    try:
        return subprocess.run(
            command(project, port), cwd=project, env={**os.environ, **quiet}, check=False
        ).returncode
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
