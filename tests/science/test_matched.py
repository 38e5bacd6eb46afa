"""Curves whose answer is known, and what cannot be answered."""

from itertools import pairwise

import numpy as np
import pytest

from mipriv import stats
from mipriv.analysis.matched import Point, at, common_level, difference, excess, gain
from mipriv.errors import InputError

SEEDS, PEOPLE = SHAPE = 2, 30


def flat(natural: float, attack: float) -> Point:
    return Point(np.full(SHAPE, natural), np.full(SHAPE, attack))


def noisy(seed: int, levels: list[tuple[float, float]], shape: tuple[int, int] = SHAPE) -> list[Point]:
    """A curve around these means; people who are harder to recognise are so in all points."""
    random = np.random.default_rng(seed)
    person = random.normal(size=(1, shape[1]))
    person -= person.mean()
    return [
        Point(
            n + 0.05 * person + 0.02 * random.normal(size=shape),
            a + 0.1 * person + 0.05 * random.normal(size=shape),
        )
        for n, a in levels
    ]


LINE = [(0.9, 0.7), (0.5, 0.1), (0.7, 0.4)]


def test_a_line_is_read_between_its_points() -> None:
    """Attack = 1.5 natural - 0.65, also a person; points in any order."""
    random = np.random.default_rng(0)
    curve = [Point(n := 0.05 * random.random(SHAPE) + base, 1.5 * n - 0.65) for base in (0.7, 0.5, 0.6)]
    for level in (0.55, 0.6, 0.7):
        figure = at(curve, level)
        assert figure is not None
        assert (figure.point, figure.low, figure.high) == pytest.approx((1.5 * level - 0.65,) * 3)
        assert (figure.n, figure.seeds, figure.method) == (PEOPLE, SEEDS, "pigeonhole bootstrap")


def test_pieces_are_linear_by_hand() -> None:
    curve = [flat(0.5, 0.1), flat(0.9, 0.8), flat(0.7, 0.2)]
    found = [at(curve, level) for level in (0.5, 0.6, 0.7, 0.75, 0.9)]
    assert [f and f.point for f in found] == pytest.approx([0.1, 0.15, 0.2, 0.35, 0.8])


def test_a_point_of_the_curve_is_returned_at_its_own_level() -> None:
    curve = noisy(0, LINE)
    for point in curve:
        figure = at(curve, float(point.natural.mean()))
        assert figure is not None and figure.point == point.attack.mean()


def test_beyond_the_curve_there_is_no_answer() -> None:
    curve = [flat(*pair) for pair in LINE]
    assert at(curve, 0.499) is None and at(curve, 0.901) is None
    assert difference(curve, [flat(0.2, 0.1), flat(0.6, 0.5)], 0.7) is None
    assert difference([flat(0.2, 0.1), flat(0.6, 0.5)], curve, 0.7) is None


def test_of_equal_natural_accuracy_the_lowest_attack_counts() -> None:
    curve = [flat(0.7, 0.6), flat(0.7, 0.2), flat(0.7, 0.4), flat(0.9, 0.8), flat(0.5, 0.0)]
    for order in (curve, curve[::-1]):
        found = [at(order, level) for level in (0.6, 0.7, 0.8)]
        assert [f and f.point for f in found] == pytest.approx([0.1, 0.2, 0.5])


