"""Stage `shadows`: heads on cached features, thousands of them, each trained on a random half of its pool.

Cells are examples a class x classes x seed. Of the models nothing is kept but the logit of the true class's
probability, log(p_y / (1 - p_y)), on every record of their pool and on records that no model has seen: all
that membership attacks read of an answer.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from mipriv import draws
from mipriv.analysis.head_gradients import by_side, gradient_norms
from mipriv.attacks.search.shadows import log_odds
from mipriv.device import resolve
from mipriv.shadows import heads, planner
from mipriv.shadows.design import Pool, balanced, enough
from mipriv.shadows.recipes import Converged, Steps
from tasks import features
from tasks.engine.cells import Cell, Progress
from tasks.engine.events import Events
from tasks.engine.params import Block, validate
from tasks.engine.stage import Stage, launch

FILE = "pool-{}.safetensors"
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
    a pool that no model has seen; `precision` of products, `auto`: fp64 in small cells, else fp32; `seeds`,
    of pools and halves.
    """

    features: str
    recipe: str
    examples: Annotated[list[Positive], Field(min_length=1)]
    classes: Annotated[list[Annotated[int, Field(gt=1)]], Field(min_length=1)]
    models: Annotated[int, Field(gt=1, multiple_of=2)]
    distinct: Positive
    population: Positive
    precision: Literal["auto", "fp32", "fp64", "bf16"]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Examples a class and classes of every cell, the most work first."""
        grid = [(examples, classes) for examples in self.examples for classes in self.classes]
        return sorted(grid, key=lambda size: -size[0] * size[1])


class Shadows(Block):
    """`recipes` and `rows` by name."""

    recipes: dict[str, Recipe]
    rows: dict[str, Row]


@dataclass(frozen=True)
class Answered:
    """What the models of one pool say.

    Attributes:
        odds: [M, N] float32, log(p_y / (1 - p_y)) of the pool's records.
        members: [M, N] bool.
        records: [N] int64, places in the backbone's pool.
        population: [M, Z] float32, the same of records that no model has seen.
        gradients: [2, N] float64, mean norms of a record's gradient over the models that have it, and over
            those that lack it.
        accuracy: [M] float64, on records that no model has seen.
        converged: [M] bool.
    """

    odds: Tensor
    members: Tensor
    records: Tensor
    population: Tensor
    gradients: Tensor
    accuracy: Tensor
    converged: Tensor


def recipe_of(wanted: Recipe, where: str) -> Steps | Converged:
    """The declared algorithm with its knobs.

    Raises:
        InputError: naming the knob.
    """
    return validate(ALGORITHMS[wanted.algorithm], wanted.knobs, where)


def name(examples: int, classes: int, seed: int) -> str:
    """Of a cell."""
    return f"S-{examples}/C-{classes}/seed-{seed}"


def load(folder: Path) -> list[Answered]:
    """What a cell left, a pool each."""
    count = len(list(folder.glob(FILE.format("*"))))
    return [Answered(**load_file(folder / FILE.format(place))) for place in range(count)]


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
    """Cell: an `Answered` of every pool, a file each."""
    where = torch.device(device)
    seen = {key: value.to(where) for key, value in load_file(inputs["features"] / features.FILE).items()}
    declared = recipe_of(Recipe(**recipe), "shadows.recipes")
    pools = enough(seen["pool_labels"], classes, examples, distinct, seed)
    seen |= {key: _scaled(seen[key], seen["population"]) for key in ("pool", "population")}
    left, made = [], []
    for place, pool in enumerate(pools):
        members = balanced(models, len(pool.records), _number(seed, place)).to(where)
        found = _trained(seen, pool, members, declared, precision, seed)
        answered = _answered(found, seen, pool, members, population)
        kept = {key: value.cpu().contiguous() for key, value in vars(answered).items()}
        save_file(kept, out / FILE.format(place))
        left.append(answered)
        made.append(found)
        progress(place + 1, len(pools))
    events.metric("natural_accuracy", float(torch.cat([one.accuracy for one in left]).mean()))
    events.metric("converged", float(torch.cat([one.converged for one in left]).double().mean()))
    events.metric("iterations", float(torch.cat([one.iterations for one in made]).double().mean()))
    records = sum(len(pool.records) for pool in pools)
    events.metrics({"pools": len(pools), "models": models * len(pools), "records": records})
    events.text("plan", made[-1].plan.why)


def _scaled(values: Tensor, population: Tensor) -> Tensor:
    """Features on one scale for all, told from records that no model trains on."""
    deviation = population.std(0)
    return (values - population.mean(0)) / deviation.clamp(min=FLAT * deviation.median().item())


def _trained(
    seen: dict[str, Tensor],
    pool: Pool,
    members: Tensor,
    recipe: Steps | Converged,
    precision: str,
    seed: int,
) -> heads.Heads:
    """Heads over the records of a pool."""
    own, labels = seen["pool"][pool.records.to(members.device)], pool.labels.to(members.device)
    classes = len(pool.classes)
    double = precision == "fp64" or (precision == "auto" and planner.exact(len(own), classes))
    products = "bf16" if precision == "bf16" else "fp32"
    own = own.double() if double else own
    return heads.fit(own, labels, members, recipe, seed, classes=classes, precision=products)


def _answered(
    made: heads.Heads, seen: dict[str, Tensor], pool: Pool, members: Tensor, population: int
) -> Answered:
    """What heads say of their pool, and of at most so many records that none of them has seen."""
    own, labels = seen["pool"][pool.records.to(members.device)], pool.labels.to(members.device)
    others, strangers = _others(seen, pool)
    answering = replace(made, weights=made.weights.float())
    inside, outside = answering.logits(own), answering.logits(others)
    some = _spread(strangers, population)
    return Answered(
        odds=_odds(inside, labels),
        members=members,
        records=pool.records,
        population=_odds(outside[:, some], strangers[some]),
        gradients=torch.stack(by_side(gradient_norms(inside, own, labels), members)),
        accuracy=(outside.argmax(-1) == strangers).double().mean(1),
        converged=made.converged,
    )


def _others(seen: dict[str, Tensor], pool: Pool) -> tuple[Tensor, Tensor]:
    """Features and labels of records that no model trains on, of the pool's classes alone."""
    labels = seen["population_labels"]
    place = torch.full((int(labels.max()) + 1,), -1, device=labels.device)
    place[list(pool.classes)] = torch.arange(len(pool.classes), device=labels.device)
    chosen = torch.nonzero(place[labels] >= 0).flatten()
    return seen["population"][chosen], place[labels[chosen]]


def _spread(labels: Tensor, most: int) -> Tensor:
    """Places of at most so many, evenly over all."""
    return torch.linspace(0, len(labels) - 1, min(most, len(labels))).long().to(labels.device)


def _odds(logits: Tensor, labels: Tensor) -> Tensor:
    return log_odds(logits[:, None], labels)[:, 0].float()


def _number(*key: draws.Key) -> int:
    return int(draws.stream("halves of a pool", *key).integers(2**31))


def run(stage: Stage[Shadows]) -> None:
    """Cells of one row: `S-8/C-2/seed-0`, the most work first."""
    row = stage.params.rows[stage.row or ""]
    shared = {key: getattr(row, key) for key in ("models", "distinct", "population", "precision")}
    shared |= {"recipe": stage.plain("recipes", row.recipe), "device": str(resolve(stage.cost.device))}
    inputs = {"features": stage.path("features") / "model"}
    stage.cells(
        [
            Cell(
                name(examples, classes, seed),
                "tasks.shadows:grid",
                {**shared, "examples": examples, "classes": classes, "seed": seed},
                inputs,
            )
            for examples, classes in row.sizes
            for seed in row.seeds
        ]
    )


if __name__ == "__main__":
    raise SystemExit(launch(run, ["features"], Shadows))
