"""The parent process of stages: there while a run lasts, on a leash, and gone after it."""

import os
import subprocess
import sys
from pathlib import Path

import flow_project
import pytest

from flows import warm


def test_it_takes_stages_while_the_context_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(warm.VARIABLE, raising=False)
    with warm.parent(flow_project.ROOT) as variables:
        path = Path(variables[warm.VARIABLE])
        assert path.is_socket() and path.parent.stat().st_mode & 0o077 == 0, "nobody else can reach it"
        done = subprocess.run(
            [sys.executable, "-m", "tasks.split", "--rows", "x"],
            cwd=flow_project.ROOT,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2 and "python -m tasks.split: error:" in done.stderr
        assert "starting without it" not in done.stderr
    assert not path.exists()


def test_there_is_none_where_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(warm.VARIABLE, warm.OFF)
    with warm.parent(flow_project.ROOT) as variables:
        assert variables == {}
