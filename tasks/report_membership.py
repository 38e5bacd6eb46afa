"""Stage `report_membership`: one offline page on membership inference: findings, laws, pictures, tables."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field

from mipriv.analysis import power_law
from mipriv.analysis.vulnerability_grid import usable
from mipriv.metrics import membership as metrics
from mipriv.metrics import membership_records as by_record
from mipriv.shadows import planner
from tasks import evaluate_membership, leakage, membership, shadows
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch
from tasks.leakage import Table
from tasks.memberships import grids, laws
from tasks.memberships.grids import Size
from tasks.page import memberships, remembered, sheets, vulnerability
from tasks.page.grid import Grid, attacked
from tasks.page.render import html, leave, parameters, uri
from tasks.page.vulnerability import Panel, Point, Told
from tasks.shadow_victims import Row, ShadowVictims

BLOCKS = ("features", "shadows", "membership", "shadow_victims", "evaluate_membership", "report_membership")
Positive = Annotated[int, Field(gt=0)]


class ReportMembership(Block):
    """`roc`: examples a class and classes of the cells whose curves are drawn."""

    roc: Annotated[list[tuple[Positive, Positive]], Field(min_length=1)]


@dataclass(frozen=True)
class Shown:
    """A grid on the page: pictures by name as parts of it, and tables."""

    name: str
    pictures: dict[str, str]
    best: str
    drawn: str
    largest: str
    models: int
    seeds: int
    attacks: list[sheets.Sheet]
    laws: list[sheets.Law]
    least: list[tuple[str, str, list[sheets.Cell]]]
    heads: sheets.Sheet
    records: list[sheets.Sheet]


def run(stage: Stage[ReportMembership]) -> None:
    """Write `report.html` and its pictures."""
    table = leakage.read(stage.path("evaluation") / leakage.FILE)
    wanted = stage.block("membership", membership.Attacks)
    evaluated = stage.block("evaluate_membership", evaluate_membership.EvaluateMembership)
    found = attacked(table, wanted, stage.block("shadows", shadows.Shadows).rows)
    pictures = {grid.name: _pictures(stage, grid) for grid in found}
    rows = stage.block("shadow_victims", ShadowVictims).rows
    page: dict[str, Any] = {
        "said": memberships.said(found),
        "remembered": _remembered(stage, table, rows),
        "grids": [_shown(stage, grid, pictures[grid.name], evaluated.record_rate) for grid in found],
        "record_rate": f"{evaluated.record_rate:g}",
        "epsilons": [f"{epsilon:g}" for epsilon in laws.EPSILONS],
        "made": _made(stage, found),
        "params": {name: dict(parameters(stage.values[name])) for name in BLOCKS},
    }
    each = {f"{name}-{grid}": picture for grid, own in pictures.items() for name, picture in own.items()}
    leave(stage, {"report.html": html("membership", page)}, each)


def _remembered(stage: Stage[ReportMembership], table: Table, rows: Mapping[str, Row]) -> dict[str, Any]:
    """Victims that other attacks meet, too: words, a picture where anything is drawn, and lines."""
    wanted = stage.block("evaluate_membership", evaluate_membership.EvaluateMembership).victims
    folder = stage.path("evaluation") / evaluate_membership.VICTIMS
    drawn = remembered.curves(rows, wanted, folder)
    return {
        "said": remembered.said(table, rows, wanted),
        "picture": uri(vulnerability.roc(drawn)) if drawn else None,
        "lines": remembered.lines(table, rows, wanted, folder),
        "models": sorted({row.models for row in rows.values()}),
        "rate": f"{wanted.rate:g}",
        "undefended": wanted.undefended,
    }


def _shown(
    stage: Stage[ReportMembership], grid: Grid, pictures: Mapping[str, bytes], record_rate: float
) -> Shown:
    return Shown(
        name=grid.name,
        pictures={name: uri(picture) for name, picture in pictures.items()},
        best=grid.best,
        drawn=" and ".join(_spelt(Size(*size)) for size in stage.params.roc),
        largest=_spelt(grid.sizes[0]),
        models=grid.row.models,
        seeds=len(grid.row.seeds),
        attacks=sheets.attacks(grid),
        laws=sheets.fitted(grid),
        least=sheets.least(grid),
        heads=sheets.heads(grid),
        records=sheets.records(grid, record_rate),
    )


def _pictures(stage: Stage[ReportMembership], grid: Grid) -> dict[str, bytes]:
    """Those that there are figures for."""
    panels = [_panel(stage, grid, rate) for rate in grid.told]
    found = {"power_law": vulnerability.power_law(panels)} if panels else {}
    cells = [_told(stage, grid, Size(*size)) for size in stage.params.roc]
    return {**found, "roc": vulnerability.roc(cells), "records": _records(stage, grid)}


def _panel(stage: Stage[ReportMembership], grid: Grid, rate: float) -> Panel:
    """The best attack at a rate."""
    cells = grids.cells(stage.path("attacks"), grid.best, grid.row, rate)
    left = {Size(*out.cell[:2]) for out in usable(cells, rate, power_law.SATURATED)[1]}
    points: dict[int, list[Point]] = {c: [] for c in grid.classes}
    for size in sorted(grid.told[rate]):
        tpr = grid.tpr(grid.best, size, rate)
        if tpr is not None:
            points[size.classes].append(Point(size.examples, tpr, size not in left))
    paper = power_law.PAPER.get(rate)
    return Panel(
        rate,
        points,
        grid.power_law(grid.best, rate),
        grid.shift_law(grid.best),
        None if paper is None else (paper, max(grid.classes)),
    )


def _told(stage: Stage[ReportMembership], grid: Grid, size: Size) -> Told:
    """Curves of every attack on a cell, first seed."""
    curves, resolved = {}, 0.0
    for name in grid.attacks:
        folder = stage.path("attacks") / name / shadows.name(*size, grid.row.seeds[0])
        scores, members = membership.scores(folder)
        curves[name] = metrics.roc(scores, members)
        distinct = int((~members & ~scores.isnan()).any(0).sum())
        resolved = max(resolved, metrics.EXPECTED / distinct)
    return Told(_spelt(size), curves, resolved)


def _spelt(size: Size) -> str:
    return f"S = {size.examples}, C = {size.classes}"


def _records(stage: Stage[ReportMembership], grid: Grid) -> bytes:
    """Records of the largest cell, first seed."""
    size = grid.sizes[0]
    pools = shadows.load(stage.path("shadows") / grid.name / shadows.name(*size, grid.row.seeds[0]))
    apart = torch.cat([by_record.separation(pool.odds, pool.members) for pool in pools])
    norms = torch.cat([pool.gradients[1] for pool in pools])
    kept = ~apart.isnan() & (norms > 0)
    correlation = grid.heads(size, grids.GRADIENT)
    return vulnerability.records(norms[kept].double().numpy(), apart[kept].numpy(), correlation)


def _made(stage: Stage[ReportMembership], found: list[Grid]) -> dict[str, str]:
    """Data, recipe and plan of every grid."""
    said = {}
    for grid in found:
        row, of = grid.row, stage.values["features"]["rows"][grid.row.features]
        said[f"Data: {grid.name}"] = (
            f"features {row.features}: {of['arch']}, weights {of['weights'] or 'initial'}, frozen, of "
            "the images of "
            f"{of['data']}; members from its training images, the population of {row.population} a pool "
            "from its "
            "test images"
        )
        said[f"Grid: {grid.name}"] = (
            f"S {', '.join(map(str, grid.examples))}; C {', '.join(map(str, grid.classes))}; "
            f"{row.models} models a "
            f"pool, each on a random half; pools enough for {row.distinct} distinct records a cell; "
            f"seeds {', '.join(map(str, row.seeds))}"
        )
        recipe = stage.values["shadows"]["recipes"][row.recipe]
        knobs = ", ".join(f"{name} {value:g}" for name, value in recipe["knobs"].items())
        said[f"Recipe: {grid.name}"] = (
            f"{row.recipe}, {recipe['algorithm']} ({knobs}), target and shadows alike"
        )
        said[f"Plan: {grid.name}"] = _plan(stage, grid)
    return said


def _plan(stage: Stage[ReportMembership], grid: Grid) -> str:
    """How the heads of each cell were computed, which changes no more than rounding."""
    recipe = shadows.recipe_of(
        stage.block("shadows", shadows.Shadows).recipes[grid.row.recipe], "shadows.recipes"
    )
    how: Counter[str] = Counter()
    for s, c in grid.sizes:
        exact = planner.exact(2 * s * c, c) if grid.row.precision == "auto" else grid.row.precision == "fp64"
        precision = "fp64" if exact else "fp32" if grid.row.precision == "auto" else grid.row.precision
        how[f"{planner.plan(2 * s * c, 2 * s * c, c, recipe).how} in {precision}"] += 1
    return ", ".join(f"{one}: {count} of {len(grid.sizes)} cells" for one, count in how.items())


if __name__ == "__main__":
    raise SystemExit(launch(run, ["shadows", "attacks", "evaluation"], ReportMembership))
