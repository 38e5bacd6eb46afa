"""Nonlinear least squares over a box by Levenberg and Marquardt's method, matrix-free.

Marquardt, "An algorithm for least-squares estimation of nonlinear parameters", SIAM J. Applied Mathematics
1963; each step by conjugate gradients on the normal equations (CGLS, Hestenes and Stiefel, 1952, as in
Björck, "Numerical methods for least squares problems", algorithm 7.4.1).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mipriv.solvers import Solved
from mipriv.solvers.jacobian import Linearised, spread

Residual = Callable[[Tensor, Tensor], Tensor]
Report = Callable[[int], None]
SHORTER = (1.0, 0.5, 0.25, 0.125)  # steps that are tried in turn before the damping rises
LEAST, MOST = 1e-12, 1e8  # damping


@dataclass(frozen=True)
class Schedule:
    """How long and how carefully.

    Attributes:
        outer: linearisations, at most.
        inner: steps of conjugate gradients within one, at most.
        damping: at the start; a step minimises |J d + r|^2 + damping |d|^2.
        down, up: what it is multiplied by after a step that was taken, and after one that was not.
        forcing: conjugate gradients stop once |J^T r| of a row is this share of what it was.
        tolerance: a row is done once the norm of its residual is below.
        stall: a row is done once a taken step lowers its squared residual by less than this share.
    """

    outer: int
    inner: int
    damping: float = 1e-3
    down: float = 0.3
    up: float = 10.0
    forcing: float = 1e-3
    tolerance: float = 1e-7
    stall: float = 1e-6


def levenberg_marquardt(
    residual: Residual,
    start: Tensor,
    schedule: Schedule,
    *,
    box: tuple[float, float] | None = None,
    report: Report | None = None,
) -> Solved:
    """Minimise |residual(x)|^2 of every row by itself.

    Pixels that lie at an end of the box, and would leave it along the gradient, are held in a step. A row
    whose damping has passed every bound, or that stalls, is done.

    Args:
        residual: (rows of x [k, ...], their places [k] in the batch) to [k, m].
        start: [n, ...].
        schedule: see `Schedule`.
        box: least and greatest value of every entry; None: any.
        report: called after each linearisation with how many rows went on.

    Returns:
        The residual is its norm.
    """
    n, device = len(start), start.device
    x = start.detach().clone() if box is None else start.detach().clamp(*box)
    costs = torch.full((n,), torch.inf, dtype=x.dtype, device=device)
    damping = torch.full((n,), schedule.damping, dtype=x.dtype, device=device)
    evaluations = torch.zeros(n, dtype=torch.int64, device=device)
    places = torch.arange(n, device=device)
    for _ in range(schedule.outer):
        here = x[places]
        local = Linearised(lambda z, at=places: residual(z, at), here)  # type: ignore[misc]
        cost = local.value.square().flatten(1).sum(1)
        costs[places] = cost
        slope = local.transposed(local.value)
        free = _free(here, slope, box)
        step, taken = _cgls(local, slope, free, damping[places], schedule)
        evaluations[places] += 3 + taken
        del local
        moved, lower, tried = _search(residual, here, step, cost, places, box)
        evaluations[places] += tried
        x[places], costs[places] = moved, torch.minimum(lower, cost)
        went = lower < cost
        factor = torch.where(went, schedule.down, schedule.up)
        damping[places] = (damping[places] * factor).clamp(min=LEAST)
        stalled = went & (cost - lower < schedule.stall * cost)
        on = (costs[places].sqrt() > schedule.tolerance) & ~stalled & (damping[places] < MOST)
        places = places[on]
        if report:
            report(len(places))
        if not len(places):
            break
    norms = costs.sqrt()
    return Solved(x, norms, evaluations, norms <= schedule.tolerance)


def _free(x: Tensor, slope: Tensor, box: tuple[float, float] | None) -> Tensor:
    """1 where an entry may move, 0 where it lies at an end of the box and would leave."""
    if box is None:
        return torch.ones_like(x)
    held = ((x <= box[0]) & (slope > 0)) | ((x >= box[1]) & (slope < 0))
    return (~held).to(x.dtype)


def _cgls(
    local: Linearised, slope: Tensor, free: Tensor, damping: Tensor, schedule: Schedule
) -> tuple[Tensor, Tensor]:
    """d [k, ...] that minimises |J d + r|^2 + damping |d|^2 over the free entries, and products a row took.

    A row that is done keeps its d, while those of others go on.
    """
    tiny = torch.finfo(slope.dtype).tiny
    d, left, s = torch.zeros_like(slope), -local.value, -slope * free
    p, gamma = s, _dot(s, s)
    stop = schedule.forcing**2 * gamma
    going = gamma > 0
    taken = torch.zeros(len(d), dtype=torch.int64, device=d.device)
    for _ in range(schedule.inner):
        if not bool(going.any()):
            break
        q = local.times(p)
        curvature = _dot(q, q) + damping * _dot(p, p)
        alpha = torch.where(going, gamma / curvature.clamp(min=tiny), 0.0)
        d = d + spread(alpha, d) * p
        left = left - spread(alpha, left) * q
        s = (local.transposed(left) - spread(damping, d) * d) * free
        taken += 2 * going
        fresh = _dot(s, s)
        going = going & (fresh > stop)
        p = s + spread(fresh / gamma.clamp(min=tiny), p) * p
        gamma = fresh
    return d, taken


def _search(
    residual: Residual,
    x: Tensor,
    step: Tensor,
    cost: Tensor,
    places: Tensor,
    box: tuple[float, float] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The first of ever shorter steps that lowers a row's cost: where it leads, its cost, evaluations.

    A row that no step lowers stays, with a cost that is no less.
    """
    moved, lower = x.clone(), cost.clone()
    tried = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    left = torch.arange(len(x), device=x.device)
    for share in SHORTER:
        there = x[left] + share * step[left]
        if box is not None:
            there = there.clamp(*box)
        with torch.no_grad():
            found = residual(there, places[left]).square().flatten(1).sum(1)
        tried[left] += 1
        good = found < cost[left]
        moved[left[good]], lower[left[good]] = there[good], found[good]
        left = left[~good]
        if not len(left):
            break
    return moved, lower, tried


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)
