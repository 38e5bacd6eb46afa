"""Products with the Jacobian of a function of a batch, and its largest singular value, without the matrix."""

from collections.abc import Callable

import torch
from torch import Tensor

from mipriv.errors import InputError

Function = Callable[[Tensor], Tensor]


class Linearised:
    """J of a function at x, from one forward evaluation; row i of the function depends on row i of x alone.

    J v is a derivative of the transposed product: u -> J^T u is linear, so its own transposed product is J v
    (Pearlmutter's product, "Fast exact multiplication by the Hessian", Neural Computation 1994, has the same
    root). Both cost about one evaluation, and any function that autograd differentiates twice will do.

    Args:
        function: [n, ...] to [n, ...].
        x: [n, ...].

    Attributes:
        value: function(x), detached.

    Raises:
        InputError: the function lets no gradient through.
    """

    @torch.enable_grad()
    def __init__(self, function: Function, x: Tensor) -> None:
        self._x = x.detach().requires_grad_()
        self._y = function(self._x)
        if not self._y.requires_grad:
            raise InputError("function: lets no gradient through; allowed: one that can be differentiated")
        self._u = torch.zeros_like(self._y, requires_grad=True)
        (self._g,) = torch.autograd.grad(self._y, self._x, self._u, create_graph=True)
        self.value = self._y.detach()

    def times(self, v: Tensor) -> Tensor:
        """J v, of the shape of the value, for v of the shape of x."""
        (found,) = torch.autograd.grad(self._g, self._u, v, retain_graph=True)
        return found

    def transposed(self, u: Tensor) -> Tensor:
        """J^T u, of the shape of x, for u of the shape of the value."""
        (found,) = torch.autograd.grad(self._y, self._x, u, retain_graph=True)
        return found


def norm(linearised: Linearised, start: Tensor, iterations: int) -> Tensor:
    """[n], the largest singular value of every row's J from below, by power iteration on J^T J.

    Args:
        linearised: J.
        start: [n, ...] like x, no row of it zero; random directions miss nothing almost surely.
        iterations: each two products.
    """
    v = start / rows_norm(start)
    found = torch.zeros(len(start), dtype=start.dtype, device=start.device)
    for _ in range(iterations):
        image = linearised.times(v)
        found = image.flatten(1).norm(dim=1)
        v = linearised.transposed(image)
        v = v / rows_norm(v)
    return found


def rows_norm(x: Tensor) -> Tensor:
    """Euclidean norms of rows, at least the smallest positive number, to divide [n, ...] by."""
    return spread(x.flatten(1).norm(dim=1), x).clamp(min=torch.finfo(x.dtype).tiny)


def spread(values: Tensor, like: Tensor) -> Tensor:
    """[n] as [n, 1, ...], to scale the rows of `like`."""
    return values.view(-1, *[1] * (like.ndim - 1))
