"""Rates, curves and separations of membership scores against loops over thresholds and resamples."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats as reference
from torch import Tensor

from mipriv import stats
from mipriv.errors import InputError
from mipriv.metrics import membership as measure
from mipriv.metrics import membership_records as by_record
from mipriv.metrics import thresholds


def scores(targets: int, records: int, seed: int = 0, decimals: int = 1) -> tuple[Tensor, Tensor]:
    """Many equal ones, a few missing, members higher."""
    random = np.random.default_rng(seed)
    members = random.random((targets, records)) < 0.5
    values = (random.normal(size=members.shape) + 0.8 * members).round(decimals)
    values[random.random(members.shape) < 0.03] = np.nan
    return torch.from_numpy(values), torch.from_numpy(members)


def slow_rates(values: np.ndarray, inside: np.ndarray, rate: float) -> tuple[float, float]:
    """TPR and FPR of the lowest of all thresholds whose FPR is not above the rate."""
    kept = ~np.isnan(values)
    own, others = values[kept & inside], values[kept & ~inside]
    found = [(0.0, 0.0)]
    for cut in np.unique(values[kept]):
        false, right = sum(x >= cut for x in others) / len(others), sum(x >= cut for x in own) / len(own)
        if false <= rate:
            found.append((right, false))
    return max(found)


def slow_auc(own: np.ndarray, others: np.ndarray) -> float:
    pairs = [(a > b) + 0.5 * (a == b) for a in own for b in others]
    return float(sum(pairs) / len(pairs))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rate", [0.05, 0.1, 1 / 3, 0.5])
def test_a_target_threshold_by_threshold(rate: float, seed: int) -> None:
    values, members = scores(3, 460, seed)
    for row, own, found in zip(values, members, measure.per_target(values, members, rate), strict=True):
        tpr, fpr = slow_rates(row.numpy(), own.numpy(), rate)
        kept = ~row.isnan()
        exact = stats.proportion(round(tpr * int((kept & own).sum())), int((kept & own).sum()))
        assert found.tpr == exact and found.tpr.point == tpr
        assert found.achieved == pytest.approx(fpr) and found.achieved <= rate + 1e-12
        assert found.distinct == int((kept & ~own).sum()) and found.left_out == int((~kept).sum()) > 0


def test_equal_scores_are_taken_whole() -> None:
    """A group of equal scores that holds too many false positives is not counted at all."""
    members = torch.tensor([[True] * 100 + [False] * 100])
    values = torch.zeros(1, 200)
    values[0, :30], values[0, 100:109], values[0, 30:60], values[0, 109:111] = 2, 2, 1, 1
    (found,) = measure.per_target(values, members, 0.1)
    assert (found.tpr.point, found.achieved) == (0.3, 0.09)
    values[0, 110] = 0
    (found,) = measure.per_target(values, members, 0.1)
    assert (found.tpr.point, found.achieved) == (0.6, 0.1)


def test_the_curve_visits_every_distinct_score() -> None:
    values, members = scores(4, 60)
    curve = measure.roc(values, members)
    kept = ~values.isnan()
    own, others = (values[kept & side].numpy() for side in (members, ~members))
    cuts = sorted(set(values[kept].tolist()), reverse=True)
    assert curve.fpr.tolist() == [0, *[np.mean(others >= cut) for cut in cuts]]
    assert curve.tpr.tolist() == [0, *[np.mean(own >= cut) for cut in cuts]]
    assert curve.left_out == int((~kept).sum())
    assert measure.auc(values, members) == pytest.approx(slow_auc(own, others), rel=1e-12)
    assert measure.auc(values, members) == pytest.approx(np.trapezoid(curve.tpr, curve.fpr), rel=1e-12)


@pytest.mark.parametrize("rate", [0.05, 0.25])
def test_targets_together_share_a_threshold(rate: float) -> None:
    values, members = scores(6, 240, 1)
    values = values + torch.arange(6)[:, None]  # the same threshold suits no two of them
    tpr, fpr = slow_rates(values.numpy(), members.numpy(), rate)
    for found in (measure.pooled(values, members, rate), measure.exact(values, members, rate)):
        assert (found.tpr.point, found.achieved) == (pytest.approx(tpr), pytest.approx(fpr))
        outside = ~members & ~values.isnan()
        assert found.distinct == int(outside.any(0).sum()) and found.left_out == int(values.isnan().sum())
        assert found.tpr.low < tpr < found.tpr.high
    assert found.tpr.n == int((members & ~values.isnan()).sum())


@pytest.mark.parametrize(("rate", "margin"), [(0.02, -3), (0.3, -60), (0.3, 0)])
def test_resamples_are_those_written_out(rate: float, margin: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds a pair as often as its target is drawn times its record; at first too few are looked at."""
    monkeypatch.setattr(thresholds, "MARGIN", margin)
    monkeypatch.setattr(thresholds, "RESAMPLES", 40)
    monkeypatch.setattr(stats, "CELLS", 500)
    values, members = (t.numpy() for t in scores(5, 30, 2))
    kept = ~np.isnan(values)
    found = thresholds.pooled(values, kept & members, kept & ~members, rate, seed=3)
    slow = []
    for by_target, by_column in thresholds.drawn(values.shape, 3, thresholds.RESAMPLES, 10**9):
        for t, n in zip(by_target, by_column, strict=True):
            rows, columns = np.repeat(np.arange(5), t), np.repeat(np.arange(30), n)
            assert len(rows) == 5 and len(columns) == 30
            slow.append(slow_rates(values[np.ix_(rows, columns)], members[np.ix_(rows, columns)], rate)[0])
    assert found.tolist() == pytest.approx(slow) and len(slow) == 40 and len(set(slow)) > 5


