"""What a bound on information says of reconstructions: the least mean squared error that any attack has.

Xia et al. (CVPR 2025, "Theoretical Insights in Model Inversion Robustness and Conditional Entropy
Maximization for Collaborative Inference Systems"): of all laws with one squared error the Gaussian has the
most entropy, so that E |x - x^(z)|^2 / d >= exp(2 h(x | z) / d) / (2 pi e), and h(x | z) = h(x) - I(x; z).

The error is an average over x: nothing is said of one image. It is reached only where x given z is
Gaussian, alike in all directions and for every z.
"""

import math

from mipriv.errors import InputError


def factor(information: float, dim: int) -> float:
    """exp(-2 I / d): by how much `information` in nats lowers the least error of inputs of `dim` dimensions.

    Information is never below 0, and an estimate of it that is counts as 0.

    Raises:
        InputError: information that is no finite number, or no dimensions.
    """
    if not math.isfinite(information) or dim < 1:
        raise InputError(f"error bound: {information} nats in {dim} dimensions; allowed: finite, and from 1")
    return math.exp(-2 * max(0.0, information) / dim)


def mse_bound(entropy: float, information: float, dim: int) -> float:
    """exp(2 (h(x) - I) / d) / (2 pi e): the least mean squared error a dimension, of any attack.

    It holds for the true h(x) or a lower bound on it; likelihood models bound it from above, which is of no
    use here. Images' entropy is so low that for pixels the figure says next to nothing.

    Args:
        entropy: h(x) in nats; minus infinity where x is discrete, as 8-bit pixels are: a bound of 0.
        information: an upper bound on I(x; z) in nats.
        dim: d.

    Raises:
        InputError: as `factor`, or an entropy that is no number.
    """
    if math.isnan(entropy) or entropy == math.inf:
        raise InputError(f"error bound: an entropy of {entropy} nats; allowed: below infinity")
    return factor(information, dim) * math.exp(2 * entropy / dim) / (2 * math.pi * math.e)


def subspace_bound(entropy: float, information: float, rank: int, dim: int) -> float:
    """(k / d) exp(2 (h(P x) - I) / k) / (2 pi e): the least error again, from any k orthonormal rows P.

    An attack on x is one on P x of no larger squared error, and z tells no more of P x than of x. Each P is a
    bound by itself, so that the best may be taken: say, over the leading principal directions.

    Args:
        entropy: h(P x) in nats.
        information: an upper bound on I(x; z) in nats.
        rank: k.
        dim: d.

    Raises:
        InputError: as `mse_bound`, or k not from 1 to d.
    """
    if not 1 <= rank <= dim:
        raise InputError(f"error bound: a subspace of rank {rank}; allowed: 1 to {dim}")
    return rank / dim * mse_bound(entropy, information, rank)


def repeated(information: float, queries: int) -> float:
    """Of `queries` sendings of the same input, each with fresh noise: I(x; z_1 .. z_r) <= r I(x; z).

    Given x the z_i are independent, and the joint entropy is at most the sum of theirs. Their mean tells all
    that they tell, so that (1) at sigma^2 / r is a bound too, and a lower one.

    Raises:
        InputError: not a number of queries.
    """
    if queries < 1:
        raise InputError(f"error bound: {queries} queries; allowed: from 1")
    return queries * information
