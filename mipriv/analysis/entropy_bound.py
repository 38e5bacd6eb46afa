"""How much noisy features can tell about an image: an upper bound on their mutual information.

A client sends z = f(x) + e, e ~ N(0, sigma^2 I), of an input x in R^d; f(x) in R^D is deterministic, so
that I(x; z) = h(z) - h(e). Let c be any cell that comes with x, pi_j its probability and S_j the covariance
of f(x) within it. Then h(z) <= H(c) + h(z | c), and no law has more entropy than the Gaussian of the same
covariance:

    I(x; z) <= sum_j pi_j (-log pi_j + 1/2 log det(I + S_j / sigma^2))                                  (1)

whatever the features' law. Xia et al. (CVPR 2025, "Theoretical Insights in Model Inversion Robustness and
Conditional Entropy Maximization for Collaborative Inference Systems") have (1) for a Gaussian mixture, and
from it that the mean squared error a dimension of any attack is at least exp(2 h(x | z) / d) / (2 pi e).

All that keeps the diagonal of S_j, or its trace, may replace it: det(I + S) is at most the product of its
diagonal (Hadamard), which is at most its mean to the power of D. So full <= diagonal <= isotropic.

A certificate is of the average error over x, never of one image. Entropies and information are in nats.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from mipriv.errors import InputError

Covariance = Literal["isotropic", "diagonal", "full"]
Estimate = Literal["isotropic", "diagonal", "lowrank", "full"]
A_CELL = 20


class NoBound(InputError):
    """Without noise z tells all that f(x) does, and (1) is infinite: there is no figure to print."""


@dataclass(frozen=True)
class Bound:
    """An upper bound on I(x; z), or an estimate of one.

    Attributes:
        nats: scalar, float32 or float64.
        certifies: whether the figure may be called a bound for new inputs.
        why_not: one line; empty where it certifies.
    """

    nats: Tensor
    certifies: bool
    why_not: str = ""


def from_moments(
    weights: Tensor, moments: Tensor, noise_variance: float, covariance: Covariance, dim: int | None = None
) -> Tensor:
    """(1) of cells whose moments are known; differentiable in both, without a look at the device's values.

    A cell of weight 0 adds exactly 0 whatever its moments, and takes no gradient. Sums are float32 at least,
    also under autocast. Variances that rounding left below 0 count as 0.

    Args:
        weights: [J], from 0, summing to 1.
        moments: `isotropic`: [J], variances averaged over dimensions; `diagonal`: [J, D], variances;
            `full`: [J, D, D], covariances.
        noise_variance: sigma^2.
        covariance: which of them.
        dim: D, which `isotropic` moments do not show; others need none.

    Returns:
        Scalar, in nats.

    Raises:
        NoBound: no noise.
        InputError: shapes that do not fit, or a covariance that is none.
    """
    check_noise(noise_variance)
    dim = _dim(weights, moments, covariance, dim)
    with torch.autocast(moments.device.type, enabled=False):
        weights, moments = _wide(weights, moments)
        occupied = (weights > 0).reshape(-1, *[1] * (moments.ndim - 1))
        ratio = torch.where(occupied, moments, 0.0) / noise_variance
        if covariance == "full":
            return _total(weights, log_det(ratio))
        volumes = torch.log1p(ratio.clamp(min=0))
        return _total(weights, dim * volumes if covariance == "isotropic" else volumes.sum(1))


def check_noise(noise_variance: float) -> None:
    """Refuse noise of which there is no bound.

    Raises:
        NoBound: no noise.
        InputError: not a variance.
    """
    if noise_variance == 0:
        raise NoBound("entropy bound: noise variance 0; allowed: above 0, there is no bound without noise")
    if not 0 < noise_variance < math.inf:
        raise InputError(f"entropy bound: noise variance {noise_variance}; allowed: a number above 0")


def log_det(ratio: Tensor) -> Tensor:
    """log det(I + A) of positive semi-definite A [..., D, D], by Cholesky: eigenvalues are at least 1.

    Raises:
        InputError: I + A is not positive definite.
    """
    identity = torch.eye(ratio.shape[-1], dtype=ratio.dtype, device=ratio.device)
    factor, failed = torch.linalg.cholesky_ex(identity + (ratio + ratio.mT) / 2)
    if failed.any():
        raise InputError("entropy bound: a covariance has negative eigenvalues; allowed: from 0")
    found: Tensor = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return found


def _total(weights: Tensor, volumes: Tensor) -> Tensor:
    """Sum of pi_j (-log pi_j + volume_j / 2); the logarithm sees no weight of 0."""
    surprise = -torch.where(weights > 0, weights, 1.0).log()
    return (weights * (surprise + volumes / 2)).sum()


def _wide(*tensors: Tensor) -> tuple[Tensor, ...]:
    """As float64 where one of them is, as float32 otherwise."""
    double = any(tensor.dtype == torch.float64 for tensor in tensors)
    return tuple(tensor.double() if double else tensor.float() for tensor in tensors)


def _dim(weights: Tensor, moments: Tensor, covariance: Covariance, dim: int | None) -> int:
    if covariance not in get_args(Covariance):
        raise InputError(
            f"entropy bound: covariance {covariance!r}; allowed: {', '.join(get_args(Covariance))}"
        )
    axes = get_args(Covariance).index(covariance)
    if not axes and dim is None:
        raise InputError("entropy bound: isotropic moments without dim; allowed: dim, how many dimensions")
    wide = dim if dim is not None else moments.shape[-1]
    expected = (len(weights), *[wide] * axes)
    if weights.ndim != 1 or tuple(moments.shape) != expected:
        found = f"weights {list(weights.shape)} and {covariance} moments {list(moments.shape)}"
        raise InputError(f"entropy bound: {found}; allowed: [J] and [J{', D' * axes}]")
    return wide
