"""What `evaluate` leaves beside the table: points and plots for DVC, findings for MLflow."""

import json
from typing import Any, TypeVar

from tasks.engine.params import Block
from tasks.engine.stage import Stage
from tasks.inversions import Inversions
from tasks.leakage import NATURAL, OWN_START, Line, metrics
from tasks.tables import write_csv

B = TypeVar("B", bound=Block)


def write(stage: Stage[B], every: Inversions, lines: list[Line]) -> None:
    """Leave the table and what others read of it."""
    write_csv(stage.out / "leakage.csv", [line.flat() for line in lines])
    points = json.dumps(metrics(lines), indent=1, sort_keys=True)
    (stage.out / "metrics.json").write_text(points + "\n", encoding="utf-8")
    write_csv(stage.out / "tradeoff.csv", _tradeoff(every, lines))
    for line in lines:
        if line.kind in ("victim", "attack", "judge"):
            key = "/".join(part for part in (line.subject, line.judge, line.figure) if part)
            stage.events.metric(key.replace("@", "_at_"), line.value.point)
    _findings(stage, every, lines)
    for name in ("leakage.csv", "tradeoff.csv"):
        stage.events.artifact(stage.out / name)


def _findings(stage: Stage[B], every: Inversions, lines: list[Line]) -> None:
    """One record an attack and judge, with what a filter may ask for beside each other."""
    rows, victims = every.wanted.rows, every.victims
    natural = {line.subject: line.value.point for line in lines if line.figure == NATURAL}
    for (name, judged_by), seen in _by_attack(lines).items():
        row, victim = rows[name], victims[rows[name].victim]
        tags = {"attack": row.attack, "prior": row.prior, "victim": row.victim, "judge": judged_by}
        tags |= {"defense": victim.defense, "backbone": victim.backbone}
        values = {"natural_accuracy": natural[row.victim]}
        for line in seen:
            key = line.figure.replace("@", "_at_").replace(" ", "_")
            if line.kind == "difference":
                key += "_over_start" if line.against == OWN_START else "_over_undefended"
            values |= {key: line.value.point, f"{key}_low": line.value.low, f"{key}_high": line.value.high}
        stage.events.finding(f"{name} by {judged_by}", tags, values)


def _by_attack(lines: list[Line]) -> dict[tuple[str, str], list[Line]]:
    found: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        if line.kind in ("attack", "difference"):
            found.setdefault((line.subject, line.judge), []).append(line)
    return found


def _tradeoff(every: Inversions, lines: list[Line]) -> list[dict[str, Any]]:
    """Natural accuracy against attack accuracy, for each inversion and judge."""
    rows = every.wanted.rows
    natural = {line.subject: line.value for line in lines if line.figure == NATURAL}
    table = []
    for line in lines:
        if line.kind == "attack" and line.figure == "accuracy@1":
            row = rows[line.subject]
            point: dict[str, Any] = {"row": line.subject, "victim": row.victim, "attack": row.attack}
            point |= {"prior": row.prior, "judge": line.judge, "natural_accuracy": natural[row.victim].point}
            table.append({**point, "attack_accuracy": line.value.point})
    return table
