"""Intervals against slow oracles and known answers."""

from typing import Any

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


def test_a_gain_is_the_ratio_of_means_in_the_same_resamples() -> None:
    random = np.random.default_rng(7)
    b = random.lognormal(size=(3, 12))
    a = b * random.lognormal(0.3, 0.2, (3, 12))
    figure, slow = stats.gain(a, b), []
    for _ in range(4_000):
        drawn = np.ix_(random.integers(3, size=3), random.integers(12, size=12))
        slow.append(a[drawn].mean() / b[drawn].mean() - 1)
    low, high = np.quantile(slow, [0.025, 0.975])
    assert figure.point == pytest.approx(a.mean() / b.mean() - 1)
    assert [figure.low, figure.high] == pytest.approx([low, high], abs=0.08 * (high - low))
    assert (figure.n, figure.seeds) == (12, 3)


def test_a_gain_of_all_alike_is_certain() -> None:
    b = np.random.default_rng(0).lognormal(size=(2, 9))
    figure = stats.gain(1.25 * b, b)
    assert [figure.point, figure.low, figure.high] == pytest.approx([0.25] * 3)


def test_a_gain_covers_the_ratio_of_the_laws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "RESAMPLES", 300)
    random, inside, truth = np.random.default_rng(9), 0, np.exp(0.4 + 0.3**2 / 2) - 1
    for trial in range(200):
        b = random.lognormal(0, 0.5, (1, 60))
        figure = stats.gain(b * random.lognormal(0.4, 0.3, (1, 60)), b, seed=trial)
        inside += figure.low <= truth <= figure.high
    assert 0.88 <= inside / 200 <= 0.99


def test_a_gain_over_nothing_is_refused() -> None:
    a = np.ones((1, 3))
    for b in (np.zeros((1, 3)), np.array([[0.0, 0.0, 1.0]]), np.array([[-1.0, -1.0, -1.0]])):
        with pytest.raises(InputError, match=r"gain: over a mean of .*; allowed: above 0"):
            stats.gain(a, b)
    with pytest.raises(InputError, match=r"gain: shapes \(1, 3\) and \(1, 4\); allowed: equal shapes"):
        stats.gain(a, np.ones((1, 4)))
    with pytest.raises(InputError, match="gain: a value is not finite"):
        stats.gain(a, a * np.inf)


@pytest.mark.parametrize("chunk", [1, 10**6])
@pytest.mark.parametrize(("shape", "q"), [((1, 9), 0.47), ((3, 8), 0.1), ((2, 7), 1.0), ((4, 5), 0.0)])
def test_a_quantile_is_that_of_every_resample(
    shape: tuple[int, int], q: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very resamples of `mean`, each written out."""
    monkeypatch.setattr(stats, "CELLS", chunk)
    monkeypatch.setattr(stats, "RESAMPLES", 300)
    values = np.random.default_rng(1).normal(size=shape)
    values[:, 1] = values[0, 0]  # ties
    by_seed, by_identity = (
        np.rint(weight * units).astype(int)
        for weight, units in zip(stats.weights(shape, 6), shape, strict=True)
    )
    slow = [
        np.quantile(values.repeat(seeds, 0).repeat(people, 1), q)
        for seeds, people in zip(by_seed, by_identity, strict=True)
    ]
    figure = stats.quantile(values, q, seed=6)
    assert figure.point == np.quantile(values, q)
    assert [figure.low, figure.high] == pytest.approx(list(np.quantile(slow, [0.025, 0.975])))
    assert (figure.n, figure.seeds) == (shape[1], shape[0])


def test_images_of_one_identity_are_drawn_together() -> None:
    random = np.random.default_rng(2)
    people = np.array([4, 4, 4, 4, 9, 9, 1, 1, 1, 0, 0, 0, 0, 0, 7, 7, 7])
    values = random.normal(size=10)[people][None] + random.normal(0, 0.1, (1, 17))
    found, slow = stats.quantile(values, 0.4, people), []
    for _ in range(4_000):
        drawn = random.choice([0, 1, 4, 7, 9], 5)
        slow.append(np.quantile(np.concatenate([values[0, people == who] for who in drawn]), 0.4))
    low, high = np.quantile(slow, [0.025, 0.975])
    assert found.n == 5 and found.point == np.quantile(values, 0.4)
    assert [found.low, found.high] == pytest.approx([low, high], abs=0.05 * (high - low))
    alone = stats.quantile(values, 0.4)
    assert found.high - found.low > alone.high - alone.low


@pytest.mark.parametrize(("q", "truth"), [(0.5, 1.0), (0.1, np.exp(-1.2815515655))])
def test_a_quantile_covers_that_of_the_law(q: float, truth: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "RESAMPLES", 300)
    random, inside = np.random.default_rng(4), 0
    for trial in range(200):
        figure = stats.quantile(random.lognormal(size=(1, 80)), q, seed=trial)
        inside += figure.low <= truth <= figure.high
    assert 0.88 <= inside / 200 <= 0.99


@pytest.mark.parametrize("wrong", [{"q": 1.1}, {"q": np.nan}, {"groups": [1, 1, 1]}, {"groups": [1, 2]}])
def test_a_quantile_of_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"quantile: .*allowed"):
        stats.quantile(np.zeros((2, 3)), **{"q": 0.5, **wrong})


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
