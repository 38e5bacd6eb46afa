"""A disk that is full in the middle of a cell: nothing half is kept, and with room again it is computed."""

import subprocess

import engine_toys
import pytest
from engine_processes import Launch

from tasks.engine import fanout, sealed
from tasks.engine.cells import Cell, Place

SIZE = 300_000  # bytes of the toy's file


def big(place: Place) -> list[Cell]:
    return [Cell("big", "engine_toys:big", {"size": SIZE, "log": str(place.root / "log")})]


def whole(place: Place) -> None:
    """The cell is there, with every byte, and nothing else is."""
    (result,) = (path.parent for path in place.store.glob("*/cell.json"))
    assert sealed.damage(result) is None
    assert (result / "files/big.bin").read_bytes() == b"x" * SIZE


def test_a_file_that_may_not_grow_leaves_nothing(place: Place, start: Launch) -> None:
    """As with a quota; this needs no rights."""

    program = (
        "import engine_toys, resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({SIZE // 2}, {SIZE // 2}))\n"
        f"engine_toys.main('big', {str(place.root)!r})\n"
    )
    failed = start("-c", program)
    _, said = failed.communicate(timeout=120)
    assert failed.returncode == 1 and "File too large" in said and "in cell big of toy" in said
    assert [path.suffix for path in place.store.iterdir()] == [".lock"]
    again = start(engine_toys.__file__, "big", place.root)
    assert again.wait(120) == 0
    whole(place)


@pytest.mark.slow
def test_a_full_disk_leaves_nothing(place: Place) -> None:
    place.store.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE // 2}", "none", str(place.store)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no small file system can be mounted here; only root can")
    try:
        with pytest.raises(OSError, match="No space left on device") as full:
            fanout.run(big(place), place)
        assert full.value.__notes__ == ["in cell big of toy@row"]
        assert [path.suffix for path in place.store.iterdir()] == [".lock"]
        subprocess.run(["mount", "-o", "remount,size=10m", str(place.store)], check=True)
        fanout.run(big(place), place)
        whole(place)
    finally:
        subprocess.run(["umount", str(place.store)], check=True)
