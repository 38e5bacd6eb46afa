"""How much two sets of features depend on each other, from kernels over one batch of m rows.

Kernels are centred in feature space on both sides, H K H with H = I - 1/m; released defences centre one
side only, or take the Frobenius norm for the spectral one, which are other measures.
"""

import torch
from torch import Tensor


def linear_kernel(a: Tensor) -> Tensor:
    """Centred Gram matrix of features [m, d], as float64 [m, m].

    Rows are centred first and multiplied in float32 at least, d being large; what follows is only m x m.
    """
    wide = a if a.dtype == torch.float64 else a.float()
    centred = wide - wide.mean(0)
    return (centred @ centred.T).double()


def gaussian_kernel(a: Tensor, sigma: float) -> Tensor:
    """Centred kernel exp(-|a_i - a_j|^2 / (2 sigma^2 d)) of features [m, d], as float64 [m, m].

    The width grows with the root of d, as in Ma et al. (AAAI 2020), whose sigma is 5.
    """
    gram = linear_kernel(a)  # distances are those of the centred rows, which lose fewer digits
    squares = gram.diagonal()
    distances = (squares[:, None] + squares[None] - 2 * gram).clamp(min=0)
    return centre(torch.exp(-distances / (2 * sigma**2 * a.shape[1])))


def centre(kernel: Tensor) -> Tensor:
    """H K H of a symmetric kernel [m, m]."""
    return kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()


def normalised(kernel: Tensor, epsilon: float) -> Tensor:
    """K (K + epsilon m I)^-1 of a centred kernel [m, m]: its eigenvalues squeezed into [0, 1)."""
    m = len(kernel)
    shifted = kernel + epsilon * m * torch.eye(m, dtype=kernel.dtype, device=kernel.device)
    squeezed: Tensor = torch.linalg.solve(shifted, kernel)  # the two factors commute
    return squeezed


def normalised_hsic(a: Tensor, b: Tensor, epsilon: float) -> Tensor:
    """tr(A~ B~), A~ = A (A + epsilon m I)^-1 (Fukumizu et al., NIPS 2007, NOCCO; Gretton et al., ALT 2005).

    Args:
        a, b: centred kernels [m, m].
        epsilon: above 0.

    Returns:
        Scalar from 0 to less than m - 1, the rank a centred kernel can have. It comes near that bound,
        whatever the features, where all eigenvalues of both kernels lie far above epsilon m: linear kernels
        of more features than rows measure next to nothing.
    """
    return (normalised(a, epsilon) * normalised(b, epsilon).T).sum()


def coco(a: Tensor, b: Tensor) -> Tensor:
    """Constrained covariance: the largest covariance of f(x), g(y) over the unit balls of two kernels.

    sqrt(largest eigenvalue of A B) / m (Gretton et al., "Kernel Constrained Covariance for Dependence
    Measurement", AISTATS 2005). It is the maximum over u, v of u'ABv / (m sqrt(u'Au v'Bv)): with the
    maximisers held fixed the quotient has the value, and its gradient is the value's (envelope theorem),
    also where eigenvectors themselves have none.

    Args:
        a, b: centred kernels [m, m].

    Returns:
        Scalar from 0.
    """
    u, v = _maximisers(a.detach(), b.detach())
    tiny = torch.finfo(a.dtype).tiny
    unit = ((u @ a @ u).clamp(min=tiny) * (v @ b @ v).clamp(min=tiny)).clamp(min=tiny).sqrt()
    return (u @ a @ b @ v) / unit / len(a)


def distance_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Distance correlation of rows, dCov(a, b) / sqrt(dCov(a, a) dCov(b, b)), of a sample (Szekely, Rizzo and
    Bakirov, "Measuring and Testing Dependence by Correlation of Distances", Annals of Statistics, 2007).

    dCov(a, b)^2 is the mean over i, j of A_ij B_ij, of the centred matrices of Euclidean distances: the
    biased V-statistic, which grows towards 1 for independent rows of many features.

    Args:
        a: [m, d].
        b: [m, e].

    Returns:
        Float64 scalar in [0, 1]; 0, without a slope, where all rows of one side are equal. Rows that coincide
        have a distance without a slope; zero is taken for it.
    """
    of_a, of_b = _distances(a), _distances(b)
    tiny = torch.finfo(of_a.dtype).tiny
    spread = (of_a.square().mean() * of_b.square().mean()).clamp(min=tiny).sqrt()
    return ((of_a * of_b).mean() / spread).clamp(min=tiny).sqrt()


def _distances(a: Tensor) -> Tensor:
    """Centred Euclidean distances of rows [m, d], as float64 [m, m]."""
    wide = a if a.dtype == torch.float64 else a.float()
    # Differences first: what a Gram matrix cancels, close rows have none of.
    return centre(torch.cdist(wide, wide, compute_mode="donot_use_mm_for_euclid_dist").double())


def _maximisers(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """u = B v, and v the eigenvector of A B for its largest eigenvalue, through sqrt(A) B sqrt(A)."""
    values, vectors = torch.linalg.eigh(a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    v = root @ torch.linalg.eigh(root @ b @ root).eigenvectors[:, -1]
    v = v / v.norm().clamp(min=torch.finfo(a.dtype).tiny)
    return b @ v, v
