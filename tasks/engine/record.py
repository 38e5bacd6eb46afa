"""An event file as what a tracking server wants to know: one record for the stage, one for each of its cells
and of its findings."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.engine import events
from tasks.engine.events import Line


@dataclass(frozen=True)
class Metric:
    """A number at a time (milliseconds since 1970) and a step."""

    key: str
    value: float
    time: int
    step: int


@dataclass(frozen=True)
class Artifact:
    """A file, by its path in the project, its sha256 then, and the path it is shown under."""

    path: Path
    sha256: str
    name: str


@dataclass(frozen=True)
class Input:
    """What was worked on, by digest; `path` is in the project, or None."""

    name: str
    digest: str
    path: str | None


@dataclass(frozen=True)
class Record:
    """One run: of a stage where `cell` is None, else of that cell or finding.

    Its tag ``mipriv.kind`` is stage, cell or finding. `begin` and `end` are milliseconds since 1970; `end` is
    None for a writer that was killed or is still at it.
    """

    cell: str | None
    tags: dict[str, str]
    params: dict[str, str]
    metrics: tuple[Metric, ...]
    artifacts: tuple[Artifact, ...]
    inputs: tuple[Input, ...]
    texts: dict[str, str]
    begin: int
    end: int | None
    failed: bool
    children: tuple["Record", ...]

    @property
    def address(self) -> str:
        """The stage as DVC calls it."""
        return self.tags["mipriv.stage"]


def read(path: Path) -> Record:
    """The record in an event file.

    Its tag ``dvc.hash`` is the md5 of the file, which is how DVC knows it.

    Raises:
        InputError: no event file, or a damaged one.
    """
    lines = events.read(path)
    digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    return _record(lines, Path(), {"dvc.hash": digest, "mipriv.kind": "stage"})


def _record(lines: list[Line], folder: Path, given: dict[str, str]) -> Record:
    start = next(_of(lines, "start"))
    end = next(_of(lines, "end"), None)
    shared = given | {key: value for line in _of(lines, "tags") for key, value in line["values"].items()}
    tags = shared | _tags(start, end, lines)
    cells = tuple(
        _record(
            line["events"],
            Path(line["folder"]),
            shared | {"mipriv.cell.key": line["key"], "mipriv.cell": line["name"], "mipriv.kind": "cell"},
        )
        for line in _of(lines, "cell")
    )
    findings = tuple(_finding(line, tags) for line in _of(lines, "finding"))
    return Record(
        cell=given.get("mipriv.cell"),
        tags=tags,
        params={key: value for line in _of(lines, "params") for key, value in _flat(line["values"])},
        metrics=tuple(metric for line in _of(lines, "metric") for metric in _metrics(line)),
        artifacts=tuple(
            Artifact(folder / line["path"], line["sha256"], line["name"]) for line in _of(lines, "artifact")
        ),
        inputs=tuple(Input(line["name"], line["digest"], line["path"]) for line in _of(lines, "input")),
        texts={line["key"]: line["value"] for line in _of(lines, "text")},
        begin=_milliseconds(start),
        end=None if end is None else _milliseconds(end),
        failed=end is not None and end["status"] != "finished",
        children=cells + findings,
    )


def _finding(line: Line, tags: dict[str, str]) -> Record:
    time = _milliseconds(line)
    return Record(
        cell=line["name"],
        tags=tags | line["tags"] | {"mipriv.cell": line["name"], "mipriv.kind": "finding"},
        params={},
        metrics=tuple(Metric(key, value, time, 0) for key, value in line["values"].items()),
        artifacts=(),
        inputs=(),
        texts={},
        begin=time,
        end=time,
        failed=False,
        children=(),
    )


def _of(lines: list[Line], event: str) -> Iterator[Line]:
    return (line for line in lines if line["event"] == event)


def _tags(start: Line, end: Line | None, lines: list[Line]) -> dict[str, str]:
    stage, row = start["stage"], start["row"]
    nonfinite = sorted({key for line in _of(lines, "metric") for key in line.get("nonfinite", [])})
    versions = (end or start)["versions"]
    tags = {
        "mipriv.stage": f"{stage}@{row}" if row else stage,
        "mipriv.row": row,
        "mlflow.source.name": f"tasks.{stage}",
        "mlflow.source.git.commit": start["git"]["commit"],
        "mipriv.git.dirty": start["git"]["dirty"],
        "mipriv.nonfinite": ", ".join(nonfinite) or None,
        "mipriv.error": end.get("error") if end else None,
        **{f"version.{name}": version for name, version in versions.items()},
        **{f"input.{line['name']}": line["digest"] for line in _of(lines, "input")},
    }
    return {key: str(value) for key, value in tags.items() if value is not None}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as dotted keys; lists as JSON."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


def _metrics(line: Line) -> Iterator[Metric]:
    for key, value in line["values"].items():
        yield Metric(key, float(value), _milliseconds(line), line["step"] or 0)


def _milliseconds(line: Line) -> int:
    return round(datetime.fromisoformat(line["time"]).timestamp() * 1000)
