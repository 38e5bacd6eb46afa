"""Embeddings that know no label: judges of whether two images show one person.

Each module here is a plug-in whose `build` loads one published network. What is judged need not come from a
classifier's own training data, so an embedding can refuse what every classifier accepts.
"""

from typing import Protocol

from torch import Tensor, nn


class Embedder(nn.Module):
    """Images to points whose Euclidean distance is small where they show one person.

    Attributes:
        dim: d, coordinates of a point.
        threshold: the published distance below which two images are taken for one person.
    """

    dim: int
    threshold: float

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings [n, d] of images [n, C, H, W] in [0, 1], C = 1 or 3, of any size; differentiable.

        Raises:
            InputError: images of another shape.
        """
        raise TypeError(f"{type(self).__name__} defines no forward")


class Embedding(Protocol):
    """What a plug-in of this family offers."""

    def build(self) -> Embedder:
        """The published network on the CPU, in evaluation mode, its parameters without gradients.

        Raises:
            InputError: its weights are not installed, or are not those published.
        """
        ...
