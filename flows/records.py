"""What stages have recorded, for people who look at a flow: tables, and where MLflow shows them.

An event file is one JSON object a line (`tasks/engine/events.py` writes it).
"""

import json
import os
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

LIMIT = 500  # lines of a table
BROWSER = "http://127.0.0.1:5000"  # of `make ui`

Row = dict[str, Any]


def events(folder: Path, outs: Iterable[Path]) -> Path | None:
    """A stage's event file: its output in the folder of all event files."""
    return next((out for out in outs if out.suffix == ".jsonl" and out.is_relative_to(folder)), None)


def table(file: Path) -> list[Row]:
    """Seconds and the last value of each metric, of a stage and of its cells; empty for no such file."""
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):  # a stage that was killed has written half a line
        return []
    rows = [*_rows(lines, ""), *(row for line in lines for row in _cell(line))]
    return rows[:LIMIT]


def store(project: Path) -> str:
    """MLflow's address, as the publisher finds it."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project / 'mlflow.db'}"


def page(uri: str) -> str | None:
    """Where the MLflow browser shows the runs of this project; None as long as there are none.

    Its pages go by the number of the experiment, which only the store knows.
    """
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "mipriv")
    remote = urlsplit(uri).scheme in ("http", "https")
    base = without_password(uri) if remote else BROWSER
    number = _asked(base, name) if remote else _looked_up(uri.removeprefix("sqlite:///"), name)
    return None if number is None else f"{base}/#/experiments/{number}/runs"


def search(page: str, address: str) -> str:
    """The page filtered to the runs of one stage."""
    wanted = f"tags.`mipriv.stage` = '{address}'"
    return f"{page}?searchFilter={quote(wanted, safe='')}"


def _cell(line: Row) -> Iterator[Row]:
    if line["event"] == "cell":
        yield from _rows(line["events"], line["name"])


def _rows(lines: list[Row], cell: str) -> Iterator[Row]:
    last: Row = {}
    for line in lines:
        if line["event"] == "metric":
            last |= line["values"]
        elif line["event"] == "end":
            last = {"seconds": line["seconds"], **last}
    for metric, value in last.items():
        yield {"cell": cell, "metric": metric, "value": value}


def _asked(base: str, name: str) -> str | None:
    query = urlencode({"experiment_name": name})
    try:
        with urllib.request.urlopen(
            f"{base}/api/2.0/mlflow/experiments/get-by-name?{query}", timeout=5
        ) as answer:
            return str(json.load(answer)["experiment"]["experiment_id"])
    except (OSError, ValueError, KeyError):
        return None


def _looked_up(database: str, name: str) -> str | None:
    try:
        with closing(sqlite3.connect(f"{Path(database).absolute().as_uri()}?mode=ro", uri=True)) as opened:
            found = opened.execute("SELECT experiment_id FROM experiments WHERE name = ?", [name]).fetchone()
    except sqlite3.Error:
        return None
    return None if found is None else str(found[0])


def without_password(uri: str) -> str:
    """An address that can be shown."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
