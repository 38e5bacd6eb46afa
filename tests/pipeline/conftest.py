"""One real run of the smoke scale, shared by every test of the pipeline."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flows import scale

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


def environment() -> dict[str, str]:
    """As a user's shell inside the environment: its programs first on the path, no tracking server."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "MIPRIV_"))}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def run(
    project: Path, *command: object, code: int | None = 0, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a project and hold its exit code against `code` (None: any)."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=project, env={**environment(), **env}, capture_output=True, text=True, check=False
    )
    assert code is None or done.returncode == code, (
        f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done


def ran(done: subprocess.CompletedProcess[str]) -> set[str]:
    """Stages that a `dvc repro` ran, by the lines it prints."""
    lines = [line for line in done.stdout.splitlines() if line.startswith("Running stage")]
    return {line.split("'")[1] for line in lines}


def edit(project: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Change `params.yaml` in place, as a person with an editor would."""
    yaml, path = YAML(), project / "params.yaml"
    values = yaml.load(path.read_text())
    change(values)
    with path.open("w") as file:
        yaml.dump(values, file)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after `make smoke`, committed as a user would, with a cache that knows no earlier runs."""
    project = tmp_path_factory.mktemp("smoke") / "project"
    scale.prepare(ROOT, "smoke", project)
    run(project, "dvc", "config", "--local", "cache.dir", project / ".dvc" / "cache")
    run(project, sys.executable, "-m", "flows.whole")
    run(project, "git", "add", "-A")
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    run(project, "git", *identity, "commit", "-q", "-m", "smoke")
    return project


@pytest.fixture
def copy(smoke: Path, tmp_path: Path) -> Path:
    """The finished smoke project to be changed by one test, sharing its cache."""
    project = tmp_path / "project"
    shutil.copytree(smoke, project, symlinks=True)
    return project
