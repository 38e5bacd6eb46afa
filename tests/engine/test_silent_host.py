"""A host whose cable is pulled in the middle of a stage, so that nobody hears of it."""

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import engine_hosts
import engine_remote
import pytest
from engine_processes import HERE, ROOT, wait_for

from flows.cluster import patience
from tasks.engine import fanout
from tasks.engine.cells import Place

pytestmark = pytest.mark.slow
LIMIT = 150.0  # seconds; undisturbed the cells take some 30, and without infra/ray.env they never end


def contents(store: Path) -> list[bytes]:
    """What cells left, whichever their keys."""
    return sorted(path.read_bytes() for path in store.glob("*/files/*"))


def test_a_host_that_goes_silent_costs_its_cells_once(tmp_path: Path) -> None:
    if why := engine_hosts.possible():
        pytest.skip(why)
    alone = Place(tmp_path / "alone", tmp_path / "alone" / ".cells", "toy", "row", 1, 0, 2)
    alone.root.mkdir()
    fanout.run(engine_remote.resting(alone, 0.0), alone)
    root = tmp_path / "root"
    root.mkdir()
    env = {
        **os.environ,
        **patience(),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}",
    }
    with engine_hosts.hosts(2) as there, engine_hosts.node(there, 1, env) as log:
        wait_for(
            lambda: "To terminate the Ray runtime" in log.read_text() or "--block" in log.read_text(), 90
        )
        with engine_hosts.node(there, 2, env):
            driver = there.inside(1, sys.executable, engine_remote.__file__, "rests", root, 1)
            reach = {**env, "RAY_ADDRESS": f"{there.address(1)}:6379"}
            process = subprocess.Popen(driver, env=reach, stderr=subprocess.PIPE, text=True)
            try:
                wait_for(lambda: len(set(engine_remote.nodes(root / "log"))) == 2, 120)
                before = len(engine_remote.nodes(root / "log"))
                there.cut(2)
                cut = time.monotonic()
                _, said = process.communicate(timeout=LIMIT)
            finally:
                process.kill()
                process.wait()
            assert process.returncode == 0, said
            print(f"cut after {before} cells; the rest took {time.monotonic() - cut:.0f} s")
    assert before < engine_remote.RESTING
    assert contents(root / ".cells") == contents(alone.store) and contents(alone.store)
