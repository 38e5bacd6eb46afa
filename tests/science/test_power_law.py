"""The regression, what it leaves out, and its inverse, against least squares written out and known laws."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import special

from mipriv import stats
from mipriv.analysis import power_law, shift_law
from mipriv.analysis.dp_bound import tpr_bound
from mipriv.analysis.power_law import PAPER, PowerLaw, fit
from mipriv.analysis.vulnerability_grid import Cell, regress
from mipriv.errors import InputError

GRID = [(s, c) for s in (8, 16, 32, 64, 128) for c in (2, 5, 10)]
LAW = PowerLaw(0.1, -0.5, 0.1, 0.1)


def cells_of(
    law: PowerLaw, seeds: int = 1, noise: float = 0.0, grid: list[tuple[int, int]] = GRID
) -> list[Cell]:
    random = np.random.default_rng(7)
    return [
        Cell(s, c, law.fpr + (float(law.predict(s, c)) - law.fpr) * 10 ** random.normal(0, noise), seed)
        for seed in range(seeds)
        for s, c in grid
    ]


def test_coefficients_and_r2_are_those_of_least_squares() -> None:
    cells = cells_of(LAW, seeds=3, noise=0.05)
    found = fit(cells, 0.1)
    x = np.array([[math.log10(one.examples), math.log10(one.classes), 1] for one in cells])
    y = np.array([math.log10(one.tpr - 0.1) for one in cells])
    expected, residual, *_ = np.linalg.lstsq(x, y, rcond=None)
    assert [found.b_s, found.b_c, found.b_0] == pytest.approx(expected.tolist(), rel=1e-10)
    assert found.r2_fitted.point == pytest.approx(1 - residual[0] / ((y - y.mean()) ** 2).sum())
    assert found.r2_fitted.low < found.r2_fitted.point < found.r2_fitted.high
    for figure, truth in zip(found.coefficients, (LAW.b_s, LAW.b_c, LAW.b_0), strict=True):
        assert figure.low < truth < figure.high and (figure.n, figure.seeds) == (15, 3)


@pytest.mark.parametrize("fpr", [0.1, 0.01, 0.001])
def test_a_law_is_recovered_from_its_own_cells(fpr: float) -> None:
    law = dataclasses.replace(PAPER[fpr], b_0=-0.3)
    found = fit(cells_of(law), fpr)
    assert (found.b_s, found.b_c, found.b_0) == pytest.approx((law.b_s, law.b_c, law.b_0))
    assert found.r2(cells_of(law, grid=[(256, 3), (300, 20), (11, 7)])).point == pytest.approx(1)


def test_r2_of_cells_held_out_is_by_their_own_mean_and_falls_below_zero() -> None:
    other = [Cell(8, 2, 0.3), Cell(32, 2, 0.5), Cell(128, 2, 0.6)]  # rises where the law falls
    y = [math.log10(one.tpr - 0.1) for one in other]
    line = [-0.5 * math.log10(one.examples) + 0.1 * math.log10(2) + 0.1 for one in other]
    mean = sum(y) / 3
    by_hand = 1 - sum((a - b) ** 2 for a, b in zip(y, line, strict=True)) / sum((a - mean) ** 2 for a in y)
    assert LAW.r2(other).point == pytest.approx(by_hand) and by_hand < 0


def test_intervals_resample_seeds_and_cells_and_not_rows() -> None:
    """By drawing indices: a row counts as often as its seed times as its (S, C) is drawn."""
    random = np.random.default_rng(3)
    cells = [Cell(s, c, 0.5, seed) for seed in range(4) for s, c in GRID]
    x = np.array([[math.log10(one.examples), math.log10(one.classes), 1] for one in cells])
    y = np.repeat(random.normal(0, 0.1, 4), 15) + np.tile(random.normal(0, 0.1, 15), 4) - x[:, 0]
    slow = []
    for _ in range(1_500):
        seeds, points = random.integers(4, size=4), random.integers(15, size=15)
        rows = (seeds[:, None] * 15 + points).ravel()
        slow.append(np.linalg.lstsq(x[rows], y[rows], rcond=None)[0])
    low, high = np.quantile(slow, [0.025, 0.975], axis=0)
    found = regress(x, y, cells).coefficients
    for i, figure in enumerate(found):
        assert figure.low == pytest.approx(low[i], abs=0.12 * (high[i] - low[i]))
        assert figure.high == pytest.approx(high[i], abs=0.12 * (high[i] - low[i]))


def test_cells_at_chance_saturated_or_unresolved_are_left_out_by_name() -> None:
    cells = cells_of(LAW)
    wrong = [Cell(8, 2, 0.1), Cell(8, 5, 0.02), Cell(16, 2, 1.0), Cell(16, 5, 0.9), Cell(32, 2, math.nan)]
    found = fit(cells + wrong, 0.1)
    assert (found.b_s, found.b_c) == pytest.approx((LAW.b_s, LAW.b_c))
    assert [one.cell for one in found.excluded] == wrong and list(found.used) == cells
    reasons = [one.reason for one in found.excluded]
    assert all("not above" in one for one in reasons[:2]) and all("saturated" in one for one in reasons[2:4])
    assert "no TPR" in reasons[4]
    assert fit(cells + wrong[3:4], 0.1, saturated=0.95).excluded == ()
    assert LAW.r2(cells + wrong).point == pytest.approx(1)


@pytest.mark.parametrize(
    "cells",
    [
        [],
        cells_of(LAW, grid=GRID[:3]),
        cells_of(LAW, grid=[(8, 2), (16, 5), (32, 2)]),
        cells_of(LAW, grid=[(s, 2) for s in (8, 16, 32, 64, 128)]),
        cells_of(LAW, grid=[(2, 2), (4, 4), (8, 8), (16, 16), (32, 32)]),
        [*cells_of(LAW), Cell(8, 2, 1.5)],
        [*cells_of(LAW), Cell(0, 2, 0.5)],
    ],
)
def test_what_fixes_no_line_is_refused(cells: list[Cell]) -> None:
    with pytest.raises(InputError, match="allowed"):
        fit(cells, 0.1)


PUBLISHED = {
    0.1: (5_400, 1_100, 360, 160),
    0.01: (69_000, 16_000, 5_900, 2_700),
    0.001: (320_000, 88_000, 38_000, 19_000),
}


@pytest.mark.parametrize("fpr", list(PUBLISHED))
def test_the_papers_least_examples_are_its_coefficients_rounded_up_to_two_digits(fpr: float) -> None:
    for epsilon, published in zip((0.25, 0.5, 0.75, 1), PUBLISHED[fpr], strict=True):
        least = power_law.least_examples(epsilon, 1e-5, fpr, classes=2)
        unit = 10 ** (math.floor(math.log10(least)) - 1)
        assert math.ceil(least / unit) * unit == published


@pytest.mark.parametrize("fpr", [0.1, 0.001])
@pytest.mark.parametrize("classes", [2, 37])
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 2.0])
def test_least_examples_invert_the_prediction(fpr: float, classes: int, epsilon: float) -> None:
    bound = tpr_bound(epsilon, 1e-5, fpr)
    law, shift = PAPER[fpr], shift_law.ShiftLaw(-0.5, 0.1, 0.4)
    least, exact = (
        law.least_examples(epsilon, 1e-5, classes),
        shift.least_examples(epsilon, 1e-5, fpr, classes),
    )
    assert min(least, exact) > 1
    assert float(law.predict(least, classes)) == pytest.approx(bound, rel=1e-9)
    assert float(shift.predict(exact, classes, fpr)) == pytest.approx(bound, rel=1e-9)


def test_least_examples_at_the_ends() -> None:
    assert math.isinf(LAW.least_examples(0, 0, 2))
    assert dataclasses.replace(LAW, b_0=-0.5).least_examples(3, 0, 2) == 1
    with pytest.raises(InputError, match="b_S"):
        PowerLaw(0.1, 0.1, 0, -1).least_examples(1, 0, 2)
    with pytest.raises(InputError, match=r"allowed: 0\.1, 0\.01, 0\.001"):
        power_law.predict(100, 2, fpr=0.05)


def test_the_bound_is_the_best_of_its_two_lines() -> None:
    assert tpr_bound(1, 0, 0.1) == pytest.approx(math.e / 10)
    assert tpr_bound(1, 0, 0.9) == pytest.approx(1 - 0.1 / math.e)
    assert tpr_bound(1, 0.05, 0.9) == pytest.approx(1 - 0.05 / math.e)
    assert tpr_bound(0, 0.01, 0.2) == pytest.approx(0.21) and tpr_bound(5_000, 0, 1e-3) == 1
    with pytest.raises(InputError, match="allowed"):
        tpr_bound(-1, 0, 0.1)


def test_predictions_have_the_interval_of_the_line() -> None:
    found = fit(cells_of(LAW, seeds=2, noise=0.1), 0.1)
    figure = found.predicted(40, 4)
    assert figure.point == float(found.predict(40, 4)) == pytest.approx(LAW.predict(40, 4), rel=0.1)
    lines = found.replicates @ [math.log10(40), math.log10(4), 1]
    assert (figure.low, figure.high) == pytest.approx(stats.interval(0.1 + 10**lines))
    far, least = found.predicted(4_000, 4), found.least(0.5, 1e-5, 4)
    assert math.log((far.high - 0.1) / (far.low - 0.1)) > math.log((figure.high - 0.1) / (figure.low - 0.1))
    assert least.low < least.point < least.high and least.point == found.least_examples(0.5, 1e-5, 4)


def test_a_prediction_is_a_rate() -> None:
    assert float(LAW.predict(1, 2)) == 1 and np.shape(LAW.predict([[8], [16]], [2, 5, 10])) == (2, 3)
    assert power_law.predict(100, 10, 0.01) == pytest.approx(
        0.01 + 10 ** (-0.555 * 2 + 0.182 + 0.083), rel=1e-12
    )


def shifted(fpr: float, slope: float, grid: list[tuple[int, int]] = GRID) -> list[Cell]:
    z = -special.ndtri(fpr)
    return [Cell(s, c, float(special.ndtr(3 * s**slope * c**0.2 - z))) for s, c in grid]


@pytest.mark.parametrize("slope", [None, -0.5])
def test_one_shift_law_serves_every_fpr_where_power_laws_need_one_each(slope: float | None) -> None:
    fprs = (0.1, 0.01)
    found = shift_law.fit({fpr: shifted(fpr, -0.5) for fpr in fprs}, slope)
    assert (found.b_s, found.b_c, found.b_0) == pytest.approx((-0.5, 0.2, math.log10(3)))
    assert ("b_s" in found.coefficients) == (slope is None)
    (unseen,) = shifted(0.001, -0.5, [(300, 7)])
    assert float(found.predict(300, 7, 0.001)) == pytest.approx(unseen.tpr)
    figure = found.predicted(300, 7, 0.001)
    assert figure.low <= figure.point + 1e-12 and figure.point <= figure.high + 1e-12
    slopes = [fit(shifted(fpr, -0.5), fpr, saturated=0.99).b_s for fpr in fprs]
    assert slopes[1] < slopes[0] - 0.1


def test_a_slope_that_theory_does_not_have_is_found_when_asked_for() -> None:
    cells = {0.1: shifted(0.1, -0.35)}
    assert shift_law.fit(cells, slope=None).b_s == pytest.approx(-0.35)
    assert shift_law.fit(cells).r2_fitted.point < 0.95 < shift_law.fit(cells, None).r2_fitted.point
