"""Ten thousand cells wait in the driver, and not in Ray: it grows by little more than they take."""

import time
from pathlib import Path

import engine_remote
import psutil
import pytest
from engine_processes import Launch, wait_for

pytestmark = pytest.mark.usefixtures("on_ray")
ROOM = 40e6  # bytes: 6 MB were measured, and 66 MB with all of them in Ray's hands


def memory(root: Path, kind: str, start: Launch) -> int:
    """Of a driver whose cells have all been told to Ray that ever will be, as long as none ends."""
    root.mkdir()
    process = start(engine_remote.__file__, kind, root, 1)
    wait_for(lambda: len(engine_remote.nodes(root / "log")) == 2, 120)
    time.sleep(3)
    found: int = psutil.Process(process.pid).memory_info().rss
    process.terminate()
    process.wait(60)
    return found


def test_ten_thousand_cells_queue_in_bounded_memory(tmp_path: Path, start: Launch) -> None:
    few, many = (memory(tmp_path / kind, kind, start) for kind in ("few", "many"))
    assert many - few < ROOM
