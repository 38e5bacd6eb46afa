"""A victim that only answers: asked about latents, with the count of what it was asked."""

from collections.abc import Callable

from torch import Tensor

from mipriv.attacks.search import rows as engine
from mipriv.models.generators import Generator


class Asked:
    """Latents to a victim's answers, through a prior and in chunks.

    Attributes:
        queries: images that the victim has seen through this.
    """

    def __init__(self, victim: Callable[[Tensor], Tensor], prior: Generator, chunk: int) -> None:
        self.queries = 0
        self._victim, self._prior, self._chunk = victim, prior, chunk

    def __call__(self, z: Tensor) -> Tensor:
        """Answers [n, ...] to the images of latents [n, d], at least one."""
        self.queries += len(z)
        return engine.in_chunks(lambda part: self._victim(self._prior(part)), z, self._chunk)