def test_pairs_that_share_records_are_no_independent_trials() -> None:
    random = np.random.default_rng(0)
    members = torch.from_numpy(random.random((20, 200)) < 0.5)
    values = members + torch.from_numpy(random.normal(size=(20, 200)) + 3 * random.normal(size=200))
    found, pairs = (work(values, members, 0.1).tpr for work in (measure.pooled, measure.exact))
    assert (found.n, found.seeds) == (200, 20)
    assert found.high - found.low > 2 * (pairs.high - pairs.low)


def test_coverage_over_targets_and_records_is_not_below_nominal() -> None:
    truth, inside = 1 - reference.norm.cdf(reference.norm.ppf(0.9), loc=1), 0
    for trial in range(40):
        random = np.random.default_rng(trial)
        members = torch.from_numpy(random.random((8, 150)) < 0.5)
        values = torch.from_numpy(random.normal(size=(8, 150))) + members
        tpr = measure.pooled(values, members, 0.1, seed=trial).tpr
        inside += tpr.low <= truth <= tpr.high
    assert inside >= 36


def test_perfect_scores_still_have_an_interval() -> None:
    members = torch.rand(4, 300, generator=torch.Generator().manual_seed(0)) < 0.5
    found = measure.pooled(members.double(), members, 0.1).tpr
    assert found.point == found.high == 1 and found.low == stats.proportion(found.n, found.n).low
    assert 270 < found.n < 300


def test_each_record_by_its_own_threshold() -> None:
    values, members = scores(40, 120, 4)
    members[:, 0], members[:, 1], members[6:, 2] = True, False, True
    values = values + torch.arange(120) * 10
    found = by_record.per_record(values, members, 0.1)
    for n in range(120):
        kept = ~values[:, n].isnan()
        lacking = int((kept & ~members[:, n]).sum())
        if lacking < 10 or n == 1:
            assert found[n].isnan()
        else:
            assert found[n] == pytest.approx(slow_rates(values[:, n].numpy(), members[:, n].numpy(), 0.1)[0])
    some = ~found.isnan()
    assert found[:3].isnan().all() and 110 < some.sum() < 118
    mean = by_record.calibrated(values, members, 0.1)
    assert mean.tpr.point == pytest.approx(found[some].mean().item()) and mean.distinct == int(some.sum())
    rates = [
        slow_rates(values[:, n].numpy(), members[:, n].numpy(), 0.1)[1] for n in some.nonzero()[:, 0].tolist()
    ]
    assert mean.achieved == pytest.approx(np.mean(rates)) and mean.achieved < 0.1
    assert mean.tpr.low < mean.tpr.point < mean.tpr.high and mean.tpr.seeds == 40


def test_separation_record_by_record() -> None:
    values, members = scores(12, 9, decimals=6)
    members[:, 0], members[1:, 1], values[:, 2] = True, False, 1 / 3
    found = by_record.separation(values, members)
    for n in range(9):
        kept = ~values[:, n].isnan()
        own, others = (values[kept & side, n].numpy() for side in (members[:, n], ~members[:, n]))
        if not len(own) or not len(others) or n == 2:
            assert found[n].isnan()
            continue
        square = ((own - own.mean()) ** 2).sum() + ((others - others.mean()) ** 2).sum()
        sigma = math.sqrt(square / (len(own) + len(others) - 2))
        assert found[n].item() == pytest.approx((own.mean() - others.mean()) / sigma, rel=1e-10)
    assert found[1].isfinite() and found.isnan().sum() == 2


def test_separation_foretells_the_rate_of_normal_laws() -> None:
    random = torch.Generator().manual_seed(0)
    members = torch.rand(4000, 3, generator=random) < 0.5
    shift = torch.tensor([0.0, 1.0, 2.0])
    values = 5 + 2 * (torch.randn(4000, 3, generator=random).double() + shift * members)
    z = by_record.separation(values, members)
    assert torch.allclose(z, shift.double(), atol=0.1)
    expected = reference.norm.cdf(z.numpy() - reference.norm.ppf(0.9))
    assert by_record.per_record(values, members, 0.1).tolist() == pytest.approx(expected, abs=0.04)


