"""Closed forms against simulated classifiers, differences and slow loops."""

import math

import numpy as np
import pytest

from mipriv.analysis import class_means, membership_model
from mipriv.analysis.class_means import simulate
from mipriv.analysis.membership_model import (
    GAUSSIAN,
    LOGISTIC,
    asymptotic,
    corrected,
    exact,
    inflation,
    local_slope,
    location_scale,
    signals,
)
from mipriv.errors import InputError

FPRS = (0.1, 0.01, 0.001)


def examples_of(dim: int, variance: float, n: int, seed: int = 0) -> np.ndarray:
    """Of a class with mean e_1 and covariance `variance` I."""
    noise = np.random.default_rng(seed).normal(0, math.sqrt(variance), (n, dim))
    noise[:, 0] += 1
    return noise


@pytest.fixture(scope="module")
def deltas() -> np.ndarray:
    """Of the setting in which the law's distance from the exact form was first measured."""
    return signals(examples_of(256, 0.01, 4_000), np.eye(256)[0], 0.01 * np.eye(256))


def test_signals_by_a_loop() -> None:
    random = np.random.default_rng(1)
    x, means, root = random.normal(size=(5, 3)), random.normal(size=(5, 3)), random.normal(size=(3, 3))
    v = root.T @ root
    slow = [abs(a @ (a - m)) / math.sqrt(a @ v @ a) for a, m in zip(x, means, strict=True)]
    np.testing.assert_allclose(signals(x, means, v), slow)


@pytest.mark.parametrize(("family", "draw"), [(GAUSSIAN, "normal"), (LOGISTIC, "logistic")])
def test_location_scale_by_counting(family: membership_model.Family, draw: str) -> None:
    sample = getattr(np.random.default_rng(2), draw)(size=400_000)
    for fpr, shift in ((0.1, 0.7), (0.01, 2.0), (0.1, -0.5)):
        threshold = np.quantile(5 + 3 * sample, 1 - fpr)
        counted = (5 + 3 * (sample + shift) > threshold).mean()
        assert float(location_scale(shift, fpr, family)) == pytest.approx(counted, rel=0.03)


def within(found: class_means.Simulated, law: np.ndarray, fprs: tuple[float, ...]) -> bool:
    """Within 4% wherever TPR - FPR is above 0.004."""
    told = law - np.array(fprs) > 0.004
    assert told.sum() >= 2 and (found.se[told] < 0.02 * found.tpr[told]).all()
    return bool((np.abs(found.tpr / law - 1)[told] < 0.04).all())


def curve(deltas: np.ndarray, s: int, fprs: tuple[float, ...], **how: object) -> np.ndarray:
    return np.array([exact(deltas, [s], fpr, **how)[0] for fpr in fprs])


def test_fresh_classifiers_meet_the_closed_form_and_not_the_corrected_one() -> None:
    v = 0.02 * np.eye(64)
    found = simulate(np.eye(64)[:2], v, 128, FPRS[:2], batches=8, models=24_999, targets=16)
    assert within(found, curve(found.deltas, 128, FPRS[:2]), FPRS[:2])
    assert not within(found, curve(found.deltas, 128, FPRS[:2], design="half_split"), FPRS[:2])


def test_half_splits_of_a_pool_meet_the_corrected_form_and_not_the_raw_one() -> None:
    fprs = FPRS[:2]
    v = 0.02 * np.eye(64)
    found = simulate(np.eye(64)[:2], v, 256, fprs, "half_split", batches=8, models=4_999, targets=256)
    law = curve(found.deltas, 256, fprs, design="half_split")
    raw = curve(found.deltas, 256, fprs)
    assert within(found, law, fprs) and not within(found, raw, fprs)
    lowered = [float(corrected(tpr, 256, fpr)) for tpr, fpr in zip(found.tpr, fprs, strict=True)]
    np.testing.assert_allclose(lowered, raw, rtol=0.04)


