"""What happens to features between a client's network and what it sends."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mipriv.attacks.search.matching import Map
from mipriv.attacks.search.releases import Releases

PROBES = 16  # images that are released, and releases of each


@dataclass(frozen=True)
class Channel:
    """A release as z = factor f + e of features f: e has the mean 0.

    Attributes:
        factor: 1 where features are sent as they are.
        noise: variance of e, the mean over features and images; what dropout draws is a part of it.
    """

    factor: float
    noise: float

    @property
    def random(self) -> bool:
        """Whether releases of one image differ."""
        return self.noise > 0

    @property
    def exact(self) -> bool:
        """Whether features are sent as they are."""
        return self.factor == 1 and not self.random

    def through(self, network: Map) -> Map:
        """What is sent on average of images."""
        return network if self.factor == 1 else lambda x: self.factor * network(x)


@torch.no_grad()
def measured(asked: Releases, network: Map, images: Tensor) -> Channel:
    """The channel of a client, from releases of some images [n, C, H, W], of which it takes the first.

    Args:
        asked: the client as a whole.
        network: its network alone.
    """
    some = images[:PROBES].to(asked.targets)
    features = network(some)
    sent = [asked.once(some) for _ in range(2)]
    if torch.equal(sent[0], features) and torch.equal(sent[1], features):
        return Channel(1.0, 0.0)
    releases = torch.stack(sent + [asked.once(some) for _ in range(PROBES - 2)])
    factor = float((releases.mean(0) * features).sum() / features.square().sum())
    return Channel(factor, releases.var(0).mean().item())
