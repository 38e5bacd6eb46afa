"""What decides at the end of a classifier: [n, d] features to [n, K] logits.

A head is named by one word, `linear` or `variational:k`, which is all that building it again needs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv.errors import InputError

SPREAD = 5.0  # subtracted before the softplus: sigma starts near e^-5, almost deterministic


class VariationalHead(nn.Module):
    """A variational information bottleneck before the decision (Alemi et al., ICLR 2017, section 3).

    (mu, s) = W h, sigma = softplus(s - 5), logits = V (mu + sigma e) + b with e ~ N(0, 1), in training from
    torch's global generator as dropout's noise is; in evaluation the mean decides, and a row's logits
    depend on that row alone.

    Args:
        in_features: d.
        dim: k, of the bottleneck.
        out_features: K.
    """

    def __init__(self, in_features: int, dim: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.dim, self.out_features = in_features, dim, out_features
        self.encode = nn.Linear(in_features, 2 * dim)
        self.decide = nn.Linear(dim, out_features)

    def forward(self, h: Tensor) -> Tensor:
        """[n, d] to [n, K]."""
        mu, sigma = posterior(self.encode(h))
        logits: Tensor = self.decide(mu + sigma * torch.randn_like(sigma) if self.training else mu)
        return logits


def posterior(encoded: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, [n, k] each, from W h [n, 2k]."""
    mu, s = encoded.chunk(2, dim=1)
    return mu, F.softplus(s - SPREAD)


Head = nn.Linear | VariationalHead


def name(head: Head) -> str:
    """The word that `make` builds an equal head from."""
    return f"variational:{head.dim}" if isinstance(head, VariationalHead) else "linear"


def make(name: str, in_features: int, out_features: int) -> Head:
    """An untrained head, initialised from torch's global generator.

    Raises:
        InputError: no such head.
    """
    if name == "linear":
        return nn.Linear(in_features, out_features)
    kind, _, dim = name.partition(":")
    if kind != "variational" or not dim.isdecimal() or int(dim) < 1:
        raise InputError(f"head: {name!r}; allowed: linear, variational:k with k from 1")
    return VariationalHead(in_features, int(dim), out_features)
