"""PostgreSQL, S3, MLflow and Prefect as `make services` starts them, for a folder that has a `dvc.yaml`."""

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from flow_project import environment, inside, run, wait

from flows import postgres
from flows.project import Mistake

SERVICES = (sys.executable, "-m", "flows.services")


def installed() -> None:
    """Skip where PostgreSQL is not, saying so; `.ci/run` installs it."""
    try:
        postgres.programs()
    except Mistake as lacking:
        pytest.skip(str(lacking))


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder that the user `postgres` can reach, which those of pytest are not."""
    made = Path(tempfile.mkdtemp(prefix="mipriv-services-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def services(project: Path, what: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
    """``python -m flows.services WHAT`` there."""
    return run(project, *SERVICES, what, code=code)


def variables(project: Path) -> dict[str, str]:
    """What a shell has after ``. .services/env``."""
    command = ["sh", "-c", ". .services/env && exec env -0"]
    out = subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True, check=True)
    found = dict(word.split("=", 1) for word in out.stdout.split("\0") if word)
    names = [line.split("=")[0].split()[1] for line in (project / ".services/env").read_text().splitlines()]
    return {name: found[name] for name in names}


def stopped(project: Path) -> None:
    """End them; nothing is left, and to end them again is no mistake."""
    assert services(project, "stop").stdout == "ended\n"
    wait(lambda: not inside(project))
    assert not (project / ".services/env").exists()
    assert "nothing is served" in services(project, "stop").stdout


def passwords(project: Path) -> list[str]:
    """Of PostgreSQL and S3."""
    return list(json.loads((project / ".services/passwords.json").read_text()).values())
