"""Stage `shadows`: heads on cached features, thousands of them, each trained on a random half of its pool.

Cells are examples a class x classes x seed. Of the models only their logits are kept, on every record of
their pool and on records that no model has seen.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from mipriv import draws
from mipriv.device import resolve
from mipriv.shadows import heads
from mipriv.shadows.design import Pool, balanced, enough
from mipriv.shadows.recipes import Converged, Steps
from tasks import features
from tasks.engine.cells import Cell, Progress
from tasks.engine.events import Events
from tasks.engine.params import Block, validate
from tasks.engine.stage import Stage, launch

FILE = "logits-{}.safetensors"
ALGORITHMS: dict[str, type[Steps] | type[Converged]] = {"steps": Steps, "converged": Converged}
FLAT = 0.1  # of the median deviation: a feature that varies less than this is not blown up any further
Positive = Annotated[int, Field(gt=0)]


class Recipe(Block):
    """How a head is trained, target and shadows alike: an `algorithm` with its `knobs`."""

    algorithm: Literal["steps", "converged"]
    knobs: dict[str, Any]


class Row(Block):
    """Heads on a row of `features`, by a `recipe`.

    A grid of `examples` (a class, that a model trains on) and `classes`; `models` a pool; `distinct` records
    in all pools of a cell together, at least, which low rates of false positives need; `population`, records
    a pool that no model has seen; `precision` of products; `seeds`, of pools and halves.
    """

    features: str
    recipe: str
    examples: Annotated[list[Positive], Field(min_length=1)]
    classes: Annotated[list[Annotated[int, Field(gt=1)]], Field(min_length=1)]
    models: Annotated[int, Field(gt=1, multiple_of=2)]
    distinct: Positive
    population: Positive
    precision: Literal["fp32", "bf16"]
    seeds: list[int]


class Shadows(Block):
    """`recipes` and `rows` by name."""

    recipes: dict[str, Recipe]
    rows: dict[str, Row]


def recipe_of(wanted: Recipe, where: str) -> Steps | Converged:
    """The declared algorithm with its knobs.

    Raises:
        InputError: naming the knob.
    """
    return validate(ALGORITHMS[wanted.algorithm], wanted.knobs, where)


def name(examples: int, classes: int, seed: int) -> str:
    """Of a cell."""
    return f"S-{examples}/C-{classes}/seed-{seed}"


def grid(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    examples: int,
    classes: int,
    models: int,
    distinct: int,
    population: int,
    recipe: dict[str, Any],
    precision: str,
    seed: int,
    device: str,
) -> None:
    """Cell: logits float32 [M, N, C] of every model on its pool and [M, Z, C] on others, a file a pool."""
    where = torch.device(device)
    seen = {key: value.to(where) for key, value in load_file(inputs["features"] / features.FILE).items()}
    declared = recipe_of(Recipe(**recipe), "shadows.recipes")
    pools = enough(seen["pool_labels"], classes, examples, distinct, seed)
    # One scale for all, from records that no model trains on.
    mean, deviation = seen["population"].mean(0), seen["population"].std(0)
    deviation = deviation.clamp(min=FLAT * deviation.median().item())
    right, converged, steps = [], [], []
    for place, pool in enumerate(pools):
        own = (seen["pool"][pool.records.to(where)] - mean) / deviation
        others, labels = _others(seen, pool, population, seed)
        members = balanced(models, len(own), _number(seed, place)).to(where)
        known = pool.labels.to(where)
        made = heads.fit(own, known, members, declared, seed, classes=classes, precision=precision)
        inside, outside = made.logits(own), made.logits((others - mean) / deviation)
        right.append((outside.argmax(-1) == labels).double().mean())
        converged.append(made.converged.double().mean())
        steps.append(made.iterations.double().mean())
        left = {"logits": inside, "labels": known, "members": members, "records": pool.records}
        left |= {"population": outside, "population_labels": labels}
        save_file({key: _kept(value) for key, value in left.items()}, out / FILE.format(place))
        progress(place + 1, len(pools))
    figures = {"natural_accuracy": right, "converged": converged, "iterations": steps}
    events.metrics({key: float(torch.stack(values).mean()) for key, values in figures.items()})
    events.metrics({"pools": len(pools), "models": models * len(pools), "records": sum(len(p.records) for p in pools)})
    events.text("plan", made.plan.why)


def _others(seen: dict[str, Tensor], pool: Pool, most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features and labels of records that no model trains on, of the pool's classes alone."""
    labels = seen["population_labels"]
    place = torch.full((int(labels.max()) + 1,), -1, device=labels.device)
    place[list(pool.classes)] = torch.arange(len(pool.classes), device=labels.device)
    rows = torch.nonzero(place[labels] >= 0).flatten()
    order = torch.from_numpy(draws.stream(seed, "population").permutation(len(rows))[:most])
    chosen = rows[order.to(rows.device)]
    return seen["population"][chosen], place[labels[chosen]]


def _number(*key: draws.Key) -> int:
    return int(draws.stream("halves of a pool", *key).integers(2**31))


def _kept(value: Tensor) -> Tensor:
    return (value.float() if value.is_floating_point() else value).cpu().contiguous()


def run(stage: Stage[Shadows]) -> None:
    """Cells of one row: `S-8/C-2/seed-0`, the largest first."""
    row = stage.params.rows[stage.row or ""]
    shared = {key: getattr(row, key) for key in ("models", "distinct", "population", "precision")}
    shared |= {"recipe": stage.plain("recipes", row.recipe), "device": str(resolve(stage.cost.device))}
    inputs = {"features": stage.path("features")}
    sizes = sorted(((s, c) for s in row.examples for c in row.classes), key=lambda size: -size[0] * size[1])
    stage.cells(
        [
            Cell(
                name(examples, classes, seed),
                "tasks.shadows:grid",
                {**shared, "examples": examples, "classes": classes, "seed": seed},
                inputs,
            )
            for examples, classes in sizes
            for seed in row.seeds
        ]
    )


if __name__ == "__main__":
    raise SystemExit(launch(run, ["features"], Shadows))
