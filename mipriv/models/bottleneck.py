"""Bottlenecks at a cut: few channels, and a bounded range, before anything leaves the client.

Their names are those of ResSFL (Li et al., CVPR 2022) and CEM (Xia et al., CVPR 2025):
``[noRELU_][K<kernel>]C<channels>S<stride>``, such as ``noRELU_C8S1``.
"""

import math
import re
from dataclasses import dataclass

from torch import nn

from mipriv.draws import seeded
from mipriv.errors import InputError

GRAMMAR = "[noRELU_][K<odd kernel>]C<channels>S<stride, a power of two>, such as noRELU_C8S1"
_NAME = re.compile(r"(?P<linear>noRELU_)?(?:K(?P<kernel>[0-9]+))?C(?P<channels>[0-9]+)S(?P<stride>[0-9]+)")


@dataclass(frozen=True)
class Narrow:
    """Both ends of a bottleneck, and the shape of one image's features between them."""

    client: nn.Module
    server: nn.Module
    feature_shape: tuple[int, int, int]


@dataclass(frozen=True)
class Bottleneck:
    """One bottleneck.

    Attributes:
        channels: that leave the client.
        stride: by which each side shrinks, a power of two; every factor of two is a convolution of its own.
        kernel: side of the convolutions, odd.
        relu: a ReLU behind each convolution.
    """

    channels: int
    stride: int = 1
    kernel: int = 3
    relu: bool = True

    @classmethod
    def parse(cls, name: str) -> "Bottleneck":
        """Read a name.

        Raises:
            InputError: not of the grammar, or of a size that makes no bottleneck.
        """
        found = _NAME.fullmatch(name)
        if found is None:
            raise InputError(f"bottleneck: {name!r}; allowed: {GRAMMAR}")
        channels, stride, kernel = (int(found[part] or 3) for part in ("channels", "stride", "kernel"))
        if channels < 1 or stride < 1 or stride & (stride - 1) or kernel % 2 == 0:
            raise InputError(f"bottleneck: {name!r}; allowed: {GRAMMAR}")
        return cls(channels, stride, kernel, found["linear"] is None)

    def build(self, feature_shape: tuple[int, ...], seed: int) -> Narrow:
        """Untrained ends for features [C, h, w]; a sigmoid ends the client: features lie in [0, 1].

        Raises:
            InputError: features that are no maps, or too small for the stride.
        """
        if len(feature_shape) != 3 or any(side % self.stride for side in feature_shape[1:]):
            allowed = f"[C, h, w] with sides that {self.stride} divides"
            raise InputError(f"bottleneck: features {list(feature_shape)} at the cut; allowed: {allowed}")
        inside, height, width = feature_shape
        halvings = int(math.log2(self.stride))
        with seeded(seed, "bottleneck"):
            down = self._chain(nn.Conv2d, inside, self.channels, halvings)
            up = self._chain(nn.ConvTranspose2d, self.channels, inside, halvings)
        shape = (self.channels, height // self.stride, width // self.stride)
        return Narrow(nn.Sequential(*down, nn.Sigmoid()), nn.Sequential(*up), shape)

    def _chain(
        self, kind: type[nn.Conv2d] | type[nn.ConvTranspose2d], before: int, after: int, halvings: int
    ) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for i in range(max(1, halvings)):
            layer = kind(
                before if i == 0 else after, after, self.kernel, 2 if halvings else 1, self.kernel // 2
            )
            if isinstance(layer, nn.ConvTranspose2d) and halvings:
                layer.output_padding = (1, 1)  # otherwise a side of 2 n would come back as 2 n - 1
            layers.append(layer)
            if self.relu:
                layers.append(nn.ReLU())
        return layers