def test_few_examples_need_the_scale_of_members() -> None:
    v = np.diag(np.linspace(0.005, 0.06, 32))
    found = simulate(np.eye(32)[:1], v, 6, FPRS[:2], batches=4, models=24_999, targets=32)
    own, alike = (curve(found.deltas, 6, FPRS[:2], own_scale=way) for way in (True, False))
    assert (np.abs(found.tpr / own - 1) < 0.03).all() and (np.abs(found.tpr / alike - 1) > 0.02).any()
    split = [exact(found.deltas, [6], 0.1, "half_split", own_scale=way).tolist() for way in (True, False)]
    assert split[0] == split[1]


def test_any_covariance_and_means() -> None:
    random = np.random.default_rng(5)
    root, means = 0.3 * random.normal(size=(4, 4)), np.linalg.qr(random.normal(size=(4, 4)))[0]
    found = simulate(means, root.T @ root, 5, FPRS[:2], batches=4, models=9_999, targets=200)
    assert found.tpr == pytest.approx(curve(found.deltas, 5, FPRS[:2], own_scale=True), rel=0.03)


def test_examples_that_lower_their_own_score_are_sought_among_low_ones() -> None:
    """On a line half of them do: those between 0 and the mean."""
    found = simulate([[1.0]], [[0.04]], 5, FPRS[:2], batches=4, models=9_999, targets=200)
    assert found.tpr == pytest.approx(curve(found.deltas, 5, FPRS[:2], own_scale=True), rel=0.05)


@pytest.mark.parametrize("design", ["fresh", "half_split"])
def test_the_simulator_is_the_classifier_drawn_one_by_one(design: str) -> None:
    """Scores of one example: their means and variances by building each training set."""
    s, dim, key = 3, 4, (5, 0)
    random = np.random.default_rng(8)
    mean, root = np.eye(dim)[0], 0.3 * random.normal(size=(dim, dim))
    draw = class_means._fresh if design == "fresh" else class_means._half_split
    x, outside, inside, _ = draw(mean, root, s, 30_000, 1, key)
    pool = mean + class_means._normal((2 * s, dim), *key, "pool") @ root
    slow: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(15_000):
        if design == "fresh":
            others = mean + random.normal(size=(s, dim)) @ root
            slow[False].append(x[0] @ others.mean(0))
            slow[True].append(x[0] @ np.vstack([x, others[1:]]).mean(0))
        else:
            kept = random.permutation(2 * s)[:s]
            slow[0 in kept].append(x[0] @ pool[kept].mean(0))
    for fast, one_by_one in ((outside, slow[False]), (inside, slow[True])):
        assert fast.mean() == pytest.approx(np.mean(one_by_one), abs=0.04 * np.std(one_by_one))
        assert fast.std() == pytest.approx(np.std(one_by_one), rel=0.03)


def test_half_splits_have_the_variance_of_draws_without_replacement() -> None:
    """Every half of a pool, written out: (S - 1) / (2S - 1) of that of fresh draws, on both sides."""
    from itertools import combinations

    values = np.random.default_rng(4).normal(size=8)
    s, others = 4, values[1:]
    out = [np.mean(values[list(kept)]) for kept in combinations(range(8), s) if 0 not in kept]
    ins = [np.mean(values[list(kept)]) for kept in combinations(range(8), s) if 0 in kept]
    fresh = others.var(ddof=1) / s
    assert np.var(out) == pytest.approx(fresh / inflation(s) ** 2) == pytest.approx(np.var(ins))
    assert np.mean(ins) - np.mean(out) == pytest.approx((values[0] - others.mean()) / s)
    assert inflation(10**9) == pytest.approx(math.sqrt(2)) and inflation(7, "fresh") == 1


def test_the_asymptotic_law_is_far_off_at_128_and_approaches(deltas: np.ndarray) -> None:
    for fpr, at_128, at_8192 in zip(FPRS, (0.573, 0.266, 0.141), (0.910, 0.839, 0.789), strict=True):
        margins = [law(deltas, [128, 8192, 10**8], fpr) - fpr for law in (asymptotic, exact)]
        assert (margins[0] / margins[1]).tolist() == pytest.approx([at_128, at_8192, 1], abs=0.008)
        doubled = asymptotic(deltas, [200, 800], fpr) - fpr
        assert doubled[0] / doubled[1] == pytest.approx(2)


