"""A cell: the unit of fan-out and of resume inside a stage.

A cell is an importable function, frozen keyword arguments and inputs; its key is the hash of all that may
change its result. The result rests in ``.cells/KEY/``, written beside, synced and renamed, and its checksums
are read back before it is used again: a stage that was killed and started again computes only what is
missing. joblib.Memory and diskcache do half of this: they key on a function's own source rather than on the
files that DVC names, pickle what they store and trust what they read back, so a flipped bit would be a
result.
"""

import importlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from mipriv.errors import InputError
from tasks.engine import imports, runtime, sealed
from tasks.engine.events import Events, Line, read

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Cell:
    """One piece of a stage's work.

    Attributes:
        name: folder of its files below the stage's output, e.g. ``seed-0/ids-000``; no part of the key.
        function: ``module:function``, called as ``function(out, inputs, progress, events, **kwargs)``; writes
            into the folder ``out`` and nowhere else.
        kwargs: JSON values only (lists, no tuples; finite numbers).
        inputs: files or folders it reads, hashed by content.
        sources: project files or folders that DVC names for its stage, hashed by content; a result that
            imports another one is refused. `tasks.engine.stage.Stage.cells` fills it in; None: neither hashed
            nor checked.
    """

    name: str
    function: str
    kwargs: Mapping[str, Any]
    inputs: Mapping[str, Path] = field(default_factory=dict)
    sources: tuple[Path, ...] | None = None


@dataclass(frozen=True)
class Place:
    """Where cells are computed: all that a worker has to know, and picklable.

    Attributes:
        root: the project.
        store: the folder ``.cells``.
        stage, row: for the events and for messages.
        threads: torch threads of one cell, part of its key; on Ray as many CPUs are its own.
        gpus: fraction of a GPU that Ray keeps for a cell, or a whole number of them; 0: Ray hands out none,
            and a cell sees those that its machine has.
        retries: how often Ray computes a cell again whose worker died.
        workers: without Ray, processes of this machine that share a stage's cells.
    """

    root: Path
    store: Path
    stage: str
    row: str | None
    threads: int
    gpus: float
    retries: int
    workers: int = 1

    @property
    def address(self) -> str:
        """The stage as DVC calls it, e.g. ``finetune@none``."""
        return f"{self.stage}@{self.row}" if self.row else self.stage


@dataclass(frozen=True)
class Result:
    """A cell that is there: `folder` holds ``files/``, ``events.jsonl`` and ``cell.json``."""

    name: str
    key: str
    folder: Path
    seconds: float
    resumed: bool
    paths: tuple[str, ...]

    @property
    def files(self) -> Path:
        """Folder of what the cell's function wrote."""
        return self.folder / "files"

    def events(self) -> list[Line]:
        """What the cell recorded when it was computed."""
        return read(self.folder / "events.jsonl")


def store(root: Path) -> Path:
    """The folder of cells: ``MIPRIV_CELLS``, or ``.cells`` in the project."""
    return Path(os.environ.get("MIPRIV_CELLS") or root / ".cells").absolute()


def key(cell: Cell, place: Place) -> str:
    """Hex sha256 of what may change a cell's result; neither its name nor any device count."""
    return sealed.hash_json(_identity(cell, place))


def compute(cell: Cell, place: Place, progress: Progress) -> Result:
    """The cell's stored result if it is whole, otherwise compute and store it.

    A second process that wants the same cell waits for the first and takes its result.

    Raises:
        InputError: an input or a source changed meanwhile, or it imports a source that DVC does not name.
        Exception: whatever the function raises; nothing is stored.
    """
    identity = _identity(cell, place)
    final = place.store / sealed.hash_json(identity)
    part = final.with_name(f"{final.name}.part")
    place.store.mkdir(parents=True, exist_ok=True)
    with _lock(final):
        if _whole(cell, final, place):
            return _result(cell, final, resumed=True)
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed: we hold the lock
        try:
            seconds = _work(cell, place, identity, part, progress)
            sealed.put(part, final, {"name": cell.name, "seconds": seconds, **identity})
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    return _result(cell, final, resumed=False)


def stored(cell: Cell, name: str, place: Place) -> Result | None:
    """The result under the key `name` if it is whole; None too while another process is computing it."""
    final = place.store / name
    if not final.exists():
        return None
    try:
        with _lock(final).acquire(timeout=0):
            return _result(cell, final, resumed=True) if _whole(cell, final, place) else None
    except Timeout:
        return None


def collect(results: Mapping[str, Result], out: Path) -> dict[str, Path]:
    """Copy each cell's files to ``out/<cell name>/``.

    Returns:
        Those folders by cell name.
    """
    folders = {name: out / name for name in results}
    for name, result in results.items():
        with _lock(result.folder):
            for path in result.paths:
                (folders[name] / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(result.files / path, folders[name] / path)
    return folders


def _identity(cell: Cell, place: Place) -> dict[str, Any]:
    kwargs = dict(cell.kwargs)
    if json.loads(json.dumps(kwargs, allow_nan=False)) != kwargs:
        raise ValueError(
            f"cell {cell.name}: JSON changes its arguments (a tuple, a key that is no string): {kwargs}"
        )
    sources = imports.files(cell.sources or (), place.root)
    return {
        "function": cell.function,
        "kwargs": kwargs,
        "inputs": {name: sealed.digest(path) for name, path in cell.inputs.items()},
        "sources": {path.as_posix(): sealed.digest(place.root / path) for path in sources},
        "threads": place.threads,
    }


def _whole(cell: Cell, final: Path, place: Place) -> bool:
    """Whether a result is there, is wanted and has every byte that it was stored with."""
    if not final.exists() or os.environ.get("MIPRIV_IGNORE_CELLS") == "1":
        return False
    damage = sealed.damage(final)
    if damage is not None:
        tqdm.write(f"{place.address}  {cell.name}  stored result {damage}: computing it again", sys.stderr)
    return damage is None


def _work(cell: Cell, place: Place, identity: dict[str, Any], part: Path, progress: Progress) -> float:
    """Let the function write into ``part/files``; returns the seconds it took."""
    module, _, name = cell.function.partition(":")
    function: Callable[..., None] = getattr(importlib.import_module(module), name)
    runtime.settle(place.threads)
    out = part / "files"
    out.mkdir(parents=True)
    started = time.perf_counter()
    with Events(part / "events.jsonl", out, place.root, place.stage, place.row, cell.name) as events:
        events.params(cell.kwargs)
        for name, path in cell.inputs.items():
            events.input(name, identity["inputs"][name], path)
        function(out, dict(cell.inputs), progress, events, **cell.kwargs)
        runtime.check(cell.function)
        if cell.sources is not None:
            imports.check(place.address, cell.sources, place.root)
        if _identity(cell, place) != identity:
            raise InputError(
                f"{place.address}: an input or a source of cell {cell.name} was changed meanwhile"
            )
    return round(time.perf_counter() - started, 3)


def _result(cell: Cell, folder: Path, resumed: bool) -> Result:
    facts = sealed.facts(folder)
    names = (name.removeprefix("files/") for name in facts["files"] if name.startswith("files/"))
    return Result(cell.name, folder.name, folder, facts["seconds"], resumed, tuple(names))


def _lock(folder: Path) -> FileLock:
    return FileLock(folder.with_name(f"{folder.name}.lock"))
