"""Plug & Play Attacks (Struppek et al., ICML 2022): select, optimise under random views, select again."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from mipriv import draws
from mipriv.attacks.inversion import Access, Progress, Reconstructions
from mipriv.attacks.search import rows as engine
from mipriv.attacks.search.identity import poincare
from mipriv.attacks.search.rows import Rows
from mipriv.data.augment import Augment, mirrored
from mipriv.errors import InputError
from mipriv.models.generators import Generator


@dataclass(frozen=True)
class PPA:
    """The three stages of PPA in the latent space of any prior.

    Defaults are the published FaceScrub settings, with views stated as areas of the generated image.

    Attributes:
        samples: latents drawn once and scored for every identity.
        candidates: of them that are optimised, an identity.
        steps: of optimisation.
        lr: of Adam.
        betas: of Adam.
        view: random view of every row at every step.
        views: of them whose losses a step averages; more than one is the transform-averaged gradient of an
            adaptive attacker, at as many times the cost.
        keep: images an identity that the final selection leaves.
        final_views: random views that the final selection averages over.
        final_view: what they are.
        chunk: most rows in memory together.
    """

    samples: int = 2_000
    candidates: int = 200
    steps: int = 50
    lr: float = 0.005
    betas: tuple[float, float] = (0.1, 0.1)
    views: int = 1
    view: Augment = field(default_factory=lambda: Augment(flip=0.0, area=(0.9, 1.0)))
    keep: int = 50
    final_views: int = 100
    final_view: Augment = field(default_factory=lambda: Augment(flip=0.5, area=(0.5, 0.9), ratio=(0.8, 1.2)))
    chunk: int = 200

    access: ClassVar[Access] = "weights"

    def __post_init__(self) -> None:
        for few, many in (("candidates", "samples"), ("keep", "candidates")):
            if not 1 <= getattr(self, few) <= getattr(self, many):
                raise InputError(f"{few}: {getattr(self, few)}; allowed: 1 to {many} ({getattr(self, many)})")
        for name in ("steps", "views", "final_views", "chunk"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: 1 or more")

    def __call__(
        self,
        victim: nn.Module,
        prior: Generator,
        identities: Tensor,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Reconstructions:
        """See `Inversion`."""
        with engine.attacked(victim, prior):
            noise = draws.normal((self.samples, prior.noise_dim), seed, "pool").to(prior.like)
            pool = engine.in_chunks(prior.begin, noise, self.chunk)
            confidence = engine.in_chunks(lambda z: self._confidence(victim, prior(z)), pool, self.chunk)
            best = engine.keep_best(confidence.T[identities.to(pool.device)], self.candidates)
            start = pool[best.flatten()]
            rows = Rows.of(identities, self.candidates, seed)
            z = self._optimise(victim, prior, start, rows, progress)
            scores = self._final_scores(victim, prior, z, rows).view(len(identities), -1)
            order = engine.keep_best(scores, self.keep)
            chosen = engine.places_of(order, self.candidates)
            shape = (len(identities), self.keep)
            images = engine.in_chunks(prior, z[chosen], self.chunk)
            begun = engine.in_chunks(
                prior, start.view(*shape[:1], self.candidates, -1)[:, : self.keep].flatten(0, 1), self.chunk
            )
        queries = 2 * self.samples + len(z) * (self.steps * self.views + self.final_views)
        return Reconstructions(
            images.unflatten(0, shape),
            begun.unflatten(0, shape),
            z[chosen].unflatten(0, shape),
            scores.gather(1, order),
            queries,
        )

    def _confidence(self, victim: nn.Module, images: Tensor) -> Tensor:
        """Softmax of images and their mirror images, averaged: [n, K]."""
        plain, turned = victim(images).softmax(1), victim(mirrored(images)).softmax(1)
        mean: Tensor = (plain + turned) / 2
        return mean

    def _optimise(
        self, victim: nn.Module, prior: Generator, start: Tensor, rows: Rows, progress: Progress | None
    ) -> Tensor:
        labels = rows.identity.to(start.device)
        views = rows.uniform(self.steps, self.views, Augment.DRAWS, name="views")

        def objective(z: Tensor, chunk: Tensor, step: int) -> Tensor:
            images, targets = prior(z), labels[chunk.to(labels.device)]
            seen = [self.view(images, views[chunk, step, i]) for i in range(self.views)]
            return torch.stack([poincare(victim(view), targets) for view in seen]).mean(0)

        adam: Callable[[Tensor], torch.optim.Optimizer] = lambda z: torch.optim.Adam([z], self.lr, self.betas)  # noqa: E731
        return engine.descend(
            start, objective, adam, steps=self.steps, chunk=self.chunk, bound=prior.bound, progress=progress
        )

    def _final_scores(self, victim: nn.Module, prior: Generator, z: Tensor, rows: Rows) -> Tensor:
        """Confidence in the target averaged over harder random views: [r]."""
        views = rows.uniform(self.final_views, Augment.DRAWS, name="final views")
        scores = []
        for part in torch.arange(len(z)).split(self.chunk):
            with torch.no_grad():
                images, labels = prior(z[part]), rows.identity[part].to(z.device)
                seen = [
                    victim(self.final_view(images, views[part, i])).softmax(1)
                    for i in range(self.final_views)
                ]
                mean = torch.stack(seen).mean(0)
            scores.append(mean.gather(1, labels[:, None]).squeeze(1))
        return torch.cat(scores)
