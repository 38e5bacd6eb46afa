"""Event files to publish, and everything that MLflow then holds as plain values."""

import contextlib
import socket
from pathlib import Path
from typing import Any

from tasks.engine import events, publisher
from tasks.engine.events import Events

PUBLISHER = ("-m", "tasks.engine.publisher")


def client(root: Path, uri: str | None = None) -> Any:
    publisher._environment()
    from mlflow import MlflowClient

    return MlflowClient(uri or f"sqlite:///{root / 'mlflow.db'}")


def stage(root: Path, row: str = "none", loss: float = 1.0, fail: bool = False) -> Path:
    """The event file of a stage with two cells, as the engine writes it."""
    out = root / "out" / "finetune" / row
    out.mkdir(parents=True, exist_ok=True)
    (out / "grid.png").write_bytes(b"pixels")
    file = root / "out" / "events" / "finetune" / f"{row}.jsonl"
    with contextlib.suppress(KeyError), Events(file, root, root, "finetune", row, None) as log:
        log.params({"recipe": {"epochs": 3, "note": "n" * 9000, "sizes": [1, 2]}, "name": "none"})
        log.metrics({"loss": loss, "diverged": float("nan")}, step=4)
        log.input("data", "d" * 64, root / "out" / "data")
        log.text("device", "cpu " * 3000)
        log.artifact(out / "grid.png", kind="image", name="plots/grid.png")
        for seed in range(2):
            log.cell(f"seed-{seed}", f"{seed}" * 64, False, out / f"seed-{seed}", cell(root, out, seed))
        if fail:
            raise KeyError("a bug")
    return file


def cell(root: Path, out: Path, seed: int) -> list[events.Line]:
    folder = out / f"seed-{seed}"
    folder.mkdir(exist_ok=True)
    (folder / "log.txt").write_text(f"seed {seed}")
    with Events(None, folder, root, "finetune", out.name, f"seed-{seed}") as log:
        log.params({"seed": seed, **{f"knob{i}": i for i in range(150)}})
        for step in range(1100):
            log.metric("loss", seed + 1 / (step + 1), step)
        log.artifact(folder / "log.txt")
    return log.lines


def snapshot(store: Any) -> list[dict[str, Any]]:
    """Everything MLflow holds, run by run, without the ids it makes up."""
    experiment = store.get_experiment_by_name("mipriv")
    runs = store.search_runs([experiment.experiment_id], run_view_type=3, max_results=1000)  # 3: deleted too
    names = {run.info.run_id: run.info.run_name for run in runs}
    return sorted((shown(store, run, names) for run in runs), key=lambda run: (run["times"], run["name"]))


def shown(store: Any, run: Any, names: dict[str, str]) -> dict[str, Any]:
    """One run as plain values."""
    info, tags = run.info, dict(run.data.tags)
    history = {key: store.get_metric_history(info.run_id, key) for key in run.data.metrics}
    return {
        "name": info.run_name,
        "parent": names.get(tags.pop("mlflow.parentRunId", None)),
        "tags": tags,
        "status": info.status,
        "stage": info.lifecycle_stage,
        "times": (info.start_time, info.end_time),
        "params": run.data.params,
        "metrics": {
            key: sorted((m.step, m.timestamp, str(m.value)) for m in of) for key, of in history.items()
        },
        "artifacts": sorted(artifacts(store, info.run_id, None)),
        "inputs": [(d.dataset.name, d.dataset.digest, d.dataset.source) for d in run.inputs.dataset_inputs],
    }


def artifacts(store: Any, run: str, below: str | None) -> list[str]:
    """Paths of all files of a run."""
    files = store.list_artifacts(run, below)
    return [
        path for file in files for path in (artifacts(store, run, file.path) if file.is_dir else [file.path])
    ]


def by_name(runs: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = (run for run in runs if run["name"] == name)
    return found


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def published(root: Path, name: str) -> bool:
    store = client(root)
    experiment = store.get_experiment_by_name("mipriv")
    found = (
        store.search_runs([experiment.experiment_id], "tags.`mipriv.complete` = 'true'") if experiment else []
    )
    return name in [run.info.run_name for run in found]
