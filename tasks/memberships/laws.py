"""Laws of membership vulnerability fitted to a grid, as lines of a table."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mipriv.analysis import power_law, shift_law
from mipriv.errors import InputError
from mipriv.stats import Figure
from tasks import membership, shadows
from tasks.leakage import Line
from tasks.memberships import grids

LAW, SHIFT, LEAST = "power law", "exact form", "least examples"
EPSILONS = (0.25, 0.5, 0.75, 1.0)
DELTA, CLASSES = 1e-5, 2  # of the published table of least examples
SLOPES = ("b_s", "b_c", "b_0")
R2, HELD_OUT, USED = "R2", "R2 of cells held out", "cells"


def of_attack(
    folder: Path, name: str, row: membership.Row, grid: shadows.Row, rates: list[float]
) -> Iterator[Line]:
    """A line an FPR, where there are cells enough, and one for all of them by the model's exact form."""
    by_rate = {rate: grids.cells(folder, name, grid, rate) for rate in rates}
    fitted = {}
    for rate, cells in by_rate.items():
        against = f"fpr {rate:g}"
        try:
            law = power_law.fit(cells, rate)
        except InputError:
            continue
        fitted[rate] = cells
        yield from (Line(name, LAW, slope, "", against, getattr(law.coefficients, slope)) for slope in SLOPES)
        yield Line(name, LAW, R2, "", against, law.r2_fitted)
        with suppress(InputError):  # without one of its sizes a grid may be too small for a line
            yield Line(name, LAW, HELD_OUT, "", against, power_law.held_out(cells, rate))
        yield Line(name, LAW, USED, "", against, _share(len(law.used), len(cells), len(grid.seeds)))
        if law.b_s < 0:
            for epsilon in EPSILONS:
                yield Line(
                    name, LEAST, f"epsilon {epsilon:g}", "", against, law.least(epsilon, DELTA, CLASSES)
                )
    if fitted:
        exact = shift_law.fit(fitted)
        for slope, figure in exact.coefficients.items():
            yield Line(name, SHIFT, slope, "", "all rates", figure)
        yield Line(name, SHIFT, R2, "", "all rates", exact.r2_fitted)


def _share(used: int, of: int, seeds: int) -> Figure:
    """How many of the cells a law was fitted to, exactly."""
    return Figure(used / of, used / of, used / of, of, seeds, "count")
