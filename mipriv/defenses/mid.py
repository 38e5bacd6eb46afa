"""MID (Wang et al., "Improving Robustness to Model Inversion Attacks via Mutual Information Regularization",
AAAI 2021): what the decision may know of the image is bounded by a variational bottleneck (Alemi et al.,
ICLR 2017).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mipriv.defenses import Batch, Defense
from mipriv.errors import InputError
from mipriv.models.classifiers import Classifier
from mipriv.models.freeze import Freeze
from mipriv.models.heads import VariationalHead, posterior
from mipriv.models.taps import Taps

ENCODED = "head.encode"


@dataclass
class MID(Defense):
    """CE + beta KL(N(mu, sigma^2) || N(0, 1)), the head replaced by a `VariationalHead`.

    Attributes:
        beta: weight of the KL, in nats a row; published: 0.003 to 0.03.
        dim: k, of the bottleneck; half the trunk's features unless stated.
        freeze: TL-DMI beside it, counted on the network with its new head.
    """

    beta: float = 0.01
    dim: int | None = None
    freeze: Freeze | None = None
    _taps: Taps | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise InputError(f"beta: {self.beta}; allowed: from 0")
        if self.dim is not None and self.dim < 1:
            raise InputError(f"dim: {self.dim}; allowed: from 1, or null for half the features")

    def prepare(self, model: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """Put the bottleneck in; see `Defense.prepare`."""
        if not isinstance(model, Classifier):
            raise InputError(f"mid: {type(model).__name__}; allowed: a classifier of a trunk and a head")
        weight, features = next(model.parameters()), model.head.in_features
        head = VariationalHead(features, self.dim or max(1, features // 2), model.num_classes)
        model.head = head.to(weight.device, weight.dtype)
        super().prepare(model, image_shape)
        self._taps = Taps(model, [ENCODED])

    def loss(self, batch: Batch, step: int) -> Tensor:
        """See the class and `Defense.loss`."""
        assert self._taps is not None, "prepare comes first"
        encoded = self._taps.take()[ENCODED].float()
        return super().loss(batch, step) + self.beta * divergence(*posterior(encoded)).mean()

    def finish(self, model: nn.Module) -> None:
        """Take the hook off; see `Defense.finish`."""
        if self._taps is not None:
            self._taps.remove()
            self._taps = None


def divergence(mu: Tensor, sigma: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)) in nats, summed over the k dimensions: [n, k] each to [n]."""
    variance = sigma.square()
    log_sigma = sigma.clamp(min=torch.finfo(sigma.dtype).tiny).log()  # the softplus can underflow
    return ((mu.square() + variance - 1) / 2 - log_sigma).sum(1)
