"""What happened in a stage or a cell, as JSON lines in one file.

The file is an output of its stage and no stage depends on it; the publisher replays it into MLflow. Every
line has an ``event`` (start, params, tags, metric, finding, artifact, input, text, cell, end). Values of
environment variables, remote addresses and texts of foreign exceptions never enter, hence no secret does.
"""

import functools
import hashlib
import json
import math
import platform
import posixpath
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from mipriv.errors import InputError

Line = dict[str, Any]
NAME = re.compile(r"[\w.\- :/]{1,200}")  # what MLflow takes as a key, with room for a prefix


class Events:
    """Writer of one event file, or of a list in memory where `path` is None; a context manager.

    Args:
        path: the file, replaced if it is there; its folder is made.
        root: folder that artifacts lie in; their paths are written relative to it.
        project: folder whose git commit is recorded; paths of inputs are relative to it.
        stage, row, cell: names; None where there is no such thing.
    """

    def __init__(
        self, path: Path | None, root: Path, project: Path, stage: str, row: str | None, cell: str | None
    ) -> None:
        self.path, self.root, self.project = path, root, project
        self.lines: list[Line] = []
        self._names = {"stage": stage, "row": row, "cell": cell}
        self._artifacts: set[str] = set()

    def __enter__(self) -> Self:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="ascii")
        self._started = time.perf_counter()
        self._write("start", **self._names, git=_git(self.project), versions=_versions())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        end: dict[str, Any] = {"status": "finished" if kind is None else "failed", "versions": _versions()}
        if kind is not None:
            end["error"] = f"InputError: {error}" if isinstance(error, InputError) else kind.__name__
        self._write("end", **end, seconds=round(time.perf_counter() - self._started, 3))
        if self.path is not None:
            self._file.close()

    def params(self, values: Mapping[str, Any]) -> None:
        """Record parameters: a mapping, nested as deep as you like, of JSON values."""
        self._write("params", values=dict(values))

    def tags(self, values: Mapping[str, str]) -> None:
        """Record words to find it by, e.g. ``{"attack": "ppa"}``; its cells and findings have them too."""
        self._write("tags", values={_name(key): value for key, value in values.items()})

    def finding(self, name: str, tags: Mapping[str, str], values: Mapping[str, float]) -> None:
        """Record numbers about one thing among several that a stage looks at, as a record of its own."""
        numbers = {_name(key): float(value) for key, value in values.items()}
        self._write("finding", name=_name(name), tags=dict(tags), values=numbers)

    def metric(self, key: str, value: float, step: int | None = None) -> None:
        """Record one number; see `metrics`."""
        self.metrics({key: value}, step)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record numbers that belong together; one that is not finite is kept as a string and named."""
        numbers = {_name(key): float(value) for key, value in values.items()}
        nonfinite = [key for key, value in numbers.items() if not math.isfinite(value)]
        kept = {key: str(value) if key in nonfinite else value for key, value in numbers.items()}
        self._write("metric", values=kept, step=step, **({"nonfinite": nonfinite} if nonfinite else {}))

    def artifact(self, path: Path, kind: Literal["file", "image"] = "file", name: str | None = None) -> None:
        """Record a file inside `root` by path and sha256; `name`, or its own, is its path in a run."""
        shown = _name(name or path.name)
        if shown in self._artifacts:
            raise ValueError(f"artifact {shown!r} is recorded twice; give one of them another name")
        self._artifacts.add(shown)
        relative = _relative(path, self.root)
        self._write("artifact", path=relative, sha256=sha256(path), kind=kind, name=shown)

    def input(self, name: str, digest: str, path: Path | None = None) -> None:
        """Record what the work was done on; a `path` outside of the project stays out of the record."""
        inside = path is not None and path.absolute().is_relative_to(self.project.absolute())
        shown = _relative(path, self.project) if path is not None and inside else None
        self._write("input", name=_name(name), digest=digest, path=shown)

    def text(self, key: str, value: str) -> None:
        """Record a text, e.g. a note on the device or a table in Markdown."""
        self._write("text", key=_name(key), value=value)

    def cell(self, name: str, key: str, resumed: bool, folder: Path, events: list[Line]) -> None:
        """Embed a cell's own events; its artifacts now lie in `folder`, which is inside `root`."""
        shown = _relative(folder, self.root)
        self._write("cell", name=name, key=key, resumed=resumed, folder=shown, events=events)

    def _write(self, event: str, **values: Any) -> None:
        line = {"event": event, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **values}
        text = json.dumps(line, allow_nan=False)
        self.lines.append(line)
        if self.path is not None:
            self._file.write(text + "\n")
            self._file.flush()  # a killed stage leaves what it said


def read(path: Path) -> list[Line]:
    """Events of a file, in order.

    A writer that was killed leaves half a line at the end: it is dropped, and a ``truncated`` event stands
    for it.

    Raises:
        InputError: the file cannot be read, or a line that is not the last is no JSON object.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    events: list[Line] = []
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line)
        except ValueError as error:  # JSONDecodeError and UnicodeDecodeError both are
            if number < len(lines) or line.endswith(b"\n"):
                raise InputError(
                    f"{path}, line {number}: not an event; allowed: one JSON object a line"
                ) from error
            event = {"event": "truncated", "line": number}
        if not isinstance(event, dict) or "event" not in event:
            raise InputError(f"{path}, line {number}: not an event; allowed: one JSON object a line")
        events.append(event)
    return events


def ended(path: Path) -> bool:
    """Whether the writer of an event file has come to its end, well or not."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 65536))
        lines = file.read().splitlines(keepends=True)
    return bool(lines) and lines[-1].startswith(b'{"event": "end"') and lines[-1].endswith(b"\n")


def sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _relative(path: Path, root: Path) -> str:
    return path.absolute().relative_to(root.absolute()).as_posix()


def _name(name: str) -> str:
    if not NAME.fullmatch(name) or posixpath.normpath(name) != name or name.startswith((".", "/")):
        raise ValueError(
            f"{name!r} cannot name a record; allowed: up to 200 letters, digits and _ . - : / or space"
        )
    return name


def _versions() -> dict[str, str]:
    torch = sys.modules.get("torch")
    return {"python": platform.python_version(), **({"torch": str(torch.__version__)} if torch else {})}


@functools.cache
def _git(project: Path) -> dict[str, Any]:
    """Commit, and whether any file differs from it or is new, dvc.lock apart: a run changes that itself."""
    commit = _git_says(project, "rev-parse", "HEAD")
    changes = _git_says(project, "status", "--porcelain", "--", ".", ":(exclude)dvc.lock")
    return {"commit": commit, "dirty": None if commit is None else bool(changes)}


def _git_says(project: Path, *command: str) -> str | None:
    # Without the flag a status would take git's index lock from under the user.
    git = ["git", "--no-optional-locks", "-C", str(project), *command]
    try:
        done = subprocess.run(git, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
