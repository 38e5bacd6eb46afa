"""Fixed points x = g(x) of contractions by Anderson's acceleration.

Anderson, "Iterative procedures for nonlinear integral equations", J. ACM 1965; in the form of Walker and Ni,
"Anderson acceleration for fixed-point iterations", SIAM J. Numerical Analysis 2011, equation (2.1), unmixed.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mipriv.solvers import Solved

RIDGE = 1e-10  # of the largest eigenvalue of a row's Gram matrix: parallel differences have no unique weights
Fixed = Callable[[Tensor, Tensor], Tensor]


def anderson(
    g: Fixed, start: Tensor, *, memory: int = 5, iterations: int = 60, tolerance: float = 1e-6
) -> Solved:
    """Iterate x <- g(x) - (dX + dF) w, w the weights by which past differences dF explain f = g(x) - x best.

    The residual is |g(x) - x| / |g(x)|. A row whose residual is more than twice that before forgets its
    past and takes a plain step. One whose residual is no number stops; what is returned is its best.

    Args:
        g: (rows of x [k, ...], their places [k] in the batch) to [k, ...].
        start: [n, ...].
        memory: differences that are kept, from 0 (plain iteration).
        iterations: evaluations of g, at most.
        tolerance: of the residual.
    """
    n, shape, device = len(start), start.shape[1:], start.device
    x = start.flatten(1).clone()
    best, least = x.clone(), torch.full((n,), torch.inf, dtype=start.dtype, device=device)
    evaluations = torch.zeros(n, dtype=torch.int64, device=device)
    places = torch.arange(n, device=device)
    history = _History(n, memory, x.shape[1], start)
    last = torch.full((n,), torch.inf, dtype=start.dtype, device=device)
    for _ in range(iterations):
        there = g(x[places].view(-1, *shape), places).flatten(1)
        f = there - x[places]
        evaluations[places] += 1
        residual = f.norm(dim=1) / there.norm(dim=1).clamp(min=torch.finfo(f.dtype).tiny)
        better = residual < least[places]
        best[places[better]], least[places[better]] = x[places[better]], residual[better]
        history.forget(places[residual > 2 * last[places]])
        last[places] = residual
        going = (residual > tolerance) & residual.isfinite()
        places, f, there = places[going], f[going], there[going]
        if not len(places):
            break
        x[places] = there - history.correction(places, x[places], f)
    return Solved(best.view(start.shape), least, evaluations, least <= tolerance)


class _History:
    """Differences of iterates and residuals of every row, in a ring; unused places hold zeros."""

    def __init__(self, n: int, memory: int, d: int, like: Tensor) -> None:
        self.memory = memory
        self._dx, self._df = (like.new_zeros(n, memory, d) for _ in range(2))
        self._x, self._f = like.new_zeros(n, d), like.new_zeros(n, d)
        self._seen = torch.zeros(n, dtype=torch.int64, device=like.device)

    def forget(self, places: Tensor) -> None:
        """Begin anew in some rows."""
        self._seen[places] = 0
        self._dx[places] = 0
        self._df[places] = 0

    def correction(self, places: Tensor, x: Tensor, f: Tensor) -> Tensor:
        """(dX + dF) w of rows whose iterate is x and residual f, both [k, d]; they are remembered."""
        if self.memory == 0:
            return torch.zeros_like(x)
        old = self._seen[places] > 0
        slot = (self._seen[places] - 1) % self.memory
        self._dx[places[old], slot[old]] = (x - self._x[places])[old]
        self._df[places[old], slot[old]] = (f - self._f[places])[old]
        self._x[places], self._f[places] = x, f
        self._seen[places] += 1
        df = self._df[places]
        gram, right = df @ df.mT, df @ f[:, :, None]
        # A ridge, in units of the row's own, makes slots without a difference weigh nothing.
        scale = gram.diagonal(dim1=1, dim2=2).amax(1).clamp(min=torch.finfo(f.dtype).tiny)
        eye = torch.eye(self.memory, dtype=f.dtype, device=f.device)
        ridge = RIDGE if f.dtype == torch.float64 else 1e-6
        weights = torch.linalg.solve(gram / scale[:, None, None] + ridge * eye, right / scale[:, None, None])
        found: Tensor = ((self._dx[places] + df).mT @ weights)[:, :, 0]
        return found
