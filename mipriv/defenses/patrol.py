"""PATROL (Ding et al., "PATROL: Privacy-Oriented Pruning for Collaborative Inference Against Model Inversion
Attacks", WACV 2024): a deeper client, pruned to the cost of a shallower one, with Lipschitz regularisation
and adversarial reconstruction.

These four parts are what its abstract names. The form of each is ours, and said below: no formula or figure
of the paper was at hand. What the released code of CEM calls PATROL has an extra convolution and 5% of Taylor
pruning alone, the scores taken on random noise instead of images.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mipriv import draws
from mipriv.defenses import Batch, Defense
from mipriv.errors import InputError
from mipriv.models import filters, spectral
from mipriv.models.filters import Layer
from mipriv.models.opponent import Opposed
from mipriv.models.split_classifier import required

ITERATIONS = 2  # of the power method a step; singular vectors are kept from step to step


@dataclass
class Patrol(Opposed, Defense):
    """CE + lipschitz 1/2 sum_l |A_l|^2 + weight max(0, s - floor), on a client that grows, then is pruned.

    A_l is the client's l-th convolution with the normalisation behind it, |A_l| its spectral norm: a client
    that stretches no difference makes images hard to tell apart by what it sends. Running variances are taken
    as they are. s is how well an opponent does, see `Opposed`.

    The worth of every filter of the client (`filters.worth`, of the cross-entropy alone) is summed over the
    training batches of epoch `prune_epoch`. When it ends, the least worthy are silenced: convolution and
    normalisation are zeroed again after every step, whatever the optimiser's momentum did. Masks are buffers
    beside the weights. Where an epoch before that one is selected, the client is as it was then, unpruned.

    Attributes:
        extra: convolutions of 3 x 3 that the client gets, each with batch normalisation; behind the last is a
            sigmoid, so that features lie in [0, 1] as behind a bottleneck.
        prune: share of the client's filters that goes, rounded up; 0.05 in the released code of CEM.
        prune_epoch: from 0; 180 of 240 in the released code of CEM.
        lipschitz: weight of the spectral norms; ours.
        sigma: standard deviation of the noise on what is sent.
    """

    extra: int = 1
    prune: float = 0.05
    prune_epoch: int = 180
    lipschitz: float = 1e-3
    sigma: float = 0.0
    _layers: list[Layer] = field(init=False, repr=False, default_factory=list)
    _vectors: list[Tensor] = field(init=False, repr=False, default_factory=list)
    _worths: list[Tensor] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("extra", "prune_epoch"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: from 0")
        if not 0 <= self.prune < 1:
            raise InputError(f"prune: {self.prune}; allowed: from 0, below 1")
        for name in ("lipschitz", "sigma"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: from 0")

    def prepare(self, model: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """Lengthen the client; see `Defense.prepare`.

        Raises:
            InputError: also for features that are no maps, or a client without a convolution.
        """
        parties = required(model, "patrol")
        if self.extra:
            parties.client = nn.Sequential(parties.client, _more(parties.feature_shape, self.extra, parties))
        self._layers = filters.layers(parties.client, image_shape)
        if not self._layers:
            raise InputError("patrol: the client has no convolution; allowed: one or more")
        for layer in self._layers:
            if layer.norm is not None and not layer.norm.affine:
                what = f"{layer.name!r} is normalised without weights"
                raise InputError(f"patrol: {what}; allowed: batch normalisation with weights, or none")
        super().prepare(model, image_shape)
        filters.mark(self._layers)
        self._worths = []
        self.meet()
        self._vectors = []
        for i, layer in enumerate(self._layers):
            vector = draws.normal((1, *layer.input_shape), self._key, "lipschitz", i)
            self._vectors.append((vector / vector.norm()).to(layer.conv.weight))

    def loss(self, batch: Batch, step: int) -> Tensor:
        """See the class and `Defense.loss`."""
        assert batch.sent is not None, "prepare has seen a split classifier"
        if self.prune and batch.epochs <= self.prune_epoch:
            allowed = f"below {batch.epochs}, the epochs"
            raise InputError(f"prune_epoch: {self.prune_epoch}; allowed: {allowed}")
        plain = super().loss(batch, step)
        if self.prune and batch.epoch == self.prune_epoch:
            self._judge(plain)
        total = plain + self.resist(batch.images, batch.sent, batch.epoch, batch.epochs)
        return total + self.lipschitz / 2 * self._squared_norms() if self.lipschitz else total

    def after_step(self, model: nn.Module, step: int) -> None:
        """See `Defense.after_step`."""
        super().after_step(model, step)
        filters.silence(self._layers)

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        """Prune, once; see `Defense.after_epoch`."""
        super().after_epoch(model, epoch)
        if not self._worths:
            return
        count = math.ceil(self.prune * sum(len(those) for those in self._worths))
        for layer, gone in zip(self._layers, filters.least(self._worths, count), strict=True):
            layer.kept()[gone.to(layer.kept().device)] = 0
        self._worths = []
        filters.silence(self._layers)

    def finish(self, model: nn.Module) -> None:
        """See `Defense.finish`."""
        super().finish(model)
        self.dismiss()

    def state(self) -> dict[str, Any]:
        """`filters` of the client, and how many of them are `kept`."""
        kept = [layer.kept() for layer in self._layers]
        return {"filters": sum(len(those) for those in kept), "kept": sum(int(those.sum()) for those in kept)}

    def _judge(self, plain: Tensor) -> None:
        """Add the batch's worth of every filter."""
        gates = [layer.gate() for layer in self._layers]
        slopes = iter(torch.autograd.grad(plain, [p for gate in gates for p in gate], retain_graph=True))
        found = [
            filters.worth(layer, [next(slopes) for _ in gate])
            for layer, gate in zip(self._layers, gates, strict=True)
        ]
        before = self._worths or [torch.zeros_like(those) for those in found]
        self._worths = [one + other for one, other in zip(before, found, strict=True)]

    def _squared_norms(self) -> Tensor:
        total = torch.zeros((), device=self._vectors[0].device)
        for i, layer in enumerate(self._layers):
            squared, vector = spectral.squared_norm(layer.conv, layer.scale(), self._vectors[i], ITERATIONS)
            self._vectors[i] = vector
            total = total + squared
        return total


def _more(feature_shape: tuple[int, ...], count: int, like: nn.Module) -> nn.Module:
    """Untrained convolutions that keep the shape of features [C, h, w]."""
    if len(feature_shape) != 3:
        raise InputError(f"patrol: features {list(feature_shape)} at the cut; allowed: [C, h, w]")
    channels = feature_shape[0]
    made: list[nn.Module] = []
    for i in range(count):
        conv = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        made += [conv, nn.BatchNorm2d(channels), nn.ReLU() if i < count - 1 else nn.Sigmoid()]
    weight = next(like.parameters())
    return nn.Sequential(*made).to(weight.device, weight.dtype)
