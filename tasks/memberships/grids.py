"""Figures of every attack on every cell of a grid, as lines of a table."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mipriv import stats
from mipriv.analysis.head_gradients import spearman
from mipriv.analysis.membership_model import corrected
from mipriv.analysis.vulnerability_grid import Cell
from mipriv.metrics import membership as metrics
from mipriv.metrics import membership_records as by_record
from mipriv.metrics.membership import Detection
from mipriv.stats import Figure
from tasks import membership, shadows
from tasks.leakage import NATURAL, Line

TPR, AUC, CORRECTED = "tpr at fpr {:g}", "auc", "tpr at fpr {:g}, as on examples drawn anew"
CONVERGED, GRADIENT = "converged", "rank correlation of gradient norm and vulnerability"
RECORD = "tpr of a record at fpr {:g}, {}"
QUANTILES = {"median": 0.5, "worst in a hundred": 0.99, "worst": 1.0}
KIND, CELL = "membership", "shadow heads"
RESAMPLES = 200  # of a correlation over thousands of records, each ranked anew


class Size(NamedTuple):
    """Examples a class that a model trains on, and classes."""

    examples: int
    classes: int

    def __str__(self) -> str:
        return f"S-{self.examples}/C-{self.classes}"


def subject(attack: str, size: Size) -> str:
    """Of a line: `lira/S-8/C-2`."""
    return f"{attack}/{size}"


def heads(folder: Path, name: str, row: shadows.Row) -> Iterator[Line]:
    """What models of each cell are worth, and how a record's gradient tells its vulnerability."""
    for size in map(Size._make, row.sizes):
        pools = [
            pool for seed in row.seeds for pool in shadows.load(folder / name / shadows.name(*size, seed))
        ]
        own = f"{name}/{size}"
        accuracy = torch.cat([pool.accuracy for pool in pools]).numpy()
        yield Line(own, CELL, NATURAL, "", name, _spread(accuracy, len(row.seeds)))
        converged = torch.cat([pool.converged for pool in pools])
        yield Line(own, CELL, CONVERGED, "", name, stats.proportion(int(converged.sum()), len(converged)))
        yield Line(own, CELL, GRADIENT, "", name, _gradients(pools, len(row.seeds)))


def _spread(values: np.ndarray, seeds: int) -> Figure:
    """Mean over models, and within which bounds 95 in a hundred of them lie."""
    low, high = np.quantile(values, [0.025, 0.975])
    return Figure(float(values.mean()), float(low), float(high), len(values), seeds, "spread over models")


def _gradients(pools: list[shadows.Answered], seeds: int) -> Figure:
    """Records against each other: mean gradient norm over models without them, and separation."""
    apart = torch.cat([by_record.separation(pool.odds, pool.members) for pool in pools])
    norms = torch.cat([pool.gradients[1] for pool in pools])
    kept = ~apart.isnan()
    found = spearman(norms[kept].numpy(), apart[kept].numpy(), resamples=RESAMPLES)
    return replace(found, seeds=seeds)


def attacks(
    folder: Path, rows: dict[str, membership.Row], grids: dict[str, shadows.Row], rates: list[float]
) -> Iterator[Line]:
    """What each attack tells of each cell; rates that a cell cannot resolve are left out."""
    for name, row in rows.items():
        grid = grids[row.of]
        for size in map(Size._make, grid.sizes):
            cells = [folder / name / shadows.name(*size, seed) for seed in grid.seeds]
            found = [membership.detections(cell) for cell in cells]
            for rate in rates:
                told = [one[rate] for one in found]
                if all(isinstance(one, Detection) for one in told):
                    yield from _told(subject(name, size), row.of, size, rate, told)  # type: ignore[arg-type]
            yield Line(subject(name, size), KIND, AUC, "", row.of, _range([membership.auc(c) for c in cells]))


def _told(own: str, of: str, size: Size, rate: float, found: list[Detection]) -> Iterator[Line]:
    figure = metrics.together(found)
    yield Line(own, KIND, TPR.format(rate), "", of, figure)
    ends = (figure.point, figure.low, figure.high)
    point, low, high = (float(corrected(end, size.examples, rate)) for end in ends)
    again = replace(figure, point=point, low=low, high=high)
    yield Line(own, KIND, CORRECTED.format(rate), "", of, again)


def _range(values: list[float]) -> Figure:
    return Figure(
        float(np.mean(values)), min(values), max(values), len(values), len(values), "range over seeds"
    )


def records(
    folder: Path, rows: dict[str, membership.Row], grids: dict[str, shadows.Row], rate: float
) -> Iterator[Line]:
    """Quantiles over records of their own TPR, each by a threshold of its own."""
    for name, row in rows.items():
        grid = grids[row.of]
        for size in map(Size._make, grid.sizes):
            each = [
                by_record.per_record(*membership.scores(folder / name / shadows.name(*size, seed)), rate)
                for seed in grid.seeds
            ]
            values = [one[~one.isnan()].numpy() for one in each]
            if min(len(one) for one in values):
                for how, q in QUANTILES.items():
                    line = _range([float(np.quantile(one, q)) for one in values])
                    yield Line(subject(name, size), KIND, RECORD.format(rate, how), "", row.of, line)


def cells(folder: Path, attack: str, grid: shadows.Row, rate: float) -> list[Cell]:
    """TPR of every size and seed at a rate; not a number where it is refused."""
    found = []
    for size in map(Size._make, grid.sizes):
        for seed in grid.seeds:
            told = membership.detections(folder / attack / shadows.name(*size, seed))[rate]
            tpr = told.tpr.point if isinstance(told, Detection) else float("nan")
            found.append(Cell(*size, tpr, seed))
    return found