def test_memberships_at_random_are_told_by_chance() -> None:
    values, _ = scores(20, 400, 5, decimals=9)
    members = torch.rand(values.shape, generator=torch.Generator().manual_seed(7)) < 0.5
    found = measure.pooled(values, members, 0.1)
    assert found.tpr.low < 0.1 < found.tpr.high and found.tpr.high - found.tpr.low < 0.05
    assert measure.auc(values, members) == pytest.approx(0.5, abs=0.02)


def test_few_expected_false_positives_are_refused_and_why_is_said() -> None:
    """However many targets: what counts is distinct records."""
    values, members = scores(50, 99)
    assert measure.unresolved(99, 0.1) and measure.unresolved(1000, 0.01) is None
    assert measure.unresolved(100, 0.1) is None and "9.9 false positives" in str(measure.unresolved(99, 0.1))
    for work in (measure.pooled, measure.exact, by_record.calibrated, measure.per_target):
        with pytest.raises(InputError, match=r"FPR 0\.1: .* distinct non-members; allowed: 10 or more"):
            work(values, members, 0.1)
    assert measure.pooled(values, members, 0.2).distinct == 99
    assert by_record.per_record(values, members, 0.1).isfinite().any()
    members[:, :50] = True  # of 99 records, 49 are ever outside
    with pytest.raises(InputError, match="49 distinct"):
        measure.pooled(values, members, 0.2)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, math.nan])
def test_impossible_rates_are_refused(rate: float) -> None:
    values, members = scores(3, 300)
    for work in (
        measure.pooled,
        measure.exact,
        by_record.calibrated,
        measure.per_target,
        by_record.per_record,
    ):
        with pytest.raises(InputError, match="allowed: above 0, below 1"):
            work(values, members, rate)


@pytest.mark.parametrize("spoil", ["shape", "type", "flat", "members", "others", "missing"])
def test_what_is_no_table_of_scores_is_refused(spoil: str) -> None:
    values, members = scores(3, 300)
    given = {
        "shape": (values, members[:, 1:]),
        "type": (values, members.long()),
        "flat": (values[0], members[0]),
        "members": (values, torch.zeros_like(members)),
        "others": (values, torch.ones_like(members)),
        "missing": (torch.full_like(values, math.nan), members),
    }[spoil]
    for work in (measure.pooled, measure.exact, by_record.calibrated, measure.per_target):
        with pytest.raises(InputError, match="allowed: ") as refusal:
            work(*given, 0.1)
        assert "\n" not in str(refusal.value)
    with pytest.raises(InputError, match="a record: 2 targets lack one; allowed: 10 or more"):
        by_record.calibrated(*scores(2, 300, 1), 0.1)


def test_scores_are_left_as_they_were() -> None:
    values, members = scores(12, 150)
    before = values.clone(), members.clone()
    found = measure.pooled(values, members, 0.1)
    assert found == measure.pooled(values, members, 0.1) != dataclasses.replace(found, rate=0.2)
    by_record.calibrated(values, members, 0.2)
    by_record.separation(values, members)
    assert torch.equal(members, before[1]) and torch.allclose(
        values, before[0], rtol=0, atol=0, equal_nan=True
    )


def design(point: float, spread: float = 0.0) -> measure.Detection:
    """What one design found, by hand."""
    figure = stats.Figure(point, point - 0.01, point + 0.01, 50, 8, "pigeonhole bootstrap")
    again = tuple(point + spread * (i % 5 - 2) for i in range(20))
    return measure.Detection(0.1, 0.1, figure, 100, 0, again)


def test_designs_together_are_resampled_themselves() -> None:
    """Of three that differ, each without a spread of its own, all 27 draws are as likely as one another."""
    points = [0.2, 0.5, 0.8]
    found = measure.together([design(point) for point in points])
    every = [np.mean(drawn) for drawn in itertools.product(points, repeat=3)]
    assert (found.low, found.high) == (pytest.approx(min(every)), pytest.approx(max(every)))  # 1 in 27 each
    assert (found.point, found.n, found.seeds) == (pytest.approx(0.5), 50, 3)
    alike = measure.together([design(0.5, 0.01)] * 3)
    assert 0.48 < alike.low < 0.5 < alike.high < 0.52 and alike.low < 0.495


def test_one_design_keeps_its_own_interval() -> None:
    alone = design(0.5, 0.01)
    assert measure.together([alone]) == dataclasses.replace(alone.tpr, seeds=1)
    with pytest.raises(InputError, match="of 2 kinds; allowed"):
        measure.together([alone, dataclasses.replace(alone, rate=0.2)])
