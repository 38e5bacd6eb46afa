"""Numerical methods that attacks share: every row of a batch is a problem, and all are solved together.

Rows that are done are left out of what is computed further. Nothing here knows of images or networks.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Solved:
    """Where a solver stopped.

    Attributes:
        x: [n, ...], of every row the iterate of the least residual.
        residual: [n], as the solver defines it.
        evaluations: [n] int64, passes over the function that each row took: forward ones and products with
            its Jacobian or the transpose alike.
        converged: [n] bool, whether the tolerance was met.
    """

    x: Tensor
    residual: Tensor
    evaluations: Tensor
    converged: Tensor