@pytest.mark.parametrize("design", ["fresh", "half_split"])
@pytest.mark.parametrize("fpr", FPRS)
def test_the_local_slope_is_the_curves(deltas: np.ndarray, design: str, fpr: float) -> None:
    for s in (8.0, 100.0, 1e4):
        step = 1e-4
        ends = exact(deltas, [s * math.exp(-step), s * math.exp(step)], fpr, design) - fpr
        difference = math.log(ends[1] / ends[0]) / (2 * step)
        assert local_slope(deltas, [s], fpr, design)[0] == pytest.approx(difference, rel=1e-5)
    assert local_slope(deltas, [128], fpr)[0] < -0.55
    assert local_slope(deltas, [1e10], fpr)[0] == pytest.approx(-0.5, abs=0.001)


def test_published_examples_of_the_closed_form(deltas: np.ndarray) -> None:
    assert exact(deltas, [512], 0.1)[0] == pytest.approx(0.248, abs=0.002)
    assert exact(deltas, [512], 0.01)[0] == pytest.approx(0.042, abs=0.001)
    assert exact(deltas, [512], 0.1, "half_split")[0] == pytest.approx(0.333, abs=0.003)
    assert exact(deltas, [512], 0.01, "half_split")[0] == pytest.approx(0.070, abs=0.002)


def test_the_correction_undoes_the_inflation_of_one_example() -> None:
    for s in (2, 9, 400):
        raw = exact([3.0], [s], 0.01, "half_split")
        assert corrected(raw, s, 0.01) == pytest.approx(exact([3.0], [s], 0.01))
    assert corrected([0.05, 0.1], 9, 0.1).tolist() == [0.05, 0.1]


def test_chance_stays_chance() -> None:
    for fpr in FPRS:
        for law in (exact, asymptotic):
            assert law([0.0, 0.0], [2, 50], fpr, "half_split") == pytest.approx(fpr)
    v = 0.02 * np.eye(16)
    far = simulate(np.eye(16)[:1], v, 10**9, FPRS[:2], batches=4, models=4_999, targets=16)
    assert far.tpr == pytest.approx(FPRS[:2], rel=0.05)


def test_a_simulation_depends_on_its_seed_alone() -> None:
    def tpr(seed: int) -> float:
        v = 0.02 * np.eye(8)
        return float(simulate(np.eye(8), v, 4, [0.1], "half_split", 2, 999, 8, seed).tpr[0])

    assert tpr(0) == tpr(0) != tpr(1)


@pytest.mark.parametrize(
    "change",
    [
        {"means": 2 * np.eye(4)},
        {"covariance": np.diag([1.0, 1, 1, -1])},
        {"covariance": np.eye(3)},
        {"examples": 1, "design": "half_split"},
        {"design": "other"},
        {"fprs": [0.001]},
        {"batches": 1},
    ],
)
def test_what_cannot_be_simulated_is_refused(change: dict[str, object]) -> None:
    given = {"means": np.eye(4), "covariance": np.eye(4), "examples": 4, "fprs": [0.1], "models": 99}
    with pytest.raises(InputError, match="allowed"):
        simulate(**(given | change))


def test_what_has_no_closed_form_is_refused() -> None:
    for wrong in (([-1.0], [4], 0.1), ([1.0], [0], 0.1), ([1.0], [4], 1.0), ([], [4], 0.1)):
        for law in (exact, asymptotic, local_slope):
            with pytest.raises(InputError, match="allowed"):
                law(*wrong)
    with pytest.raises(InputError, match="allowed"):
        exact([1.0], [1], 0.1, own_scale=True)
    with pytest.raises(InputError, match="allowed"):
        signals(np.zeros((2, 3)), np.zeros(3), np.eye(3))
    with pytest.raises(InputError, match="allowed"):
        corrected([1.1], 4, 0.1)