def slow_replicates(curve: list[Point], level: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Each resample on its own: natural and attack under one weight, the curve ordered anew."""
    read, beyond = [], []
    for by_seed, by_identity in zip(*stats.weights(SHAPE, seed), strict=True):
        means = sorted((by_seed @ n @ by_identity, by_seed @ a @ by_identity) for n, a in curve)
        beyond.append(not means[0][0] <= level <= means[-1][0])
        for (x, y), (u, v) in pairwise(means):
            if x <= level <= u:
                read.append(y + (v - y) * (level - x) / (u - x))
                break
        else:
            read.append(means[0][1] if level < means[0][0] else means[-1][1])
    return np.array(read), np.array(beyond)


@pytest.mark.parametrize("level", [0.6, 0.7, 0.895])
def test_the_interval_by_one_resample_at_a_time(level: float) -> None:
    curve = noisy(1, LINE)
    figure = at(curve, level, seed=4)
    read, beyond = slow_replicates(curve, level, 4)
    assert figure is not None
    assert (figure.low, figure.high) == pytest.approx(tuple(np.quantile(read, [0.025, 0.975])))
    assert ("at the curve's end" in figure.method) == beyond.any()


def test_resamples_that_do_not_reach_the_level_are_reported() -> None:
    curve = noisy(1, LINE)
    level = common_level([curve])
    figure = at(curve, level)
    assert figure is not None and figure.point == curve[0].attack.mean()
    share = slow_replicates(curve, level, 0)[1].mean()
    assert 0.2 < share < 0.8 and f"at the curve's end in {share:.1%} of resamples" in figure.method
    assert figure.low < figure.point < figure.high


@pytest.mark.parametrize("level", [0.7, 0.85])
def test_coverage_is_close_to_nominal(level: float) -> None:
    """People drawn anew: the true curve is attack = 1.5 natural - 0.65 in the mean."""
    inside = 0
    for trial in range(60):
        random = np.random.default_rng(trial)
        person = random.normal(size=(1, PEOPLE))
        curve = [
            Point(
                n + 0.1 * person + 0.05 * random.normal(size=(1, PEOPLE)),
                1.5 * n - 0.65 + 0.3 * person + 0.05 * random.normal(size=(1, PEOPLE)),
            )
            for n in (0.5, 0.65, 0.8, 1.0)
        ]
        figure = at(curve, level, seed=trial)
        assert figure is not None
        inside += figure.low <= 1.5 * level - 0.65 <= figure.high
    assert inside / 60 >= 0.86


def test_the_difference_is_paired() -> None:
    """What both curves share is not in the interval of their difference, though it is in theirs."""
    a = noisy(2, LINE)
    b = [Point(n, attack - 0.2) for n, attack in a]
    both, alone = difference(a, b, 0.65), at(a, 0.65)
    assert both is not None and alone is not None
    assert (both.point, both.low, both.high) == pytest.approx((0.2,) * 3)
    assert alone.high - alone.low > 0.01
    back = difference(b, a, 0.65)
    assert back is not None and back.low == pytest.approx(-0.2)


def test_figures_without_spread_still_have_an_interval() -> None:
    none = [flat(0.5, 0.0), flat(0.9, 0.0)]
    figure, exact = at(none, 0.7), stats.proportion(0, PEOPLE)
    assert figure is not None and (figure.low, figure.high) == (exact.low, exact.high)
    same = difference(none, none, 0.7)
    assert same is not None and same.low == -exact.high and same.high == exact.high


def test_the_common_level_is_the_least_of_the_highest() -> None:
    curves = [[flat(0.5, 0.1), flat(0.9, 0.5)], [flat(0.8, 0.1), flat(0.4, 0.5)]]
    assert common_level(curves) == pytest.approx(0.8)
    assert all(at(curve, common_level(curves)) is not None for curve in curves)
    # One that is better at its strongest than another ever is.
    assert at([flat(0.95, 0.1)], common_level([*curves, [flat(0.95, 0.1)]])) is None
    assert common_level([[flat(0.95, 0.1)]]) == pytest.approx(0.95)


def test_gain_by_hand_and_by_percentiles() -> None:
    none, defended = noisy(3, [(0.9, 0.8), (0.8, 0.3)])
    figure = gain(none, defended, seed=2)
    assert figure is not None
    lost, paid = (none.attack - defended.attack), (none.natural - defended.natural)
    assert figure.point == pytest.approx(lost.mean() / paid.mean())
    s, i = stats.weights(SHAPE, 2)
    slow = [(x @ lost @ y) / (x @ paid @ y) for x, y in zip(s, i, strict=True)]
    assert (figure.low, figure.high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])))


@pytest.mark.parametrize("paid", [-0.1, 0.0, 0.001])
def test_gain_is_withheld_where_nothing_certain_was_paid(paid: float) -> None:
    none, defended = noisy(3, [(0.9, 0.8), (0.9 - paid, 0.3)])
    assert gain(none, defended) is None
    assert gain(flat(0.9, 0.8), flat(0.9 - min(paid, 0), 0.3)) is None


def test_gain_near_nothing_paid_is_finite_and_not_turned_round() -> None:
    """In up to 2.5% of resamples nothing was paid: they belong beyond the upper end, not below the lower."""
    random = np.random.default_rng(0)
    cost = random.normal(size=(1, PEOPLE))
    cost = (cost - cost.mean()) / cost.std() * 0.1
    cost += 2.15 * 0.1 / PEOPLE**0.5
    none = Point(np.full((1, PEOPLE), 0.9), np.full((1, PEOPLE), 0.8) + 0.01 * cost)
    figure = gain(none, Point(0.9 - cost, np.full((1, PEOPLE), 0.3)))
    _, weights = stats.weights((1, PEOPLE), 0)
    assert 0 < ((weights @ cost[0]) <= 0).mean() < 0.025
    assert figure is not None and 0 < figure.low < figure.point < figure.high < np.inf


def test_curves_that_cannot_be_read_are_refused() -> None:
    short = Point(np.zeros((SEEDS, PEOPLE - 1)), np.zeros((SEEDS, PEOPLE - 1)))
    broken = Point(np.full(SHAPE, np.nan), np.zeros(SHAPE))
    for curve in ([], [flat(0.5, 0.5), short], [Point(flat(0, 0).natural, short.attack)], [broken]):
        with pytest.raises(InputError, match=r"curve: .*; allowed: "):
            at(curve, 0.5)
    with pytest.raises(InputError, match="allowed: equal numbers"):
        difference([flat(0, 0)], [short], 0.0)
    with pytest.raises(InputError, match="allowed: at least 1"):
        common_level([])


def test_excess_is_relative_to_the_curve_at_the_points_own_accuracy() -> None:
    """A point a fifth above a line, people hard and easy alike on both: the interval is a point."""
    random = np.random.default_rng(3)
    person = 0.2 * random.normal(size=(1, PEOPLE))
    person -= person.mean()
    line = [Point(np.full(SHAPE, n) + person, 1 - np.full(SHAPE, n) - person) for n in (0.4, 0.6, 0.8)]
    own = Point(np.full(SHAPE, 0.5) + person, 1.2 * (0.5 - person) + np.zeros(SHAPE))
    found = excess(own, line)
    assert found is not None and found.point == pytest.approx(0.2)
    assert found.low == pytest.approx(0.2) and found.high == pytest.approx(0.2)
    on = excess(line[1], line)
    assert on is not None and (on.point, on.low, on.high) == pytest.approx((0, 0, 0))


def test_excess_is_withheld_beyond_the_curve_and_refuses_what_is_no_size() -> None:
    assert excess(flat(0.95, 0.1), [flat(0.9, 0.1), flat(0.5, 0.2)]) is None
    with pytest.raises(InputError, match="not above 0; allowed: figures above 0"):
        excess(flat(0.7, 0.1), [flat(0.9, 0.0), flat(0.5, 0.2)])
