"""An upper confidence limit on what noisy features can tell, with cells and moments fitted on other rows.

A plug-in bound (`entropy_bound.information`) takes its moments from the rows that it judges, and errs
downwards. Here nothing is estimated but one mean. Fix, from a fitting split, any shares q_j, means m_j and
covariances S_j, and let r(z, j) = q_j N(z; m_j, S_j + sigma^2 I). Entropy is at most cross-entropy (Gibbs),
so that for cells c = c(x) of new inputs

    h(z) <= h(z, c) = E[-log p(z, c)] <= E[-log r(z, c)],

where h(z, c) is H(c) + h(z | c). Averaged over the noise in z = f(x) + e, with the entropy of that noise,
D/2 log(2 pi e sigma^2), subtracted, and U_j = S_j / sigma^2:

    I(x; z) <= E[s(x)],    s(x) = -log q_c + 1/2 [log det(I + U_c) - tr((I + U_c)^-1 U_c)
                                                  + (f(x) - m_c)' (I + U_c)^-1 (f(x) - m_c) / sigma^2]     (2)

which is, where U_c is diagonal with entries u_i,

    s(x) = -log q_c + 1/2 sum_i [log(1 + u_i) + ((f_i(x) - m_ci)^2 / sigma^2 - u_i) / (1 + u_i)].

Its terms are independent where the rows are: inputs drawn independently, one view of each, none of which took
part in fitting the network, the cells or the reference. With a poor reference the limit is loose, not wrong.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from scipy import special
from torch import Tensor

from mipriv.analysis.entropy_bound import Covariance, check_noise, check_rows, members
from mipriv.errors import InputError

Method = Literal["student", "bernstein"]


@dataclass(frozen=True)
class Reference:
    """The fixed mixture that new features are compared with, in float64.

    Attributes:
        log_shares: [J], finite.
        means: [J, D].
        moments: `isotropic`: [J, 1]; `diagonal`: [J, D]; `full`: [J, D, D].
        covariance: which of them.
    """

    log_shares: Tensor
    means: Tensor
    moments: Tensor
    covariance: Covariance

    @classmethod
    def fit(
        cls, features: Tensor, cells: Tensor, num_cells: int, covariance: Covariance = "diagonal"
    ) -> "Reference":
        """Of the fitting split; one serves every noise. What it chooses makes (2) tight, not valid.

        Shares are (n_j + 1) / (n + J), so that a cell never seen has one. Variances are those within the
        cell plus 2 w / n_j, w the variance within cells over all of them: a new row's about the mean of n_j.
        `full` mixes covariances with the diagonal matrix of these, n_j to D. A cell never seen has the
        moments of all rows.

        Args:
            features: [n, D], without noise.
            cells: [n] int64.
            num_cells: J.
            covariance: the form of S_j.

        Raises:
            InputError: shapes or cells that do not fit, or features that are not finite.
        """
        check_rows(features, cells, num_cells)
        if covariance not in get_args(Covariance):
            allowed = ", ".join(get_args(Covariance))
            raise InputError(f"entropy limit: covariance {covariance!r}; allowed: {allowed}")
        rows = features.detach().double()
        n, dim = rows.shape
        counts = torch.bincount(cells, minlength=num_cells)
        overall = rows.var(0, correction=0)
        means = rows.mean(0).repeat(num_cells, 1)
        variances = overall.repeat(num_cells, 1)
        seen = list(members(cells, num_cells))
        for cell, own in seen:
            means[cell] = rows[own].mean(0)
            variances[cell] = rows[own].var(0, correction=0)
        spare = n - len(seen)
        occupied = counts > 0
        within = (counts[:, None] * variances)[occupied].sum(0) / spare if spare else overall
        variances[occupied] += 2 * within / counts[occupied, None]
        moments = variances
        if covariance == "isotropic":
            moments = variances.mean(1, keepdim=True)
        if covariance == "full":
            moments = torch.diag_embed(variances)
            for cell, own in seen:
                centred = rows[own] - means[cell]
                moments[cell] = (centred.T @ centred + dim * moments[cell]) / (len(own) + dim)
        log_shares = ((counts + 1).double() / (n + num_cells)).log()
        return cls(log_shares, means, moments, covariance)

    def terms(self, features: Tensor, cells: Tensor, noise_variance: float) -> Tensor:
        """s(x) of (2) for features [n, D] in cells [n]: float64 [n], in nats."""
        found = torch.empty(len(features), dtype=torch.float64, device=features.device)
        for cell, own in members(cells, len(self.means)):
            offsets = features[own].double() - self.means[cell]
            constant, quadratic = self._parts(cell, offsets, noise_variance)
            found[own] = constant + quadratic / 2
        return found

    def unit_range(self, noise_variance: float) -> tuple[float, float]:
        """Between which (2) lies for any features in [0, 1]^D, in any cell."""
        low, high = math.inf, -math.inf
        for cell, mean in enumerate(self.means):
            nearest, farthest = mean - mean.clamp(0, 1), torch.maximum(mean, 1 - mean)
            if self.covariance == "full":
                # No direction weighs more than that of the least variance.
                constant, _ = self._parts(cell, farthest[None], noise_variance)
                least = noise_variance + float(torch.linalg.eigvalsh(self.moments[cell])[0].clamp(min=0))
                ends = torch.stack([torch.zeros_like(farthest[0]), farthest.square().sum() / least])
            else:
                constant, ends = self._parts(cell, torch.stack([nearest, farthest]), noise_variance)
            low = min(low, float(constant + ends[0] / 2))
            high = max(high, float(constant + ends[1] / 2))
        return low, high

    def _parts(self, cell: int, offsets: Tensor, noise_variance: float) -> tuple[Tensor, Tensor]:
        """(2) for f(x) - m_c [n, D] in one cell: what all share, scalar, and the quadratic form [n]."""
        dim = offsets.shape[1]
        if self.covariance == "full":
            identity = torch.eye(dim, dtype=offsets.dtype, device=offsets.device)
            root = torch.linalg.cholesky(identity + self.moments[cell] / noise_variance)
            inverse = torch.linalg.solve_triangular(root, identity, upper=False)
            volume = 2 * root.diagonal().log().sum()
            shrunk = dim - inverse.square().sum()  # tr((I + U)^-1 U) = D - tr((I + U)^-1)
            quadratic = (offsets @ inverse.T).square().sum(1) / noise_variance
        else:
            ratio = (self.moments[cell] / noise_variance).expand(dim)
            volume = torch.log1p(ratio).sum()
            shrunk = (ratio / (1 + ratio)).sum()
            quadratic = (offsets.square() / (1 + ratio)).sum(1) / noise_variance
        return -self.log_shares[cell] + (volume - shrunk) / 2, quadratic


@dataclass(frozen=True)
class UpperLimit:
    """What I(x; z) is below, with confidence.

    Attributes:
        nats: the point, the mean of (2): it estimates a bound without bias.
        upper: above E[s(x)], and so above I(x; z), with probability `level`.
        method: `student`: for large n; `bernstein`: for every law and n.
        n: independent rows.
        level: one-sided.
    """

    nats: float
    upper: float
    method: Method
    n: int
    level: float


def held_out(
    features: Tensor,
    cells: Tensor,
    reference: Reference,
    noise_variance: float,
    level: float = 0.95,
    method: Method = "student",
) -> UpperLimit:
    """An upper confidence limit on I(x; z) from rows that the reference has not seen.

    `student` is the quantile of t, raised where the terms lean to the right, as sums of squares do: there the
    plain one covers too seldom (0.925 for 0.95 at n = 300 and a skewness of 3.1; raised, 0.945).

    `bernstein` is Maurer and Pontil's empirical bound (COLT 2009, theorem 4) for features in [0, 1], as a
    sigmoid leaves them: with R the range of (2), V the sample variance of its terms and p = 1 - level,
    mean + sqrt(2 V log(2 / p) / n) + 7 R log(2 / p) / (3 (n - 1)).

    Args:
        features: [n, D], without noise.
        cells: [n] int64, as the reference numbers them.
        reference: fitted on other rows.
        noise_variance: sigma^2.
        level: probability with which the limit holds, over draws of the rows.
        method: `student` or `bernstein`.

    Raises:
        NoBound: no noise.
        InputError: rows that do not fit the reference, fewer than 2 of them, a level outside (0, 1), or
            features outside [0, 1] for `bernstein`.
    """
    check_noise(noise_variance)
    check_rows(features, cells, len(reference.means))
    n, dim = features.shape
    if n < 2 or dim != reference.means.shape[1]:
        allowed = f"[n >= 2, {reference.means.shape[1]}]"
        raise InputError(f"entropy limit: features {list(features.shape)}; allowed: {allowed}")
    if not 0 < level < 1:
        raise InputError(f"entropy limit: level {level}; allowed: between 0 and 1")
    terms = reference.terms(features.detach(), cells, noise_variance)
    mean, variance = float(terms.mean()), float(terms.var())
    if method == "student":
        reach = _student(terms, level) * math.sqrt(variance / n)
    elif method == "bernstein":
        if features.min() < 0 or features.max() > 1:
            found = f"features from {float(features.min())} to {float(features.max())}"
            raise InputError(f"entropy limit: {found}; allowed for bernstein: 0 to 1")
        low, high = reference.unit_range(noise_variance)
        chance = math.log(2 / (1 - level))
        reach = math.sqrt(2 * variance * chance / n) + 7 * (high - low) * chance / (3 * (n - 1))
    else:
        raise InputError(f"entropy limit: method {method!r}; allowed: {', '.join(get_args(Method))}")
    return UpperLimit(mean, mean + reach, method, n, level)


def _student(terms: Tensor, level: float) -> float:
    """Standard errors from the mean to its upper limit: t + g (2 t^2 + 1) / (6 sqrt(n)), t the quantile.

    The second is Edgeworth's term for the skewness g of the terms (Hall, "The Bootstrap and Edgeworth
    Expansion", 1992, section 3.10; Johnson, JASA 1978). It is left out where it would lower the limit.
    """
    n = len(terms)
    quantile = float(special.stdtrit(n - 1, level))
    offsets = terms - terms.mean()
    spread = float(offsets.square().mean()) ** 1.5
    skewness = float(offsets.pow(3).mean()) / spread if spread else 0.0
    return quantile + max(0.0, skewness) * (2 * quantile**2 + 1) / (6 * math.sqrt(n))
