"""Solvers against dense linear algebra, and rows of a batch against themselves alone."""

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear
from torch import Tensor
from torch.nn import functional as F

from mipriv.errors import InputError
from mipriv.solvers.anderson import anderson
from mipriv.solvers.jacobian import Linearised, norm
from mipriv.solvers.levenberg_marquardt import Schedule, levenberg_marquardt


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


KERNEL = random(3, 1, 3, 3)


def curved(x: Tensor) -> Tensor:
    """[n, 1, 5, 5] to [n, 3, 5, 5], with a second derivative everywhere."""
    return F.softplus(F.conv2d(x, KERNEL, padding=1)) * (1 + x.mean((1, 2, 3), keepdim=True))


def test_products_are_those_of_finite_differences_and_each_the_others_transpose() -> None:
    x, v, u = random(4, 1, 5, 5), random(4, 1, 5, 5, seed=1), random(4, 3, 5, 5, seed=2)
    local = Linearised(curved, x)
    assert torch.equal(local.value, curved(x))
    slope = (curved(x + 1e-6 * v) - curved(x - 1e-6 * v)) / 2e-6
    assert torch.allclose(local.times(v), slope, atol=1e-8)
    both = [(a * b).flatten(1).sum(1) for a, b in ((local.times(v), u), (local.transposed(u), v))]
    assert torch.allclose(*both, rtol=1e-12)
    assert torch.equal(local.times(v), local.times(v))  # the graph is kept


def test_what_lets_no_gradient_through_is_refused() -> None:
    with pytest.raises(InputError, match="lets no gradient through"):
        Linearised(lambda x: x.detach(), random(1, 2))


def test_the_norm_is_the_largest_singular_value() -> None:
    x = random(3, 1, 5, 5)
    dense = torch.stack(
        [torch.autograd.functional.jacobian(curved, row[None]).reshape(75, 25) for row in x]  # type: ignore[no-untyped-call]
    )
    found = norm(Linearised(curved, x), random(3, 1, 5, 5, seed=1), 200)
    assert torch.allclose(found, torch.linalg.svdvals(dense)[:, 0], rtol=1e-6)


def contraction(n: int, d: int = 30) -> tuple[Tensor, Tensor]:
    """A [n, d, d], symmetric, of norm .9; b [n, d]."""
    a = random(n, d, d)
    a = a + a.mT
    return 0.9 * a / torch.linalg.svdvals(a)[:, :1, None], random(n, d, seed=1)


def test_anderson_solves_linear_fixed_points_in_fewer_evaluations_than_iteration() -> None:
    a, b = contraction(3)
    truth = torch.linalg.solve(torch.eye(30, dtype=torch.float64) - a, b)

    def g(x: Tensor, at: Tensor) -> Tensor:
        return (a[at] @ x[:, :, None])[:, :, 0] + b[at]

    fast = anderson(g, torch.zeros_like(b), iterations=400, tolerance=1e-10)
    plain = anderson(g, torch.zeros_like(b), memory=0, iterations=400, tolerance=1e-10)
    assert fast.converged.all() and torch.allclose(fast.x, truth, atol=1e-8)
    assert (fast.evaluations < 0.7 * plain.evaluations).all()
    # The residual is that of what is returned, and rows do not know of each other.
    there = g(fast.x, torch.arange(3))
    assert torch.allclose(fast.residual, (there - fast.x).norm(dim=1) / there.norm(dim=1))
    alone = anderson(lambda x, at: g(x, at + 1), torch.zeros_like(b[1:2]), iterations=400, tolerance=1e-10)
    assert torch.allclose(alone.x[0], fast.x[1], atol=1e-12) and alone.evaluations[0] == fast.evaluations[1]


def test_anderson_of_what_does_not_contract_says_so_and_keeps_its_best() -> None:
    found = anderson(lambda x, _: x.square() * 3 + 5, random(2, 4), iterations=30)
    assert not found.converged.any() and found.x.isfinite().all() and found.residual.isfinite().all()


LINEAR = Schedule(outer=30, inner=60, damping=1e-9, forcing=1e-12, tolerance=1e-9, stall=0.0)


def test_least_squares_of_a_linear_problem_are_the_normal_equations() -> None:
    a, b = random(3, 40, 12), random(3, 40, seed=1)
    found = levenberg_marquardt(
        lambda x, at: (a[at] @ x[:, :, None])[:, :, 0] - b[at],
        torch.zeros(3, 12, dtype=torch.float64),
        LINEAR,
    )
    truth = torch.linalg.lstsq(a, b[:, :, None]).solution[:, :, 0]
    assert torch.allclose(found.x, truth, atol=1e-7)
    gap = ((a @ found.x[:, :, None])[:, :, 0] - b).norm(dim=1)
    assert torch.allclose(found.residual, gap)


def test_in_a_box_the_solution_is_that_of_bounded_least_squares() -> None:
    a, b = random(3, 40, 12), 3 * random(3, 40, seed=1)
    found = levenberg_marquardt(
        lambda x, at: (a[at] @ x[:, :, None])[:, :, 0] - b[at],
        torch.full((3, 12), 0.5, dtype=torch.float64),
        Schedule(outer=200, inner=60, damping=1e-9, forcing=1e-12, tolerance=1e-9, stall=0.0),
        box=(0.0, 1.0),
    )
    for row, matrix, right in zip(found.x, a, b, strict=True):
        truth = lsq_linear(matrix.numpy(), right.numpy(), (0, 1), tol=1e-14).x
        assert np.any(truth < 1e-6) and np.any((truth > 0.01) & (truth < 0.99))
        assert np.allclose(row.numpy(), truth, atol=1e-6)


def valley(x: Tensor, _: Tensor) -> Tensor:
    """Rosenbrock's function as least squares, its minimum at 1."""
    return torch.stack([10 * (x[:, 1] - x[:, 0] ** 2), 1 - x[:, 0]], 1)


def test_a_curved_valley_is_followed_to_its_end_by_every_row_for_itself() -> None:
    start = torch.tensor([[-1.2, 1.0], [3.0, -4.0], [1.0, 1.0]], dtype=torch.float64)
    schedule = Schedule(outer=100, inner=10, tolerance=1e-12, stall=0.0)
    found, left = [], []
    many = levenberg_marquardt(valley, start, schedule, report=left.append)
    assert torch.allclose(many.x, torch.ones_like(many.x), atol=1e-9) and many.converged.all()
    assert many.evaluations[2] < many.evaluations[0]  # it began at the end
    assert left[0] == 2 and left[-1] == 0 and left == sorted(left, reverse=True)
    for row in start:
        found.append(levenberg_marquardt(valley, row[None], schedule))
    assert torch.allclose(torch.cat([one.x for one in found]), many.x, atol=1e-10)
    assert torch.equal(torch.cat([one.evaluations for one in found]), many.evaluations)


def test_no_step_makes_a_row_worse() -> None:
    """A residual that is no number ahead is gone around or stopped at."""
    start = torch.full((2, 3), 0.2, dtype=torch.float64)

    def cliff(x: Tensor, _: Tensor) -> Tensor:
        return (x - 1) / (x < 0.9).all(1, keepdim=True)  # infinite beyond .9

    found = levenberg_marquardt(cliff, start, Schedule(outer=20, inner=5))
    assert found.x.isfinite().all() and (found.residual <= cliff(start, start).norm(dim=1)).all()
    assert (found.x < 0.9).all() and (found.x > 0.2).any()
