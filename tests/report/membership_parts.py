"""A small grid of shadow heads with its attacks, as tables and as files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mipriv.stats import Figure
from tasks import membership, shadows
from tasks.leakage import NATURAL, Line, Table
from tasks.memberships import grids, laws
from tasks.memberships.grids import Size
from tasks.page.grid import Grid, attacked

EXAMPLES, CLASSES = [4, 2], [3, 2]  # falling, as no table lists them
ROW = {
    "features": "toy",
    "recipe": "converged",
    "examples": EXAMPLES,
    "classes": CLASSES,
    "models": 16,
    "distinct": 100,
    "population": 20,
    "precision": "auto",
    "seeds": [5, 1],
}
ATTACKS = {"strong": "lira", "weak": "rmia", "bare": "loss"}
SIZES = [Size(4, 3), Size(4, 2), Size(2, 3), Size(2, 2)]
Interval = tuple[float, float, float]


def figure(point: float, low: float, high: float, n: int = 120) -> Figure:
    return Figure(point, low, high, n, 2, "by hand")


def near(point: float, width: float = 0.01) -> Interval:
    return point, point - width, point + width


def blocks(**rows: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of the page; `rows` of shadows unless there is one, `toy`."""
    return {
        "features": {
            "rows": {"toy": {"data": "toys", "arch": "abacus", "knobs": {}, "weights": None, "seed": 0}}
        },
        "shadows": {
            "recipes": {"converged": {"algorithm": "converged", "knobs": {"penalty": 0.01}}},
            "rows": rows or {"toy": ROW},
        },
        "membership": {
            "rates": [0.01, 0.1],
            "resamples": 20,
            "rows": {name: {"attack": plugin, "of": "toy"} for name, plugin in ATTACKS.items()},
        },
        "finetune": {"recipes": {}, "rows": {}},
        "split": {"networks": {}, "recipes": {}, "rows": {}},
        "shadow_victims": {"rows": {}},
        "evaluate_membership": {
            "record_rate": 0.1,
            "victims": {
                "rate": 0.1,
                "resamples": 20,
                "undefended": None,
                "attacks": {"loss": {"attack": "loss"}},
            },
        },
        "report_membership": {"roc": [[4, 3], [2, 2]]},
        "cost": {"device": "cpu", "threads": 1, "gpus": 0, "retries": 0, "stages": {}},
    }


def lines(
    tpr: Mapping[str, Mapping[Size, Interval]],
    auc: Mapping[str, float],
    rho: Mapping[Size, Interval],
    rate: float = 0.1,
    slope: Interval | None = (-0.5, -0.6, -0.4),
    classes: Interval = (0.2, 0.1, 0.3),
    least: Interval = (120.0, 60.0, float("inf")),
    converged: float = 1.0,
) -> list[Line]:
    """Lines as `evaluate_membership` writes them, of cells that have a TPR; a law of `strong` alone."""
    found = []
    for size in SIZES:
        own = f"toy/{size}"
        found.append(Line(own, grids.CELL, NATURAL, "", "toy", figure(0.75, 0.7, 0.8)))
        found.append(Line(own, grids.CELL, grids.CONVERGED, "", "toy", figure(converged, converged, 1.0)))
        found.append(Line(own, grids.CELL, grids.GRADIENT, "", "toy", figure(*rho[size])))
        for name in ATTACKS:
            subject = grids.subject(name, size)
            if size in tpr[name]:
                point, low, high = tpr[name][size]
                told = figure(point, low, high)
                anew = figure(point / 2, low / 2, high / 2)
                found.append(Line(subject, grids.KIND, grids.TPR.format(rate), "", "toy", told))
                found.append(Line(subject, grids.KIND, grids.CORRECTED.format(rate), "", "toy", anew))
            found.append(Line(subject, grids.KIND, grids.AUC, "", "toy", figure(auc[name], 0.5, 0.99)))
    if slope is not None:
        against = f"fpr {rate:g}"
        for name, value in zip(laws.SLOPES, (slope, classes, (0.1, 0.0, 0.2)), strict=True):
            found.append(Line("strong", laws.LAW, name, "", against, figure(*value)))
        found.append(Line("strong", laws.LAW, laws.R2, "", against, figure(0.9, 0.8, 0.95)))
        found.append(Line("strong", laws.LAW, laws.USED, "", against, figure(0.875, 0.875, 0.875, 8)))
        for epsilon in laws.EPSILONS:
            found.append(Line("strong", laws.LEAST, f"epsilon {epsilon:g}", "", against, figure(*least)))
        for name, value in {"b_c": (0.3, 0.1, 0.5), "b_0": (0.5, 0.4, 0.6), "R2": (0.4, 0.3, 0.5)}.items():
            found.append(Line("strong", laws.SHIFT, name, "", "all rates", figure(*value)))
    return found


def grid(table: list[Line], rates: tuple[float, ...] = (0.01, 0.1)) -> Grid:
    """The only one of a table."""
    values = blocks()
    values["membership"]["rates"] = list(rates)
    wanted = membership.Attacks.model_validate(values["membership"])
    heads = shadows.Shadows.model_validate(values["shadows"])
    (found,) = attacked(Table(tuple(table)), wanted, heads.rows)
    return found


def files(folder: Path) -> None:
    """What `shadows` and `membership` leave, of two pools of ten records: 16 models, members known apart."""
    for size in SIZES:
        for seed in ROW["seeds"]:  # type: ignore[attr-defined]
            name = shadows.name(*size, seed)
            random = torch.Generator().manual_seed(seed)
            members = torch.rand(16, 10, generator=random).argsort(0) < 8
            odds = torch.randn(16, 10, generator=random) + 2 * members
            odds[:, 9] = 1.0  # one record that says nothing at all
            pool = {
                "odds": odds,
                "members": members,
                "records": torch.arange(10),
                "population": torch.zeros(16, 20),
                "gradients": torch.rand(2, 10, generator=random, dtype=torch.float64) + 0.1,
                "accuracy": torch.full((16,), 0.75, dtype=torch.float64),
                "converged": torch.ones(16, dtype=torch.bool),
            }
            for place in range(2):
                own = folder / "shadows" / "toy" / name / shadows.FILE.format(place)
                own.parent.mkdir(parents=True, exist_ok=True)
                save_file({key: value.contiguous() for key, value in pool.items()}, own)
            for attack in ATTACKS:
                own = folder / "membership" / attack / name
                own.mkdir(parents=True)
                scores = {"scores": torch.cat([odds, odds], 1), "members": torch.cat([members, members], 1)}
                save_file(scores, own / membership.SCORES)
                (own / membership.FIGURES).write_text(json.dumps(_figures(size)))


def _figures(size: Size) -> dict[str, Any]:
    """By the power law with slopes of -0.5 and 0.2, exactly."""
    told = 0.1 + 0.6 * size.examples**-0.5 * size.classes**0.2
    again = [told - 0.01, told + 0.01]
    detection = {"rate": 0.1, "achieved": 0.1, "distinct": 20, "left_out": 0, "again": again}
    tpr = {"point": told, "low": again[0], "high": again[1], "n": 20, "seeds": 1, "method": "by hand"}
    return {
        "auc": 0.75,
        "distinct": 20,
        "refused": {"0.01": "few"},
        "tpr": {"0.1": {**detection, "tpr": tpr}},
    }
