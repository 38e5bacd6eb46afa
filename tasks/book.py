"""Stage `book`: the whole report as one offline page: the common table in words, a part a threat, the method.

It reads what other stages left and measures nothing. The same files give the same bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mipriv.data.dataset import Dataset
from mipriv.models import checkpoint
from tasks import table
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch
from tasks.joined import cells
from tasks.joined.cells import ABSENT, COLUMNS, NOT_RUN, Row
from tasks.leakage import UNDEFENDED
from tasks.page import embedded, joint, lookups
from tasks.page.render import html, leave, parameters

PARTS = {
    "inversion": "Model inversion",
    "features": "Split inference and reconstruction",
    "membership": "Membership",
    "attributes": "Private attributes",
}
OPTIONS = ["data", "victims", "splits", "table", *PARTS]
STAGE_OF = {
    "natural_accuracy": "evaluate_split",
    "reconstruction_mse": "evaluate_split",
    "reconstruction_ssim": "evaluate_split",
    "membership": "evaluate_membership",
    "attributes": "evaluate_attributes",
    "client_macs": "evaluate_split",
}


class Book(Block):
    """`mlflow`: address of the server whose records figures link to."""

    mlflow: str


@dataclass(frozen=True)
class Line:
    """A victim on the page: its cells in the order of the columns, and where its records are found."""

    name: str
    checkpoint: str
    cells: list[tuple[joint.Shown, str]]


@dataclass(frozen=True)
class Set:
    """A data set on the page."""

    name: str
    source: str
    findings: list[Any]
    lines: list[Line]
    absent: list[tuple[str, str, str]]


def run(stage: Stage[Book]) -> None:
    """Write `report.html`."""
    rows = cells.read((stage.path("table") / table.FILE).read_text(encoding="utf-8"))
    wanted = stage.block("table", table.Joined)
    page = {
        "sets": _sets(stage, rows, wanted),
        "columns": COLUMNS,
        "parts": [
            (name, title, embedded.part(stage.path(name) / "report.html", name))
            for name, title in PARTS.items()
        ],
        "rate": f"{wanted.rate:g}",
        "mlflow": stage.params.mlflow,
        "made": _made(stage, wanted),
        "digests": json.loads((stage.path("table") / table.DIGESTS).read_text(encoding="utf-8")),
        "params": {name: dict(parameters(stage.values[name])) for name in ("prepare", "table", "book")},
    }
    leave(stage, {"report.html": html("book", page)}, {})


def _sets(stage: Stage[Book], rows: list[Row], wanted: table.Joined) -> list[Set]:
    """One table a data set."""
    found = []
    for data in dict.fromkeys(row.data for row in rows):
        own = [row for row in rows if row.data == data]
        undefended = [row.name for row in own if _undefended(stage, wanted.rows[row.name])]
        lines = [_line(stage, row, wanted.rows[row.name]) for row in own]
        source = Dataset.open(stage.path("data") / data).manifest.source
        found.append(Set(data, source, joint.findings(own, undefended), lines, _absent(own)))
    return found


def _undefended(stage: Stage[Book], victim: table.Victim) -> bool:
    rows = stage.values[victim.of]["rows"]
    return bool(rows[victim.victim]["defense"] == UNDEFENDED)


def _line(stage: Stage[Book], row: Row, victim: table.Victim) -> Line:
    server = stage.params.mlflow
    links = {name: lookups.stage(server, of) for name, of in STAGE_OF.items()}
    links |= {"inversion": lookups.finding(server, victim.subject)}
    if victim.of == "finetune":  # each of its findings has it; of a split victim `evaluate_split` tells it
        links["natural_accuracy"] = links["inversion"]
    links |= {"training_seconds": lookups.stage(server, f"{victim.of}@{victim.victim}")}
    shown = [(joint.shown(row.cells[column.name], column), links[column.name]) for column in COLUMNS]
    return Line(row.name, row.checkpoint, shown)


def _absent(rows: list[Row]) -> list[tuple[str, str, str]]:
    """Victim, column and reason of every cell without a figure."""
    return [
        (row.name, column.title, row.cells[column.name].why)
        for row in rows
        for column in COLUMNS
        if row.cells[column.name].why.startswith((ABSENT, NOT_RUN))
    ]


def _made(stage: Stage[Book], wanted: table.Joined) -> Mapping[str, str]:
    """How the table came about, term by term."""
    found = {}
    for name in stage.values["prepare"]["rows"]:
        data = Dataset.open(stage.path("data") / name)
        found[f"Data: {name}"] = f"{data.manifest.source}, sha256 {data.digest}"
    environments: dict[str, None] = {}
    for name, victim in wanted.rows.items():
        top = stage.path("victims" if victim.of == "finetune" else "splits") / victim.subject
        cards = [checkpoint.read_card(folder) for folder in sorted(top.glob("seed-*"))]
        seeds = ", ".join(str(card.facts["seed"]) for card in cards)
        found[f"Training seeds: {name}"] = seeds
        for card in cards:
            own = card.facts["environment"]
            environments[f"torch {own['torch']}, {own['device']}, {own['processor']}"] = None
    return found | ({"Made with": "; ".join(environments)} if environments else {})


if __name__ == "__main__":
    raise SystemExit(launch(run, OPTIONS, Book))
