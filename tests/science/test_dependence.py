"""Measures of dependence against double loops, explicit inverses and what they are known to equal."""

import math

import pytest
import torch
from torch import Tensor

from mipriv.analysis import dependence
from mipriv.analysis.dependence import (
    coco,
    distance_correlation,
    gaussian_kernel,
    linear_kernel,
    normalised_hsic,
)

EPS = 1e-5


def features(m: int, d: int, seed: int) -> Tensor:
    return torch.randn(m, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def looped(a: Tensor, sigma: float | None) -> Tensor:
    """H K H, every sum written out."""
    m, d = a.shape

    def value(p: Tensor, q: Tensor) -> float:
        if sigma is None:
            return sum(float(x * y) for x, y in zip(p, q, strict=True))
        square = sum(float((x - y) ** 2) for x, y in zip(p, q, strict=True))
        return math.exp(-square / (2 * sigma * sigma * d))

    kernel = torch.tensor([[value(p, q) for q in a] for p in a], dtype=torch.float64)
    h = torch.eye(m, dtype=torch.float64) - 1 / m
    return h @ kernel @ h


@pytest.mark.parametrize(("m", "d"), [(3, 2), (6, 4), (5, 9)])
@pytest.mark.parametrize("sigma", [None, 0.3, 5.0])
def test_centred_kernels_by_double_loop(m: int, d: int, sigma: float | None) -> None:
    a = features(m, d, 0) + 2
    fast = linear_kernel(a) if sigma is None else gaussian_kernel(a, sigma)
    assert fast.dtype == torch.float64 and torch.allclose(fast, looped(a, sigma), atol=1e-12)
    single = linear_kernel(a.float()) if sigma is None else gaussian_kernel(a.float(), sigma)
    assert single.dtype == torch.float64 and torch.allclose(single, fast, atol=1e-5)
    half = a.bfloat16()
    assert torch.equal(linear_kernel(half), linear_kernel(half.float()))


@pytest.mark.parametrize(("m", "d"), [(4, 2), (7, 12)])
def test_normalised_hsic_by_explicit_inverse(m: int, d: int) -> None:
    a, b = linear_kernel(features(m, d, 1)), gaussian_kernel(features(m, 3, 2), 1.0)
    identity = torch.eye(m, dtype=torch.float64)
    slow_a, slow_b = (k @ torch.inverse(k + EPS * m * identity) for k in (a, b))
    trace = sum(slow_a[i, j] * slow_b[j, i] for i in range(m) for j in range(m))
    assert torch.allclose(normalised_hsic(a, b, EPS), trace)


def test_both_sides_are_centred_unlike_in_released_code() -> None:
    """A constant added to the features changes no dependence, which one-sided centring breaks."""
    x, y = features(8, 3, 0), features(8, 2, 1)
    for measure in (lambda a, b: normalised_hsic(a, b, 0.1), coco):
        moved = measure(linear_kernel(x + 10), linear_kernel(y - 7))
        assert torch.allclose(moved, measure(linear_kernel(x), linear_kernel(y)))
    uncentred = gaussian_kernel(x, 1.0)
    assert uncentred.sum(0).abs().max() < 1e-12 and uncentred.sum(1).abs().max() < 1e-12


@pytest.mark.parametrize("kernel", [linear_kernel, lambda a: gaussian_kernel(a, 0.5)])
def test_identical_beats_related_beats_independent(kernel: object) -> None:
    x, noise = features(150, 2, 0), features(150, 2, 1)
    for measure in (lambda a, b: normalised_hsic(a, b, 0.05), coco):
        same, related, apart = (
            measure(kernel(x), kernel(y)).item()  # type: ignore[operator]
            for y in (x, (x + noise) / math.sqrt(2), noise)
        )
        assert same > 1.2 * related and related > 1.2 * apart >= 0


@pytest.mark.parametrize(("d", "seed"), [(1, 0), (3, 1), (30, 2)])
def test_range_of_the_normalised_hsic(d: int, seed: int) -> None:
    m = 10
    x, y = linear_kernel(features(m, d, seed)), linear_kernel(features(m, 2, seed + 9))
    assert 0 <= normalised_hsic(x, y, EPS) <= min(d, 2)  # ranks bound it
    assert 0 <= normalised_hsic(x, x, EPS) <= min(d, m - 1)
    nothing = torch.zeros_like(x)
    assert normalised_hsic(x, nothing, EPS) == 0 and coco(x, nothing) == 0


def test_linear_kernels_of_more_features_than_rows_measure_nothing() -> None:
    """Independent or identical, the value is its bound m - 1: what the docstring warns of."""
    m = 8
    x, y = linear_kernel(features(m, 400, 0)), linear_kernel(features(m, 400, 1))
    for value in (normalised_hsic(x, x, EPS), normalised_hsic(x, y, EPS)):
        assert value.item() == pytest.approx(m - 1, rel=1e-3)


@pytest.mark.parametrize("measure", ["hsic", "coco"])
def test_symmetric_and_blind_to_the_order_of_rows(measure: str) -> None:
    def value(x: Tensor, y: Tensor) -> Tensor:
        a, b = gaussian_kernel(x, 1.0), linear_kernel(y)
        return coco(a, b) if measure == "coco" else normalised_hsic(a, b, EPS)

    x, y = features(9, 3, 0), features(9, 2, 1)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(value(x[order], y[order]), value(x, y))
    assert not torch.allclose(value(x[order], y), value(x, y))
    a, b = gaussian_kernel(x, 1.0), linear_kernel(y)
    assert torch.allclose(coco(a, b), coco(b, a))
    assert torch.allclose(normalised_hsic(a, b, EPS), normalised_hsic(b, a, EPS))


@pytest.mark.parametrize(("m", "d", "e"), [(5, 2, 3), (6, 20, 4), (12, 1, 1)])
def test_coco_of_linear_kernels_is_the_norm_of_the_covariance(m: int, d: int, e: int) -> None:
    """Unit-ball functions of a linear kernel are directions, so the supremum is a largest singular value
    (the spectral norm; released code takes the Frobenius norm)."""
    x, y = features(m, d, 0), features(m, e, 1)
    covariance = (x - x.mean(0)).T @ (y - y.mean(0)) / m
    expected = torch.linalg.matrix_norm(covariance, ord=2)
    assert torch.allclose(coco(linear_kernel(x), linear_kernel(y)), expected)


def test_coco_by_the_eigenvalues_of_the_product() -> None:
    a, b = gaussian_kernel(features(7, 3, 0), 0.7), gaussian_kernel(features(7, 2, 1), 0.4)
    largest = torch.linalg.eigvals(a @ b).real.max()
    assert torch.allclose(coco(a, b), largest.sqrt() / 7)


def test_gradients_by_finite_differences_and_none_infinite() -> None:
    y = linear_kernel(torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 0, 1])))
    x = features(5, 3, 0).requires_grad_()
    for of_x in (
        lambda z: normalised_hsic(gaussian_kernel(z, 1.0), y, EPS),
        lambda z: normalised_hsic(linear_kernel(z), y, 0.1),
        lambda z: coco(gaussian_kernel(z, 1.0), y),
        lambda z: coco(linear_kernel(z), y),
    ):
        assert torch.autograd.gradcheck(of_x, x)
        constant = torch.ones(5, 3, dtype=torch.float64, requires_grad=True)
        slope = torch.autograd.grad(of_x(constant), constant)[0]
        assert slope.isfinite().all()


