"""Folders whose content is known by hash: written whole or not at all, and checked before they are used."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tasks.engine.events import sha256

SEAL = "cell.json"
SYNCS = 8  # files synced at once
_seen: dict[tuple[str, int, int, int], str] = {}


def hash_json(value: object) -> str:
    """Hex sha256 of a JSON value, in one canonical spelling."""
    canonical = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def digest(path: Path) -> str:
    """Hex sha256 of a file's bytes, or of a folder's relative paths and bytes.

    A file is read once a process as long as it does not change: the cells of a stage share their inputs.
    """
    if path.is_dir():
        return hash_json({name: _of_file(os.path.join(path, name)) for name in walk(path)})
    return _of_file(os.fspath(path))


def _of_file(path: str) -> str:
    """By strings, as all that is asked a hundred times a cell: a `Path` costs more than what it names."""
    stat = os.stat(path)
    stamp = (os.path.abspath(path), stat.st_ino, stat.st_mtime_ns, stat.st_size)
    if stamp not in _seen:
        _seen[stamp] = sha256(Path(path))
    return _seen[stamp]


def walk(folder: Path) -> list[str]:
    """Relative paths of all files below a folder, sorted."""
    top = os.path.join(folder, "")
    found = (os.path.join(here, name) for here, _, names in os.walk(top) for name in names)
    return sorted(path[len(top) :].replace(os.sep, "/") for path in found if os.path.isfile(path))


def put(part: Path, final: Path, facts: Mapping[str, Any]) -> None:
    """Seal the folder `part` with `facts` and rename it to `final`, which it replaces.

    Everything is synced first, so that a power cut leaves the old folder, the new one or none.
    """
    listing = {
        name: {"sha256": sha256(part / name), "size": (part / name).stat().st_size} for name in walk(part)
    }
    content = {**facts, "files": listing}
    text = json.dumps({**content, "checksum": hash_json(content)}, indent=1, sort_keys=True)
    (part / SEAL).write_text(text + "\n")
    _sync_all([Path(folder, name) for folder, _, names in os.walk(part) for name in (*names, ".")])
    if final.exists():
        old = final.with_name(f"{final.name}.old")
        shutil.rmtree(old, ignore_errors=True)  # of a process that was killed right here
        shutil.rmtree(final.rename(old))
    part.rename(final)
    _sync(final.parent)


def facts(folder: Path) -> dict[str, Any]:
    """What a folder was sealed with, and ``files``: size and sha256 of each by relative path."""
    content: dict[str, Any] = json.loads((folder / SEAL).read_bytes())
    return content


def damage(folder: Path) -> str | None:
    """What is wrong with a sealed folder, in words, or None; reads every byte of it."""
    try:
        content = facts(folder)
        intact = content.pop("checksum") == hash_json(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"has no readable {SEAL}"
    if not intact:
        return f"has an altered {SEAL}"
    for name, fact in content["files"].items():
        path = folder / name
        if not path.is_file():
            return f"lacks {name}"
        if path.stat().st_size != fact["size"] or sha256(path) != fact["sha256"]:
            return f"has an altered {name}"
    return None


def _sync_all(paths: Sequence[Path]) -> None:
    """Sync all before it returns; side by side, so that one commit of the file system serves several.

    Raises:
        OSError: of the first that fails.
    """
    # No pool outlives this call: a stage's workers are forks, and threads do not survive those.
    with ThreadPoolExecutor(min(SYNCS, len(paths))) as pool:
        for _ in pool.map(_sync, paths):
            pass


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
