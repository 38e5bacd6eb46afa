"""The variational information bottleneck (Alemi et al., "Deep Variational Information Bottleneck", ICLR 2017)
with noise of fixed strength, on what leaves the client.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mipriv.defenses import Batch, Defense
from mipriv.errors import InputError
from mipriv.models.split_classifier import required


@dataclass
class InfoBottleneck(Defense):
    """CE + weight KL(N(f(x), sigma^2 I) || r), the mean over images, in nats.

    r = N(m, diag(s^2)) is a learnt marginal. For every r the mean KL bounds I(x; z) from above; the best r
    has the moments of z, and leaves 1/2 sum_i log(1 + Var f_i / sigma^2). That is L_C of CEM (Xia et al.,
    CVPR 2025) with one cell, no classes and a diagonal covariance: there of batch moments and over D, here
    of an r that is learnt beside the client. It is an estimate on training batches, never a certificate.

    A batch takes r one step of Adam towards its own clean features, then the client bears the KL to the r
    that results, which is held fixed.

    Attributes:
        sigma: of the noise on what is sent, above 0.
        weight: of the KL. It sums over all D features: what suits a cut grows as 1 / D.
        lr: of r.
    """

    sigma: float = field()  # without it the base class's zero would be its default
    weight: float = 1e-3
    lr: float = 1e-2
    _mean: Tensor | None = field(init=False, repr=False, default=None)
    _log_variance: Tensor | None = field(init=False, repr=False, default=None)
    _adam: torch.optim.Adam | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        for name in ("sigma", "lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: above 0")
        if not 0 <= self.weight < math.inf:
            raise InputError(f"weight: {self.weight}; allowed: from 0")

    def prepare(self, model: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """See `Defense.prepare`."""
        required(model, "info_bottleneck")
        super().prepare(model, image_shape)
        self._mean = self._log_variance = self._adam = None

    def loss(self, batch: Batch, step: int) -> Tensor:
        """See the class and `Defense.loss`."""
        plain = super().loss(batch, step)
        if self.weight == 0:
            return plain
        assert batch.features is not None, "prepare has seen a split classifier"
        features = batch.features.flatten(1)
        mean, variance = self._learn(features.detach())
        return plain + self.weight * divergence(features, self.sigma, mean, variance).mean()

    def state(self) -> dict[str, Any]:
        """`marginal_mean` and `marginal_variance` [D], once a batch has been seen."""
        if self._mean is None or self._log_variance is None:
            return {}
        return {"marginal_mean": self._mean.detach(), "marginal_variance": self._log_variance.detach().exp()}

    def _learn(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance [D] of r, after one step on features [n, D]; at first, of their own moments."""
        if self._mean is None or self._log_variance is None or self._adam is None:
            variance = features.var(0, correction=0) + self.sigma**2
            self._mean = features.mean(0).requires_grad_()
            self._log_variance = variance.log().requires_grad_()
            self._adam = torch.optim.Adam([self._mean, self._log_variance], self.lr)
        self._adam.zero_grad(set_to_none=True)
        divergence(features, self.sigma, self._mean, self._log_variance.exp()).mean().backward()
        self._adam.step()
        return self._mean.detach(), self._log_variance.detach().exp()


def divergence(features: Tensor, sigma: float, mean: Tensor, variance: Tensor) -> Tensor:
    """KL(N(f, sigma^2 I) || N(mean, diag(variance))) in nats of features [n, D] and moments [D]: [n]."""
    ratio = (sigma**2 + (features - mean).square()) / variance
    return (ratio - 1 + variance.log() - 2 * math.log(sigma)).sum(1) / 2
