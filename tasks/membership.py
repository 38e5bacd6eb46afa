"""Stage `membership`: how surely an attack tells who was in a training set, over a grid of shadow heads.

Every head of a pool is the target once, with the others as its references. Pools of a cell are scored one by
one and judged together.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from mipriv.attacks.membership import Answers, Membership
from mipriv.metrics import membership as metrics
from mipriv.metrics.membership import Detection
from mipriv.stats import Figure
from tasks import shadows
from tasks.engine.cells import Cell, Progress
from tasks.engine.events import Events
from tasks.engine.params import Block, plugin_knobs
from tasks.engine.stage import Stage, launch
from tasks.shadows import Answered

SCORES, FIGURES = "scores.safetensors", "figures.json"


class Row(Block):
    """An `attack` with `knobs` on a row of `shadows`."""

    attack: str
    of: str
    knobs: Annotated[dict[str, Any], Field(default_factory=dict)]


class Attacks(Block):
    """`rates` of false positives; `resamples` of an interval; `rows`."""

    rates: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)]
    resamples: Annotated[int, Field(gt=19)]
    rows: dict[str, Row]


def answers(pool: Answered) -> Answers:
    """What attacks read: of two classes, the true one and all others, the log odds are those of C."""
    odds, others = ({"logits": _two(part)} for part in (pool.odds, pool.population))
    labels = {"labels": torch.zeros(pool.odds.shape[1], dtype=torch.int64)}
    population = torch.zeros(pool.population.shape[1], dtype=torch.int64)
    return Answers(
        **odds, **labels, members=pool.members, population=others["logits"], population_labels=population
    )


def _two(odds: Tensor) -> Tensor:
    """[M, 1, N, 2]."""
    return torch.stack([odds, torch.zeros_like(odds)], -1)[:, None]


def score(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    attack: str,
    knobs: dict[str, Any],
    rates: list[float],
    resamples: int,
) -> None:
    """Cell: scores float32 [M, N] of all pools side by side, members, and what can be told of them."""
    attacker: Membership = plugin_knobs("membership", attack, knobs, "membership.rows")
    pools = shadows.load(inputs["shadows"])
    steps = len(pools) + len(rates)
    parts = []
    for place, pool in enumerate(pools):
        parts.append(attacker(answers(pool)))
        progress(place + 1, steps)
    scores, members = torch.cat(parts, 1), torch.cat([pool.members for pool in pools], 1)
    save_file({"scores": scores.float(), "members": members}, out / SCORES)
    distinct = int((~members & ~scores.isnan()).any(0).sum())
    found: dict[str, Any] = {
        "auc": metrics.auc(scores, members),
        "distinct": distinct,
        "refused": {},
        "tpr": {},
    }
    for place, rate in enumerate(rates, 1):
        why = metrics.unresolved(distinct, rate)
        if why:
            found["refused"][f"{rate:g}"] = why
        else:
            told = metrics.pooled(scores, members, rate, resamples=resamples)
            found["tpr"][f"{rate:g}"] = {**vars(told), "tpr": vars(told.tpr)}
            events.metric(f"tpr/{rate:g}", told.tpr.point)
        progress(len(pools) + place, steps)
    (out / FIGURES).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    events.metric("auc", found["auc"])
    events.metric("distinct", distinct)


def detections(folder: Path) -> dict[float, Detection | str]:
    """What a cell found at each rate, or why it is refused."""
    found = json.loads((folder / FIGURES).read_text(encoding="utf-8"))
    told = {
        float(rate): Detection(**{**one, "tpr": Figure(**one["tpr"]), "again": tuple(one["again"])})
        for rate, one in found["tpr"].items()
    }
    return {**told, **{float(rate): why for rate, why in found["refused"].items()}}


def auc(folder: Path) -> float:
    """Of a cell."""
    return float(json.loads((folder / FIGURES).read_text(encoding="utf-8"))["auc"])


def scores(folder: Path) -> tuple[Tensor, Tensor]:
    """Scores float32 [M, N] and members [M, N] bool of a cell."""
    found = load_file(folder / SCORES)
    return found["scores"], found["members"]


def run(stage: Stage[Attacks]) -> None:
    """Cells of one row, as those of its shadows."""
    wanted, row = stage.params, stage.params.rows[stage.row or ""]
    grid = stage.block("shadows", shadows.Shadows).rows[row.of]
    stage.events.tags({"attack": row.attack, "shadows": row.of})
    shared = {"attack": row.attack, "knobs": row.knobs, "rates": wanted.rates, "resamples": wanted.resamples}
    names = [shadows.name(*size, seed) for size in grid.sizes for seed in grid.seeds]
    stage.cells(
        [
            Cell(name, "tasks.membership:score", shared, {"shadows": stage.path("shadows") / name})
            for name in names
        ]
    )


if __name__ == "__main__":
    raise SystemExit(launch(run, ["shadows"], Attacks))
