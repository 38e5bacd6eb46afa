"""Generative Model Inversion (Zhang et al., "The Secret Revealer", CVPR 2020)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from mipriv.attacks.inversion import Access, Progress, Reconstructions
from mipriv.attacks.search import rows as engine
from mipriv.attacks.search.identity import cross_entropy
from mipriv.attacks.search.latents import PointSearch
from mipriv.models.generators import Generator


@dataclass(frozen=True)
class GMI:
    """Minimise -realism(G(z)) + weight * CE(victim(G(z)), y) over z, from random restarts (eq. 4).

    Defaults are the published constants. The update is Nesterov's momentum.

    Attributes:
        restarts: random starting points an identity; each is one reconstruction.
        steps: of optimisation.
        lr: learning rate.
        momentum: of Nesterov's method.
        identity_weight: of the cross-entropy.
        realism_weight: of the prior's realism (the critic of a GAN, the log density of a Gaussian).
        clip: latents are clamped to [-clip, clip].
        chunk: most rows in memory together.
    """

    restarts: int = 5
    steps: int = 1_500
    lr: float = 0.02
    momentum: float = 0.9
    identity_weight: float = 100.0
    realism_weight: float = 1.0
    clip: float = 1.0
    chunk: int = 300

    access: ClassVar[Access] = "weights"

    def __post_init__(self) -> None:
        self._search()

    def __call__(
        self,
        victim: nn.Module,
        prior: Generator,
        identities: Tensor,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Reconstructions:
        """See `Inversion`; images are ordered by the cross-entropy that they reached."""

        def objective(z: Tensor, images: Tensor, labels: Tensor) -> Tensor:
            identity = cross_entropy(victim(images), labels)
            return self.identity_weight * identity - self.realism_weight * prior.realism(z, images)

        def belief(images: Tensor, labels: Tensor) -> Tensor:
            return -cross_entropy(victim(images), labels)

        with engine.attacked(victim, prior):
            found = self._search()(prior, identities, objective, belief, seed=seed, progress=progress)
        queries = found.steps + found.scores.numel()
        return Reconstructions(found.images, found.start, found.latents, found.scores, queries)

    def _search(self) -> PointSearch:
        return PointSearch(self.restarts, self.steps, self.lr, self.momentum, self.clip, self.chunk)
