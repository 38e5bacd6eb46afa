"""What a power cut may meet: all of a sealed folder is on the disk before it gets its name.

The real calls are made, and written down; no test can pull the plug.
"""

import errno
import os
import time
from pathlib import Path

import pytest

from tasks.engine import sealed


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """A folder of more files than are synced at once."""
    made = tmp_path / "cell.part"
    for number in range(2 * sealed.SYNCS):
        (made / f"files/{number % 3}").mkdir(parents=True, exist_ok=True)
        (made / f"files/{number % 3}/{number}.txt").write_text(str(number))
    return made


def test_files_and_folders_are_synced_before_the_rename(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Path]] = []
    sync, rename = os.fsync, Path.rename

    def slow(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        time.sleep(0.02)  # who does not wait for it is caught
        sync(descriptor)
        calls.append(("sync", path))

    def named(path: Path, target: Path) -> Path:
        calls.append(("rename", path))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", slow)
    monkeypatch.setattr(Path, "rename", named)
    wanted = {part, part / sealed.SEAL, *part.rglob("*")}
    final = part.with_name("cell")
    sealed.put(part, final, {})
    at = calls.index(("rename", part))
    assert {path for _, path in calls[:at]} == wanted and len(calls[:at]) == len(wanted)
    assert calls[at + 1 :] == [("sync", part.parent)]  # its name, too
    assert sealed.damage(final) is None


def test_what_cannot_be_synced_gets_no_name(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def broken(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/7.txt"):
            raise OSError(errno.EIO, "Input/output error")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        sealed.put(part, part.with_name("cell"), {})
    assert not part.with_name("cell").exists()
