"""How much noisy features can tell about an image: an upper bound on their mutual information.

A client sends z = f(x) + e, e ~ N(0, sigma^2 I), of an input x in R^d; f(x) in R^D is deterministic, so
that I(x; z) = h(z) - h(e). Let c be any cell that comes with x, pi_j its probability and S_j the covariance
of f(x) within it. Then h(z) <= H(c) + h(z | c), and no law has more entropy than the Gaussian of the same
covariance:

    I(x; z) <= sum_j pi_j (-log pi_j + 1/2 log det(I + S_j / sigma^2))                                  (1)

whatever the features' law. Xia et al. (CVPR 2025, "Theoretical Insights in Model Inversion Robustness and
Conditional Entropy Maximization for Collaborative Inference Systems") have (1) for a Gaussian mixture.
`error_bound` has what it says of an attack's error.

All that keeps the diagonal of S_j, or its trace, may replace it: det(I + S) is at most the product of its
diagonal (Hadamard), which is at most its mean to the power of D. So full <= diagonal <= isotropic.

Entropies and information are in nats.
"""

import math
from collections.abc import Iterator
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
    weights, moments = _wide(weights, moments)
    occupied = (weights > 0).reshape(-1, *[1] * (moments.ndim - 1))
    ratio = torch.where(occupied, moments, 0.0) / noise_variance
    if covariance == "full":
        return _total(weights, log_det(ratio))
    volumes = torch.log1p(ratio.clamp(min=0))
    return _total(weights, dim * volumes if covariance == "isotropic" else volumes.sum(1))


def information(
    features: Tensor,
    cells: Tensor,
    num_cells: int,
    noise_variance: float,
    covariance: Estimate = "diagonal",
    rank: int | None = None,
    classes: Tensor | None = None,
) -> Bound:
    """(1) with the shares and covariances (over n_j, not n_j - 1) that rows have in their cells, in float64.

    For inputs drawn from these very rows it is a bound as it stands. For new inputs it is a plug-in estimate
    that errs downwards, by about D / n_j nats a cell (`diagonal`) and D^2 / (4 n_j) + D / n_j (`full`) where
    n_j is large and the noise small; far more where it is not. It certifies only where that is a small part:
    every occupied cell has 20 rows, 20 D for `full`. `entropy_limit.held_out` bounds chance as well.

    `lowrank` keeps the largest eigenvalues of S_j and spreads the rest of its trace evenly (probabilistic
    PCA, Tipping and Bishop, JRSS B 1999): it lies between full and isotropic, and never certifies.

    Args:
        features: [n, D], without noise.
        cells: [n] int64.
        num_cells: J; cells may be empty.
        noise_variance: sigma^2.
        covariance: the form of S_j.
        rank: how many eigenvalues `lowrank` keeps; others need none.
        classes: [n] int64; a cell then is a (class, cell) pair and the figure has H(class) in it.

    Raises:
        NoBound: no noise.
        InputError: shapes, cells or a rank that do not fit, or features that are not finite.
    """
    check_noise(noise_variance)
    check_rows(features, cells, num_cells)
    rank = _rank(covariance, rank, features.shape[1])
    if classes is not None:
        cells, num_cells = classwise(cells, num_cells, classes)
    counts, volumes = [], []
    for _, rows in members(cells, num_cells):
        own = features[rows].double()
        root = (own - own.mean(0)) / math.sqrt(len(own) * noise_variance)
        counts.append(len(own))
        volumes.append(_volume(root, covariance, rank))
    weights = torch.tensor(counts, dtype=torch.float64, device=features.device) / len(features)
    nats = _total(weights, torch.stack(volumes))
    why_not = _why_not(covariance, min(counts), features.shape[1])
    return Bound(nats, not why_not, why_not)


