"""Bottlenecks at a cut: few channels, and a bounded range, before anything leaves the client.

Their names are those of ResSFL (Li et al., CVPR 2022) and CEM (Xia et al., CVPR 2025):
``[noRELU_][K<kernel>]C<channels>S<stride>``, such as ``noRELU_C8S1``. So is their order: convolutions, each
under a ReLU unless the name says noRELU, then a sigmoid. Behind a ReLU a sigmoid sees nothing negative, so
that features lie in [1/2, 1]; with noRELU they use all of [0, 1]. Released code ignores the kernel where a
stride is above 1; here it holds there, too.
"""

import math
import re
from dataclasses import dataclass

from torch import nn

from mipriv.draws import seeded
from mipriv.errors import InputError

GRAMMAR = "[noRELU_][K<odd kernel>]C<channels>S<stride, a power of two>, such as noRELU_C8S1"
_NAME = re.compile(
    r"(?P<linear>noRELU_)?(K(?P<kernel>[1-9][0-9]*))?C(?P<channels>[1-9][0-9]*)S(?P<stride>[1-9][0-9]*)"
)


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
        if stride & (stride - 1) or kernel % 2 == 0:
            raise InputError(f"bottleneck: {name!r}; allowed: {GRAMMAR}")
        return cls(channels, stride, kernel, found["linear"] is None)

    def build(self, feature_shape: tuple[int, ...], seed: int) -> Narrow:
        """Untrained ends for features [C, h, w].

        The client narrows in its first convolution, the server widens in its last, and a sigmoid ends the
        client.

        Raises:
            InputError: features that are no maps, or too small for the stride.
        """
        if len(feature_shape) != 3 or any(side % self.stride for side in feature_shape[1:]):
            allowed = f"[C, h, w] with sides that {self.stride} divides"
            raise InputError(f"bottleneck: features {list(feature_shape)} at the cut; allowed: {allowed}")
        inside, height, width = feature_shape
        with seeded(seed, "bottleneck"):
            down = [self._down(inside if i == 0 else self.channels) for i in range(self._depth)]
            up = [self._up(inside if i == self._depth - 1 else self.channels) for i in range(self._depth)]
        shape = (self.channels, height // self.stride, width // self.stride)
        client = nn.Sequential(*self._bent(down), nn.Sigmoid())
        return Narrow(client, nn.Sequential(*self._bent(up)), shape)

    @property
    def _depth(self) -> int:
        """Convolutions an end."""
        return max(1, int(math.log2(self.stride)))

    def _down(self, before: int) -> nn.Module:
        return nn.Conv2d(before, self.channels, self.kernel, min(self.stride, 2), self.kernel // 2)

    def _up(self, after: int) -> nn.Module:
        if self.stride == 1:
            return nn.Conv2d(self.channels, after, self.kernel, 1, self.kernel // 2)
        # Without the output's padding a side of 2 n would come back as 2 n - 1.
        return nn.ConvTranspose2d(self.channels, after, self.kernel, 2, self.kernel // 2, output_padding=1)

    def _bent(self, layers: list[nn.Module]) -> list[nn.Module]:
        return [part for layer in layers for part in ([layer, nn.ReLU()] if self.relu else [layer])]
