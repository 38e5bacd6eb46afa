"""The held-out limit against exact expectations, slow loops, and its coverage by simulation."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from mipriv.analysis.entropy_bound import Covariance, information, population
from mipriv.analysis.entropy_limit import Reference, held_out
from mipriv.errors import InputError

FORMS: tuple[Covariance, ...] = ("isotropic", "diagonal", "full")
NOISE = 0.05
D = 4


def blobs(n: int, seed: int, shares: tuple[float, ...] = (0.2, 0.3, 0.5)) -> tuple[Tensor, Tensor]:
    """A mixture of correlated Gaussians in D dimensions, far apart; its law is `law`."""
    random = torch.Generator().manual_seed(seed)
    cells = torch.multinomial(torch.tensor(shares), n, True, generator=random)
    draws = torch.randn(n, D, generator=random, dtype=torch.float64)
    return means()[cells] + torch.einsum("nde,ne->nd", roots()[cells], draws), cells


def means() -> Tensor:
    return 5 * torch.arange(3, dtype=torch.float64)[:, None] * torch.tensor([1, -1, 1, 1])


def roots() -> Tensor:
    return torch.randn(3, D, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) / 2


def law() -> tuple[Tensor, Tensor]:
    return torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64), roots() @ roots().mT


def as_matrix(reference: Reference, cell: int) -> np.ndarray:
    moment = reference.moments[cell]
    return (moment if reference.covariance == "full" else torch.diag(moment.expand(D))).numpy()


def expected(reference: Reference, noise: float) -> float:
    """E[s(x)] of `blobs`: the cross-entropy of Gaussians, less the noise's entropy."""
    total = -D / 2 * math.log(2 * math.pi * math.e * noise)
    for cell, (share, covariance) in enumerate(zip(*law(), strict=True)):
        of_reference = as_matrix(reference, cell) + noise * np.eye(D)
        offset = (means()[cell] - reference.means[cell]).numpy()
        second = covariance.numpy() + noise * np.eye(D) + np.outer(offset, offset)
        total += float(share) * (
            -float(reference.log_shares[cell])
            + np.linalg.slogdet(2 * np.pi * of_reference)[1] / 2
            + np.trace(np.linalg.solve(of_reference, second)) / 2
        )
    return total


@pytest.mark.parametrize("covariance", FORMS)
def test_a_term_is_the_cross_entropy_over_the_noise(covariance: Covariance) -> None:
    """Over 2 D points at sqrt(D) sigma, whose mean and covariance are the noise's: exact for a square."""
    reference = Reference.fit(*blobs(50, 0), 3, covariance)
    features, cells = blobs(20, 1)
    found = reference.terms(features, cells, NOISE)
    points = np.concatenate([np.eye(D), -np.eye(D)]) * math.sqrt(D * NOISE)
    for x, cell, term in zip(features.numpy(), cells.tolist(), found.tolist(), strict=True):
        of_reference = as_matrix(reference, cell) + NOISE * np.eye(D)
        density = stats.multivariate_normal(reference.means[cell].numpy(), of_reference)
        surprise = -float(reference.log_shares[cell]) - density.logpdf(x + points).mean()
        assert term == pytest.approx(surprise - D / 2 * math.log(2 * math.pi * math.e * NOISE), rel=1e-10)