def test_a_gaussian_kernel_of_one_hot_labels_is_a_multiple_of_the_linear_one() -> None:
    hot = torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 0, 1, 1]), 4)
    ratio = dependence.gaussian_kernel(hot.double(), 5.0) / linear_kernel(hot)
    assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio))


def slow_distance_correlation(a: Tensor, b: Tensor) -> float:
    """Every distance and every mean written out."""
    m = len(a)

    def centred(x: Tensor) -> list[list[float]]:
        d = [[math.dist(p, q) for q in x.tolist()] for p in x.tolist()]
        row = [sum(r) / m for r in d]
        return [[d[i][j] - row[i] - row[j] + sum(row) / m for j in range(m)] for i in range(m)]

    def covariance(x: Tensor, y: Tensor) -> float:
        p, q = centred(x), centred(y)
        return math.sqrt(sum(p[i][j] * q[i][j] for i in range(m) for j in range(m)) / m**2)

    return covariance(a, b) / math.sqrt(covariance(a, a) * covariance(b, b))


@pytest.mark.parametrize(("m", "d", "e"), [(3, 1, 1), (6, 4, 2), (5, 9, 30)])
def test_distance_correlation_by_loops(m: int, d: int, e: int) -> None:
    a, b = features(m, d, 0), features(m, e, 1) + 3
    fast = distance_correlation(a, b)
    assert fast.dtype == torch.float64 and fast.item() == pytest.approx(slow_distance_correlation(a, b))
    assert distance_correlation(a.float(), b.float()).item() == pytest.approx(fast.item(), abs=1e-5)
    half = a.bfloat16()
    assert torch.equal(distance_correlation(half, b), distance_correlation(half.float(), b))


def test_distance_correlation_of_an_isometry_is_one_and_of_a_constant_zero() -> None:
    x, noise = features(40, 3, 0), features(40, 3, 1)
    turned = x @ torch.linalg.qr(features(3, 3, 2)).Q * 4 - 1
    assert distance_correlation(x, turned).item() == pytest.approx(1)
    related = distance_correlation(x, x + noise).item()
    assert 0.95 > related > distance_correlation(x, noise).item() + 0.1
    assert distance_correlation(x, torch.ones(40, 2)).item() == pytest.approx(0, abs=1e-12)
    # The V-statistic of independent rows of many features is near one: what the docstring warns of.
    assert distance_correlation(features(8, 4000, 0), features(8, 4000, 1)) > 0.9


def test_distance_correlation_has_its_slope_and_a_finite_one_where_rows_coincide() -> None:
    y = features(5, 2, 1)
    assert torch.autograd.gradcheck(lambda z: distance_correlation(z, y), features(5, 3, 0).requires_grad_())
    twice = features(5, 3, 0)[[0, 0, 1, 2, 2]].requires_grad_()
    constant = torch.ones(5, 3, dtype=torch.float64, requires_grad=True)
    for x in (twice, constant):
        (slope,) = torch.autograd.grad(distance_correlation(x, y), x)
        assert slope.isfinite().all()
    assert slope.count_nonzero() == 0


def test_distances_of_close_rows_far_from_the_origin_are_not_cancelled() -> None:
    x = 1e-3 * features(6, 4, 0)
    far = (x + 100).float()
    assert distance_correlation(far, far.double() - 100).item() == pytest.approx(1, abs=1e-6)