def population(weights: Tensor, covariances: Tensor, noise_variance: float) -> Bound:
    """(1) of a law that is known: it certifies. Cells may overlap, as the components of a mixture do.

    Args:
        weights: [J] of the components, summing to 1.
        covariances: [J, D, D] of f(x) within them; their means do not enter.
        noise_variance: sigma^2.

    Raises:
        NoBound: no noise.
        InputError: as `from_moments`, or weights that are no probabilities.
    """
    if (weights < 0).any() or not math.isclose(float(weights.sum()), 1, abs_tol=1e-6):
        raise InputError(f"entropy bound: weights {weights.tolist()}; allowed: from 0, summing to 1")
    return Bound(from_moments(weights, covariances, noise_variance, "full"), True)


def classwise(cells: Tensor, num_cells: int, classes: Tensor) -> tuple[Tensor, int]:
    """(class, cell) pairs as cells [n], the class first, and how many there are.

    Raises:
        InputError: classes that do not fit.
    """
    if classes.shape != cells.shape or classes.dtype != torch.int64 or (classes < 0).any():
        found = f"classes {classes.dtype} {list(classes.shape)}"
        raise InputError(f"entropy bound: {found}; allowed: int64 [{len(cells)}], from 0")
    return classes * num_cells + cells, (int(classes.max()) + 1) * num_cells


def members(cells: Tensor, num_cells: int) -> Iterator[tuple[int, Tensor]]:
    """Each occupied cell and the rows in it, [n_j] in their order."""
    counts = torch.bincount(cells, minlength=num_cells).tolist()
    for cell, rows in enumerate(cells.argsort(stable=True).split(counts)):
        if len(rows):
            yield cell, rows


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


def check_rows(features: Tensor, cells: Tensor, num_cells: int) -> None:
    """Refuse features and cells that do not go together.

    Raises:
        InputError: shapes or cells that do not fit, or features that are not finite.
    """
    if features.ndim != 2 or not features.numel() or not features.isfinite().all():
        raise InputError(f"entropy bound: features {list(features.shape)}; allowed: [n, D], finite numbers")
    if cells.shape != features.shape[:1] or cells.dtype != torch.int64:
        found = f"cells {cells.dtype} {list(cells.shape)}"
        raise InputError(f"entropy bound: {found}; allowed: int64 [{len(features)}]")
    if cells.min() < 0 or cells.max() >= num_cells:
        found = f"cells {int(cells.min())} to {int(cells.max())}"
        raise InputError(f"entropy bound: {found}; allowed: 0 to {num_cells - 1}")


def _volume(root: Tensor, covariance: Estimate, rank: int) -> Tensor:
    """log det(I + X' X) of a cell's centred rows X [n_j, D], as `covariance` has it.

    Where n_j < D it is that of I + X X', which is smaller (Sylvester).
    """
    n, dim = root.shape
    variances = root.square().sum(0)
    if covariance == "isotropic":
        return dim * torch.log1p(variances.mean())
    if covariance == "diagonal":
        return torch.log1p(variances).sum()
    gram = root @ root.T if n < dim else root.T @ root
    if covariance == "full":
        return log_det(gram)
    kept = torch.linalg.eigvalsh(gram).clamp(min=0)[max(0, len(gram) - rank) :]
    rest = (variances.sum() - kept.sum()).clamp(min=0)
    return torch.log1p(kept).sum() + (dim - rank) * torch.log1p(rest / max(1, dim - rank))


def _why_not(covariance: Estimate, fewest: int, dim: int) -> str:
    if covariance == "lowrank":
        return "a low-rank covariance is an estimate"
    least = A_CELL * (dim if covariance == "full" else 1)
    if fewest < least:
        return f"{fewest} rows in a cell, too few for its {covariance} covariance: at least {least}"
    return ""


def _rank(covariance: Estimate, rank: int | None, dim: int) -> int:
    if covariance not in get_args(Estimate):
        raise InputError(
            f"entropy bound: covariance {covariance!r}; allowed: {', '.join(get_args(Estimate))}"
        )
    if covariance == "lowrank" and (rank is None or not 0 <= rank <= dim):
        raise InputError(f"entropy bound: a low-rank covariance of rank {rank}; allowed: 0 to {dim}")
    return rank or 0


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
