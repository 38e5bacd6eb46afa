"""What a bound on information says of errors; linear-Gaussian inputs, of which all is known."""

import math

import pytest
import torch
from torch import Tensor

from mipriv.analysis.entropy_bound import from_moments, information, population
from mipriv.analysis.error_bound import factor, mse_bound, repeated, subspace_bound
from mipriv.errors import InputError

NOISE = 0.3


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def linear_gaussian() -> tuple[Tensor, Tensor, float, float]:
    """x ~ N(0, A) in 12 dimensions seen through 6: A, covariance of f(x), I(x; z), and the least error."""
    root, seen = normal(12, 12, seed=3), normal(6, 12, seed=4) / 4
    a = root @ root.T / 12 + 0.05 * torch.eye(12)
    s = seen @ a @ seen.T
    z = s + NOISE * torch.eye(6).double()
    joint = torch.cat([torch.cat([a, a @ seen.T], 1), torch.cat([seen @ a, z], 1)])
    truth = float(a.logdet() + z.logdet() - joint.logdet()) / 2
    posterior = a - a @ seen.T @ torch.linalg.solve(z, seen @ a)
    return a, s, truth, float(posterior.trace() / 12)


def gaussian_entropy(a: Tensor) -> float:
    return float(a.logdet() + len(a) * math.log(2 * math.pi * math.e)) / 2


def test_of_a_linear_gaussian_the_bound_is_the_truth() -> None:
    _, s, truth, _ = linear_gaussian()
    bound = population(torch.ones(1), s[None], NOISE)
    assert float(bound.nats) == pytest.approx(truth, rel=1e-10)
    assert bound.certifies and not bound.why_not


def test_no_attack_on_a_linear_gaussian_errs_less_and_a_round_one_errs_no_more() -> None:
    a, _, truth, least = linear_gaussian()
    assert least / 10 < mse_bound(gaussian_entropy(a), truth, 12) < least
    variance, ratio = 0.7, 3.0
    told = 5 / 2 * math.log1p(ratio)
    entropy = gaussian_entropy(variance * torch.eye(5).double())
    assert mse_bound(entropy, told, 5) == pytest.approx(variance / (1 + ratio), rel=1e-12)
    assert subspace_bound(2 / 5 * entropy, 2 / 5 * told, 2, 5) == pytest.approx(
        2 / 5 * variance / (1 + ratio), rel=1e-12
    )


def test_where_one_direction_is_known_a_subspace_says_more() -> None:
    a = torch.diag(torch.tensor([1.0, 1.0, 1.0, 1e-9], dtype=torch.float64))
    truth = 3 / 2 * math.log(2)  # all but the last dimension are seen, through noise of variance 1
    least = (3 * 0.5 + 1e-9) / 4
    whole = mse_bound(gaussian_entropy(a), truth, 4)
    part = subspace_bound(gaussian_entropy(a[:3, :3]), truth, 3, 4)
    assert whole < 0.05 * part and part == pytest.approx(3 / 8) and part <= least


@pytest.mark.parametrize("variance, expected", [(0.02, 0.56), (0.005, 0.69), (0.001, 0.85)])
def test_by_how_much_features_of_a_sixth_of_the_dimensions_lower_the_error(
    variance: float, expected: float
) -> None:
    told = from_moments(torch.ones(1), torch.tensor([variance]), 0.025**2, "isotropic", 512)
    assert factor(float(told), 6 * 512) == pytest.approx(expected, abs=0.005)


def test_of_photographs_the_bound_says_next_to_nothing() -> None:
    """At 2.5 and 3 bits a dimension of 8-bit pixels in [0, 1]."""
    for bits, expected in ((2.5, 2.9e-5), (3.0, 5.7e-5)):
        assert mse_bound(3072 * (bits - 8) * math.log(2), 0.0, 3072) == pytest.approx(expected, rel=0.02)


def test_repeated_queries_tell_at_most_so_many_times_as_much() -> None:
    features, cells = normal(60, 4) ** 3, torch.arange(60) % 3
    once = float(information(features, cells, 3, NOISE, "full").nats)
    averaged = float(information(features, cells, 3, NOISE / 4, "full").nats)
    assert once < averaged < repeated(once, 4) == 4 * once


def test_figures_that_are_none_are_refused() -> None:
    for call in (
        lambda: factor(math.inf, 3),
        lambda: factor(math.nan, 3),
        lambda: factor(1.0, 0),
        lambda: mse_bound(math.inf, 1.0, 3),
        lambda: mse_bound(math.nan, 1.0, 3),
        lambda: subspace_bound(0.0, 1.0, 4, 3),
        lambda: subspace_bound(0.0, 1.0, 0, 3),
        lambda: repeated(1.0, 0),
    ):
        with pytest.raises(InputError, match="allowed"):
            call()
    assert factor(-1e-9, 3) == 1 and mse_bound(-math.inf, 1.0, 3) == 0