@pytest.mark.parametrize("covariance", FORMS)
def test_the_fit_is_that_of_its_description(covariance: Covariance) -> None:
    features, cells = blobs(40, 2)
    cells = cells * 2  # of 6 cells 0, 2 and 4 are seen
    found = Reference.fit(features, cells, 6, covariance)
    rows, own = features.numpy(), [features.numpy()[cells.numpy() == cell] for cell in range(6)]
    within = sum(((part - part.mean(0)) ** 2).sum(0) for part in own if len(part)) / (40 - 3)
    for cell, part in enumerate(own):
        assert float(found.log_shares[cell]) == pytest.approx(math.log((len(part) + 1) / 46))
        seen = part if len(part) else rows
        np.testing.assert_allclose(found.means[cell], seen.mean(0), rtol=1e-10)
        variances = seen.var(0) + (2 * within / len(part) if len(part) else 0)
        if covariance == "isotropic":
            variances = variances.mean() * np.ones(D)
        matrix = np.diag(variances)
        if covariance == "full" and len(part):
            matrix = (len(part) * np.cov(part.T, bias=True) + D * matrix) / (len(part) + D)
        np.testing.assert_allclose(as_matrix(found, cell), matrix, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("covariance", FORMS)
def test_the_expectation_is_above_what_the_features_tell(covariance: Covariance) -> None:
    """Far apart and with full covariances (1) is I(x; z); a reference of few rows only adds to it."""
    truth = float(population(*law(), NOISE).nats)
    few, many = (expected(Reference.fit(*blobs(n, 3), 3, covariance), NOISE) for n in (12, 4_000))
    assert truth < many < few
    if covariance == "full":
        assert many == pytest.approx(truth, abs=0.02)


@pytest.mark.parametrize("covariance", FORMS)
def test_the_limit_covers(covariance: Covariance) -> None:
    """E[s(x)] itself, in about 95% of splits rather than in all; what the features tell, in more of them."""
    reference = Reference.fit(*blobs(60, 4), 3, covariance)
    mean, truth = expected(reference, NOISE), float(population(*law(), NOISE).nats)
    splits = zip(*(tensor.split(300) for tensor in blobs(300 * 1_000, 5)), strict=True)
    found = [held_out(*split, reference, NOISE) for split in splits]
    covered = np.mean([limit.upper >= mean for limit in found])
    assert 0.935 <= covered <= 0.97
    assert np.mean([limit.upper >= truth for limit in found]) >= covered
    assert np.mean([limit.nats for limit in found]) == pytest.approx(mean, abs=0.05)


def test_student_is_the_textbooks_raised_for_skewness() -> None:
    reference = Reference.fit(*blobs(60, 4), 3)
    features, cells = blobs(30, 5)
    terms = reference.terms(features, cells, NOISE).numpy()
    found = held_out(features, cells, reference, NOISE, level=0.9)
    upper = stats.ttest_1samp(terms, 0.0, alternative="less").confidence_interval(0.9).high
    quantile, skewness = stats.t.ppf(0.9, 29), stats.skew(terms)
    upper += terms.std(ddof=1) * skewness * (2 * quantile**2 + 1) / 6 / 30
    assert skewness > 1 and (found.nats, found.upper) == pytest.approx((terms.mean(), upper), rel=1e-12)
    assert (found.n, found.level, found.method) == (30, 0.9, "student")


def test_where_the_plug_in_fails_the_limit_holds() -> None:
    """Of 40 rows in 200 dimensions, a cell each: the plug-in says log 40."""
    features = torch.randn(80, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    truth = 200 / 2 * math.log1p(1 / NOISE)
    plug_in = information(features[:40], torch.arange(40), 40, NOISE)
    assert float(plug_in.nats) == pytest.approx(math.log(40)) and not plug_in.certifies
    one = torch.zeros(40, dtype=torch.long)
    for covariance in FORMS:
        reference = Reference.fit(features[:40], one, 1, covariance)
        assert held_out(features[40:], one, reference, NOISE).upper > truth
    alone = Reference.fit(features[:40], torch.arange(40), 40)  # each cell a single row
    assert truth < held_out(features[40:], torch.arange(40), alone, NOISE).upper < math.inf


@pytest.mark.parametrize("covariance", FORMS)
def test_a_cell_never_seen_costs_but_leaves_the_limit_finite(covariance: Covariance) -> None:
    reference = Reference.fit(*blobs(60, 4), 5, covariance)
    features, cells = blobs(30, 5)
    found = held_out(features, cells, reference, NOISE)
    for other in (3, 4):
        strange = held_out(features, torch.where(cells == 0, other, cells), reference, NOISE)
        assert found.nats < strange.nats < math.inf and strange.upper < math.inf


# --- features in [0, 1]


def inside(n: int, seed: int, steep: float = 1.0) -> tuple[Tensor, Tensor]:
    features, cells = blobs(n, seed)
    return torch.sigmoid(steep * features), cells


@pytest.mark.parametrize("covariance", FORMS)
def test_no_features_in_the_cube_leave_the_range(covariance: Covariance) -> None:
    reference = Reference.fit(*inside(40, 0), 5, covariance)
    low, high = reference.unit_range(NOISE)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * D)
    centres = reference.means.clamp(0, 1)
    terms = [
        reference.terms(rows, torch.full((len(rows),), cell), NOISE)
        for cell in range(5)
        for rows in (corners, centres, torch.rand(100, D, dtype=torch.float64))
    ]
    assert float(torch.cat(terms).min()) == pytest.approx(low, rel=1e-12)
    most = float(torch.cat(terms).max())
    assert most == pytest.approx(high, rel=1e-12) if covariance != "full" else most < high


def test_means_outside_the_cube_are_allowed_for() -> None:
    shifted = Reference(
        torch.zeros(1).double(), torch.tensor([[-0.5, 2.0]]).double(), torch.ones(1, 2).double(), "diagonal"
    )
    low, high = shifted.unit_range(NOISE)
    ends = shifted.terms(torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double(), torch.zeros(2).long(), NOISE)
    assert (low, high) == pytest.approx(tuple(ends.tolist()), rel=1e-12)


def test_bernstein_is_that_of_its_theorem() -> None:
    reference = Reference.fit(*inside(60, 0), 3)
    features, cells = inside(25, 1)
    terms = reference.terms(features, cells, NOISE).numpy()
    low, high = reference.unit_range(NOISE)
    scaled = (terms - low) / (high - low)
    pairs = sum((a - b) ** 2 for a in scaled for b in scaled) / 2 / (25 * 24)
    chance = math.log(2 / 0.1)
    upper = scaled.mean() + math.sqrt(2 * pairs * chance / 25) + 7 * chance / (3 * 24)
    found = held_out(features, cells, reference, NOISE, level=0.9, method="bernstein")
    assert found.upper == pytest.approx(low + upper * (high - low), rel=1e-10)
    assert found.method == "bernstein" and found.nats == pytest.approx(terms.mean())


def test_bernstein_holds_where_student_does_not() -> None:
    """One row in 200 is far from all others: most samples of 20 show none of them."""
    features = torch.full((40, D), 0.5, dtype=torch.float64) + 0.01 * blobs(40, 0)[0].sin()
    reference = Reference.fit(features, torch.zeros(40, dtype=torch.long), 1)
    random = np.random.default_rng(0)
    covered = {"student": 0, "bernstein": 0}
    usual, rare = features[:1], torch.ones(1, D, dtype=torch.float64)
    one = torch.zeros(1, dtype=torch.long)
    truth = float(reference.terms(usual, one, 1e-3) * 0.995 + reference.terms(rare, one, 1e-3) * 0.005)
    for _ in range(100):
        rows = torch.where(torch.from_numpy(random.random((20, 1)) < 0.005), rare, usual)
        for method in ("student", "bernstein"):
            upper = held_out(rows, one.expand(20), reference, 1e-3, method=method).upper
            covered[method] += upper >= truth
    assert covered["bernstein"] >= 95 and covered["student"] < 50


# --- what is refused


@pytest.mark.parametrize(
    "change",
    [
        {"features": torch.rand(4, D + 1)},
        {"features": torch.rand(1, D), "cells": torch.zeros(1, dtype=torch.long)},
        {"cells": torch.tensor([0, 1, 2, 3])},
        {"level": 1.0},
        {"level": 0.0},
        {"method": "guess"},
        {"method": "bernstein", "features": torch.rand(4, D) + 1},
        {"method": "bernstein", "features": torch.rand(4, D) - 1},
    ],
)
def test_rows_that_do_not_fit_are_refused(change: dict) -> None:
    sound = {"features": torch.rand(4, D), "cells": torch.tensor([0, 1, 2, 2]), "noise_variance": NOISE}
    reference = Reference.fit(*blobs(20, 0), 3)
    held_out(**sound, reference=reference)
    with pytest.raises(InputError, match="allowed"):
        held_out(**{**sound, **change}, reference=reference)


def test_a_fit_of_nothing_known_is_refused() -> None:
    with pytest.raises(InputError, match="covariance 'lowrank'; allowed"):
        Reference.fit(*blobs(20, 0), 3, "lowrank")
    with pytest.raises(InputError, match="allowed"):
        Reference.fit(torch.full((3, 2), math.nan), torch.zeros(3, dtype=torch.long), 1)
