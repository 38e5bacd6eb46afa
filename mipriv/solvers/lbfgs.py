"""Convex functions of a linear map, plus a quadratic penalty, by limited-memory BFGS.

Nocedal and Wright, "Numerical Optimization", 2nd ed., algorithm 7.4 (two-loop recursion), with an initial
inverse Hessian of the caller's or the scale of equation (7.20). A row's step is accepted by the approximate
Wolfe conditions of Hager and Zhang, "A new conjugate gradient method with guaranteed descent and an
efficient line search", SIAM J. Optimization 2005, equations (4.1) and (4.3), which rounding does not mislead.

As f is a function of z = A w, z is updated by A d rather than computed from w: a search along d multiplies by
A but once, and where the product is rounded, its error is relative to the step and vanishes with it.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

DELTA, SIGMA = 0.1, 0.9  # of the conditions of Wolfe
SLACK = 4.0  # in units of rounding of the value: a rise that says nothing
TRIALS = 20  # of a step
GROW = 10.0  # the furthest that a trial goes beyond the one before


class Problem(Protocol):
    """Rows of f(A w) + sum(penalty w^2) / 2 that are still computed on; k of them."""

    penalty: Tensor

    def times(self, w: Tensor) -> Tensor:
        """A w, [k, p] to [k, q]."""
        ...

    def transposed(self, r: Tensor) -> Tensor:
        """A^T r, [k, q] to [k, p]."""
        ...

    def loss(self, z: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """f [j] and its gradient by z [j, q] in the rows `at` [j] (None: all)."""
        ...

    def scaled(self, g: Tensor) -> Tensor | None:
        """An initial inverse Hessian times g [k, p]; None: there is none better than a multiple of one."""
        ...

    def keep(self, going: Tensor) -> None:
        """Leave out all rows but those of a [k] mask."""
        ...


@dataclass(frozen=True)
class Stop:
    """When a row is done.

    A row's gradient is measured against its own at the start. So a start that is nearly stationary, as the
    solution of a neighbouring problem is, asks for more rather than for nothing.

    Attributes:
        tolerance: of the norm of the gradient, as a share of that at the start.
        least, most: steps.
    """

    tolerance: float
    least: int
    most: int


@dataclass(frozen=True)
class Minimised:
    """Where the solver stopped.

    Attributes:
        x: [n, p].
        value: [n], of the function there, penalty included.
        norm: [n], of its gradient.
        steps: [n] int64.
        converged: [n] bool, whether the tolerance was met.
    """

    x: Tensor
    value: Tensor
    norm: Tensor
    steps: Tensor
    converged: Tensor


def lbfgs(problem: Problem, start: Tensor, there: Tensor, stop: Stop, *, memory: int = 6) -> Minimised:
    """Minimise every row by itself; one that is done, or finds no step, is not computed on any more.

    Args:
        problem: see `Problem`; it is used up.
        start: [n, p].
        there: [n, q], A `start`: the caller may know it better than a rounded product does.
        stop: see `Stop`.
        memory: pairs of differences that are kept.
    """
    n, places = len(start), torch.arange(len(start), device=start.device)
    steps = torch.zeros(n, dtype=torch.int64, device=start.device)
    done = Minimised(start.clone(), start.new_zeros(n), start.new_zeros(n), steps, steps > 0)
    w, z = start, there
    value, r = problem.loss(z)
    value = value + _dot(w * w, problem.penalty) / 2
    g = problem.transposed(r).addcmul_(problem.penalty, w)
    enough, stuck = stop.tolerance * _norm(g), torch.zeros_like(done.converged)
    pairs: list[_Pair] = []
    for step in range(stop.most + 1):
        norm = _norm(g)
        met = norm <= enough
        over = (met & (step >= stop.least)) | stuck | (norm == 0) | (step == stop.most)
        if bool(over.any()):
            at, going = places[over], ~over
            done.x[at], done.value[at], done.norm[at] = w[over], value[over], norm[over]
            done.steps[at], done.converged[at] = step, met[over]
            problem.keep(going)
            places, enough, norm, value = places[going], enough[going], norm[going], value[going]
            if not len(places):
                break
            w, z, g = w[going], z[going], g[going]
            pairs = [pair.of(going) for pair in pairs]
        d = -_inverse_times(problem, g, pairs)
        slope = _dot(d, g)
        lost = ~(slope < 0)  # rounding has turned the direction round: begin anew along the gradient
        if bool(lost.any()):
            d[lost] = -g[lost] / norm[lost][:, None]
            slope[lost] = -norm[lost]
        share, z, value, r = _search(problem, w, z, value, d, slope)
        stuck = share == 0
        d *= share[:, None]
        w = w + d
        fresh = problem.transposed(r).addcmul_(problem.penalty, w)
        pairs = [*pairs, _pair(d, fresh - g)][-memory:]
        g = fresh
    return done


@dataclass(frozen=True)
class _Pair:
    """Differences of w and of the gradient [k, p], and 1 / their product [k]; nought without curvature."""

    s: Tensor
    y: Tensor
    inverse: Tensor

    def of(self, going: Tensor) -> "_Pair":
        return _Pair(self.s[going], self.y[going], self.inverse[going])


def _pair(s: Tensor, y: Tensor) -> _Pair:
    curvature = _dot(s, y)
    return _Pair(s, y, torch.where(curvature > 0, 1 / curvature, 0.0))


def _inverse_times(problem: Problem, g: Tensor, pairs: list[_Pair]) -> Tensor:
    """H g [k, p]; a pair without curvature, as of a step of nought, is passed over in its row."""
    q, shares = g.clone(), []
    for pair in reversed(pairs):
        share = _dot(pair.s, q) * pair.inverse
        q.addcmul_(pair.y, -share[:, None])
        shares.append(share)
    scaled = problem.scaled(q)
    if scaled is not None:
        q = scaled
    elif pairs:
        last = pairs[-1]
        size = _dot(last.y, last.y)
        q *= torch.where((size > 0) & (last.inverse > 0), _dot(last.s, last.y) / size, 1.0)[:, None]
    else:
        q /= _norm(g).clamp(min=torch.finfo(g.dtype).tiny)[:, None]
    for pair, share in zip(pairs, reversed(shares), strict=True):
        q.addcmul_(pair.s, (share - _dot(pair.y, q) * pair.inverse)[:, None])
    return q


def _search(
    problem: Problem, w: Tensor, z: Tensor, value: Tensor, d: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shares [k] of d that meet the conditions, and z, the function and f's gradient by z there.

    Where no trial does, the best that does not raise the function stands, or a share of nought.
    """
    ahead = problem.times(d)
    straight, curved = _dot(d, w * problem.penalty), _dot(d * d, problem.penalty)
    flat = value - _dot(w * w, problem.penalty) / 2  # of f alone
    share, low, at_low = torch.ones_like(slope), torch.zeros_like(slope), slope.clone()
    high, at_high = torch.full_like(slope, torch.inf), torch.zeros_like(slope)
    slack = SLACK * torch.finfo(z.dtype).eps * value.abs()
    there = z + ahead
    f, r = problem.loss(there)
    left, new, back, on = torch.arange(len(z), device=z.device), f, r, ahead
    for trial in range(1, TRIALS + 1):
        a = share[left]
        here = _dot(back, on) + straight[left] + a * curved[left]
        rise = new - flat[left] + a * straight[left] + a.square() * curved[left] / 2
        level = rise <= torch.maximum(DELTA * a * slope[left], slack[left])
        good = level & (here >= SIGMA * slope[left]) & (here <= (2 * DELTA - 1) * slope[left])
        down = level & (here < 0)
        low[left], at_low[left] = torch.where(down, a, low[left]), torch.where(down, here, at_low[left])
        high[left], at_high[left] = torch.where(down, high[left], a), torch.where(down, at_high[left], here)
        left = left[~good]
        if not len(left) or trial == TRIALS:
            break
        known = (low[left], high[left], at_low[left], at_high[left], slope[left])
        share[left] = low[left] if trial == TRIALS - 1 else _next(*known)
        on = ahead[left]
        there[left] = torch.addcmul(z[left], on, share[left][:, None])
        new, back = problem.loss(there[left], left)
        f[left], r[left] = new, back
    return share, there, f + _dot((w + share[:, None] * d).square(), problem.penalty) / 2, r


def _next(low: Tensor, high: Tensor, at_low: Tensor, at_high: Tensor, slope: Tensor) -> Tensor:
    """The secant's zero of the slope, kept within the inner four fifths of a bracket, or beyond the trial."""
    width = high - low
    inside = low + width * (at_low / (at_low - at_high)).clamp(0.1, 0.9)
    ratio = at_low / slope  # of the slope at the trial to that at nought
    beyond = low * (1 / (1 - ratio).clamp(min=1 / GROW)).clamp(min=1.5)
    return torch.where(high.isinf(), beyond, inside)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1)  # several times faster than vecdot over rows as long as these


def _norm(a: Tensor) -> Tensor:
    found: Tensor = torch.linalg.vector_norm(a, dim=1)
    return found
