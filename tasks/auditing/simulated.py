"""Scores of attackers that a defence was trained against: a diagnosis of that training, never leakage.

A `Simulated` is no `Figure`: the table of leakage refuses it (`tasks.leakage.Line`), and it is written to a
file of its own.
"""

import csv
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.tables import write_csv

FILE = "simulated.csv"


@dataclass(frozen=True)
class Simulated:
    """What the attacker that lived inside a training says of the same features as the auditors.

    Attributes:
        subject: row and arm.
        attribute: that it was trained for.
        figure: what was measured.
        mean: over seeds.
        least: of the seeds.
        most: of the seeds.
        n: images.
        seeds: of training.
    """

    subject: str
    attribute: str
    figure: str
    mean: float
    least: float
    most: float
    n: int
    seeds: int


def write(path: Path, found: list[Simulated]) -> None:
    """Its columns alone where there is none."""
    if found:
        write_csv(path, [asdict(one) for one in found])
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(",".join(Simulated.__dataclass_fields__) + "\n", encoding="utf-8")


def read(path: Path) -> list[Simulated]:
    """What `write` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Simulated(
                row["subject"],
                row["attribute"],
                row["figure"],
                float(row["mean"]),
                float(row["least"]),
                float(row["most"]),
                int(row["n"]),
                int(row["seeds"]),
            )
            for row in csv.DictReader(file)
        ]
