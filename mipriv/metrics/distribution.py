"""Between two sets of features, float64: the kernel of KID, and the Frechet distance of FID."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def polynomial_kernel(a: Array, b: Array) -> Array:
    """Kernel of KID, (x.y / d + 1)^3 (Binkowski et al., ICLR 2018, section 4).

    Args:
        a: [n, d] features.
        b: [m, d] features.

    Returns:
        [n, m] Gram matrix.
    """
    return np.asarray((a @ b.T / a.shape[1] + 1) ** 3, dtype=np.float64)


def moments(features: Array, counts: NDArray[np.int64]) -> tuple[Array, Array]:
    """Mean [d] and unbiased covariance [d, d] of rows [n, d] of which each occurs `counts` [n] times."""
    total = counts.sum()
    mean = counts @ features / total
    centred = features - mean
    return mean, (centred * counts[:, None]).T @ centred / (total - 1)


def frechet_distance(mean_a: Array, covariance_a: Array, mean_b: Array, covariance_b: Array) -> float:
    """Frechet distance of two Gaussians (Heusel et al., NeurIPS 2017, equation 6; Dowson and Landau 1982).

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)). S_a S_b has the eigenvalues of the symmetric
    S_a^(1/2) S_b S_a^(1/2), so that the root's trace needs no complex numbers.

    Args:
        mean_a: [d].
        covariance_a: [d, d], symmetric, positive semi-definite.
        mean_b: [d].
        covariance_b: [d, d], likewise.

    Returns:
        The squared distance, as FID is given; never negative.
    """
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ covariance_b @ root).clip(0)).sum()
    apart = np.square(mean_a - mean_b).sum()
    return max(0.0, float(apart + np.trace(covariance_a) + np.trace(covariance_b) - 2 * overlap))
