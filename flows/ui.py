"""`make ui`: the browsers over this project's runs and records, Prefect's and MLflow's, on loopback only."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from flows import children
from flows.project import artifact, environment, root
from flows.records import store, without_password
from flows.server import HOST, PORT, await_answer, free_port, started

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


@contextlib.contextmanager
def mlflow(project: Path, port: int) -> Iterator[str]:
    """MLflow's server over the database and the artifacts that the publisher writes; gives its address."""
    # Replaying first makes the database where there is none, and shows what a dead server missed.
    replay = [sys.executable, "-m", "tasks.engine.publisher", "--events", str(artifact(project, "events"))]
    subprocess.run(replay, cwd=project, check=False)
    number = free_port(port)
    where = ["--host", HOST, "--port", str(number), "--workers", "1"]
    kept = ["--backend-store-uri", store(project), "--default-artifact-root", str(project / "mlartifacts")]
    child = children.start("mlflow", "server", *kept, *where, cwd=project, env=environment(**QUIET))
    address = f"http://{HOST}:{number}"
    try:
        await_answer(f"{address}/health", child, "MLflow")
        yield address
    finally:
        children.end(child)


def main() -> int:
    """Serve until interrupted; both servers end then, or with this process however that ends."""
    parser = argparse.ArgumentParser(prog="python -m flows.ui", description=__doc__, allow_abbrev=False)
    parser.add_argument("--mlflow-port", type=int, default=5000)
    parser.add_argument("--prefect-port", type=int, default=PORT)
    given, project = parser.parse_args(), root()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as servers:
        runs = os.environ.get("PREFECT_API_URL")
        elsewhere = store(project) if store(project).startswith(("http://", "https://")) else None
        api = runs or servers.enter_context(started(project, given.prefect_port, announce=True))
        records = elsewhere or servers.enter_context(mlflow(project, given.mlflow_port))
        print(f"Prefect: {without_password(api).removesuffix('/api')}")
        print(f"MLflow:  {without_password(records)}")
        print("Ctrl-C ends what was started here", flush=True)
        while not (elsewhere and runs):
            time.sleep(3600)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
