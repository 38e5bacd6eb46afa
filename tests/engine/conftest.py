"""Fixtures of the engine's tests: real processes, real files, a real DVC project."""

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_mlflow import client
from engine_processes import HERE, ROOT, Launch, dvc
from engine_s3 import SMALL

from flows.cluster import local_head
from tasks.engine.cells import Place
from tests.bucket import Proxy, environment, serve


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, tmp_path / ".cells", "toy", "row", 1, 0, 1)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where toys say that they ran."""
    return tmp_path / "log"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test publishes by accident, and what `runtime.settle` sets does not leak into other tests."""
    for name in (
        "MIPRIV_CELLS",
        "MIPRIV_IGNORE_CELLS",
        "MLFLOW_TRACKING_URI",
        "MLFLOW_EXPERIMENT_NAME",
        "RAY_ADDRESS",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MIPRIV_PUBLISH", "off")
    before = dict(os.environ)
    torch = sys.modules.get("torch")
    state = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) if torch else None
    yield
    os.environ.clear()
    os.environ.update(before)
    if torch and state:
        torch.set_num_threads(state[0])
        torch.use_deterministic_algorithms(state[1])


@pytest.fixture
def start() -> Iterator[Launch]:
    """Starts ``python ...`` that finds the project and the toys; what still runs in the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def launch(
        *arguments: object,
        cwd: Path = ROOT,
        path: Path = ROOT,
        stdin: int | None = None,
        env: dict[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{HERE}", **(env or {})}
        command, pipe = [sys.executable, *map(str, arguments)], subprocess.PIPE
        started.append(
            subprocess.Popen(
                command, cwd=cwd, env=environment, stdin=stdin, stdout=pipe, stderr=pipe, text=True
            )
        )
        return started[-1]

    yield launch
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in filter(None, (process.stdin, process.stdout, process.stderr)):
            stream.close()


@pytest.fixture(scope="session")
def head() -> Iterator[dict[str, str]]:
    """What reaches a Ray head of 2 CPUs and a GPU that is not there; starting one takes seconds."""
    with pytest.MonkeyPatch.context() as outside:
        outside.delenv("RAY_ADDRESS", raising=False)
        with local_head(ROOT, cpus=2, gpus=1) as environment:
            yield environment


@pytest.fixture
def on_ray(head: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of this test go to the head."""
    for name, value in {**head, "PYTHONPATH": str(HERE)}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with tables and nothing in it; making one takes seconds."""
    root = tmp_path_factory.mktemp("fresh")
    client(root).search_experiments()
    return root / "mlflow.db"


@pytest.fixture
def root(tmp_path: Path, fresh: Path) -> Path:
    shutil.copy(fresh, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A DVC project of its own with a copy of the engine and one toy stage of two rows."""
    for name in ("tasks/__init__.py", "mipriv/__init__.py", "mipriv/errors.py", "mipriv/plugin.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "tasks" / "engine").mkdir()
    for source in (ROOT / "tasks" / "engine").glob("*.py"):
        shutil.copy(source, tmp_path / "tasks" / "engine")
    shutil.copytree(HERE / "project", tmp_path, dirs_exist_ok=True)
    (tmp_path / "pipeline.yaml").rename(tmp_path / "dvc.yaml")  # else DVC finds it in the real project, too
    dvc(tmp_path, "init", "--no-scm", "--quiet")
    return tmp_path


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A real S3 server: the folder of its buckets, and its port."""
    folder = tmp_path_factory.mktemp("s3")
    with serve(folder, "--dir-cache-time", "0s") as port:
        yield folder / "buckets", port


@pytest.fixture
def proxy(s3: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Stands before the server, and is where the environment leads."""
    between = Proxy(s3[1])
    for name, value in environment(between.port).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tasks.engine.transfer.PAUSE", 0.0)
    yield between
    between.close()


@pytest.fixture
def bucket(s3: tuple[Path, int], proxy: Proxy) -> Path:
    """A new bucket: a folder, that the server shows under its name."""
    folder = s3[0] / f"bucket-{uuid.uuid4().hex}"
    folder.mkdir()
    return folder


@pytest.fixture
def faces(bucket: Path) -> str:
    """``s3://BUCKET/faces`` with `SMALL`, beside another prefix that begins the same."""
    for name, content in {**SMALL, "../faces2/x.png": b"other"}.items():
        file = bucket / "faces" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return f"s3://{bucket.name}/faces"
