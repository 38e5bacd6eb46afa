"""Intervals against slow oracles and known answers."""

import numpy as np
import pytest
from scipy import stats as reference

from mipriv import stats
from mipriv.errors import InputError


@pytest.mark.parametrize(("hits", "trials"), [(0, 20), (1, 20), (7, 80), (20, 20)])
def test_clopper_pearson_by_its_definition(hits: int, trials: int) -> None:
    figure = stats.proportion(hits, trials)
    assert figure.point == hits / trials
    if hits:
        assert reference.binom.sf(hits - 1, trials, figure.low) == pytest.approx(0.025)
    if hits < trials:
        assert reference.binom.cdf(hits, trials, figure.high) == pytest.approx(0.025)


def slow_pigeonhole(values: np.ndarray, resamples: int) -> tuple[float, float]:
    random = np.random.default_rng(5)
    s, i = values.shape
    means = [
        values[np.ix_(random.integers(s, size=s), random.integers(i, size=i))].mean()
        for _ in range(resamples)
    ]
    return tuple(np.quantile(means, [0.025, 0.975]))


@pytest.mark.parametrize("shape", [(1, 20), (3, 20), (5, 7)])
def test_the_bootstrap_agrees_with_index_resampling(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(1).random(shape) + np.random.default_rng(2).normal(size=(shape[0], 1))
    figure, (low, high) = stats.mean(values), slow_pigeonhole(values, 4_000)
    assert figure.point == pytest.approx(values.mean())
    assert figure.low == pytest.approx(low, abs=0.06 * (high - low))
    assert figure.high == pytest.approx(high, abs=0.06 * (high - low))


def test_spread_between_seeds_widens_the_interval() -> None:
    base = np.random.default_rng(0).random((1, 30)).repeat(3, 0)
    apart = base + np.array([[-0.5], [0.0], [0.5]])
    same, wide = stats.mean(base), stats.mean(apart)
    assert wide.high - wide.low > 2 * (same.high - same.low)


def test_coverage_over_identities_is_close_to_nominal() -> None:
    random = np.random.default_rng(3)
    inside = 0
    for trial in range(200):
        figure = stats.mean(random.normal(0.4, 1, (1, 40)), seed=trial)
        inside += figure.low <= 0.4 <= figure.high
    assert 0.88 <= inside / 200 <= 0.99


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_unanimous_identities_still_have_an_interval(value: float) -> None:
    figure, exact = stats.mean(np.full((3, 20), value)), stats.proportion(round(20 * value), 20)
    assert (figure.low, figure.high, figure.n) == (exact.low, exact.high, 20)


def test_pairing_removes_what_both_share() -> None:
    shared = np.random.default_rng(0).normal(size=(3, 20)) * 5
    figure = stats.paired_difference(shared + 0.2, shared)
    assert figure.point == pytest.approx(0.2) and figure.high - figure.low < 1e-9


def test_a_difference_that_never_shows_has_an_interval_either_way() -> None:
    figure = stats.paired_difference(np.ones((1, 20)), np.ones((1, 20)))
    assert figure.low < 0 < figure.high and figure.low == -figure.high


@pytest.mark.parametrize("wrong", [np.zeros(4), np.zeros((2, 1)), np.array([[0.0, np.nan]])])
def test_what_carries_no_interval_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(InputError, match="allowed"):
        stats.mean(wrong)


def test_unpaired_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="allowed: equal shapes"):
        stats.paired_difference(np.zeros((1, 4)), np.zeros((1, 5)))


def test_rows_are_resampled_whole() -> None:
    random = np.random.default_rng(4)
    values = random.random((30, 1)) * np.array([[1.0, 3.0, 0.0]]) + random.random((30, 3)) * 0.3
    figures = stats.of_rows(values, lambda means: means[:, :2] / means.sum(1, keepdims=True))
    means = np.array([values[random.integers(30, size=30)].mean(0) for _ in range(4_000)])
    for column, figure in enumerate(figures):
        ends = np.quantile(means[:, column] / means.sum(1), [0.025, 0.975])
        assert figure.point == pytest.approx(values.mean(0)[column] / values.mean(0).sum())
        assert [figure.low, figure.high] == pytest.approx(ends, abs=0.08 * (ends[1] - ends[0]))
        assert (figure.n, figure.seeds) == (30, 1)


def test_a_mean_of_rows_is_that_of_each_column() -> None:
    values = np.random.default_rng(0).normal(size=(25, 3))
    for column, figure in enumerate(stats.of_rows(values)):
        alone = stats.mean(values[None, :, column])
        assert figure.point == pytest.approx(alone.point)
        assert figure.low == pytest.approx(alone.low, abs=0.05) and figure.high == pytest.approx(
            alone.high, abs=0.05
        )


@pytest.mark.parametrize("wrong", [np.zeros(4), np.zeros((1, 2)), np.array([[0.0], [np.inf]])])
def test_rows_that_carry_no_interval_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(InputError, match="rows >= 2"):
        stats.of_rows(wrong)
