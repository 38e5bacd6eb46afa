"""MIRROR's black-box attack (An et al., NDSS 2022): a genetic search by confidence scores."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mipriv import draws
from mipriv.attacks.inversion import Access, Progress, Query, Reconstructions
from mipriv.attacks.search import rows as engine
from mipriv.attacks.search.asked import Asked
from mipriv.attacks.search.latents import at_least_one
from mipriv.attacks.search.rows import Rows
from mipriv.errors import InputError
from mipriv.models.generators import Generator


@dataclass(frozen=True)
class MIRROR:
    """Breed latents for the victim's confidence in an identity, all identities in one batch.

    The first population is what the victim believes most of one pool, scored once for all identities.
    Fitness is the plain confidence p_y of the image. Parents are drawn by the softmax of log p_y, so in
    proportion to p_y; of two of them a child takes each coordinate from the first with probability
    p_1 / (p_1 + p_2). (The released code shares by logarithms, which prefers the worse parent.) Mutation adds
    Gaussian noise, in units of the pool's standard deviation, to coordinates drawn one by one.

    Defaults are the published constants. The kept images are of one population, and so alike.

    Attributes:
        samples: latents of the pool.
        population: latents of an identity.
        elites: best of a population that live on unchanged.
        steps: generations.
        mutation: probability that a coordinate of a child mutates.
        strength: of the mutation, in standard deviations of the pool's coordinate.
        stop: confidence at which an identity ends, and asks no more.
        keep: best of the last population that are reconstructions.
        chunk: most images in memory together.
    """

    samples: int = 100_000
    population: int = 1_000
    elites: int = 1
    steps: int = 100
    mutation: float = 0.1
    strength: float = 0.1
    stop: float = 0.95
    keep: int = 1
    chunk: int = 320

    access: ClassVar[Access] = "scores"

    def __post_init__(self) -> None:
        at_least_one(self, "steps", "chunk")
        for few, many in (("population", "samples"), ("keep", "population"), ("elites", "population")):
            if not 1 <= getattr(self, few) <= getattr(self, many):
                raise InputError(f"{few}: {getattr(self, few)}; allowed: 1 to {many} ({getattr(self, many)})")
        if self.elites == self.population:
            raise InputError(f"elites: {self.elites}; allowed: fewer than the population")
        for name in ("mutation", "stop"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: 0 to 1")
        if self.strength < 0:
            raise InputError(f"strength: {self.strength}; allowed: 0 or more")

    def __call__(
        self,
        victim: Query,
        prior: Generator,
        identities: Tensor,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Reconstructions:
        """See `Inversion`; start is the best of the first population."""
        columns = identities.to(prior.like.device)
        with engine.attacked(prior):
            ask = Asked(lambda images: victim(images)[:, columns], prior, self.chunk)
            noise = draws.normal((self.samples, prior.noise_dim), seed, "pool").to(prior.like)
            pool = engine.in_chunks(prior.begin, noise, self.chunk)
            confidence = ask(pool).T
            best = engine.keep_best(confidence, self.population)
            first = pool[best]
            z, scores = self._evolve(
                ask,
                prior,
                Rows.of(identities, 1, seed),
                first,
                confidence.gather(1, best),
                pool.std(0),
                progress,
            )
            shape, latents = (len(z), self.keep), z[:, : self.keep]
            images = engine.in_chunks(prior, latents.flatten(0, 1), self.chunk)
            begun = engine.in_chunks(prior, first[:, : self.keep].flatten(0, 1), self.chunk)
        return Reconstructions(
            images.unflatten(0, shape),
            begun.unflatten(0, shape),
            latents,
            scores[:, : self.keep],
            ask.queries,
        )

    def _evolve(
        self,
        ask: Asked,
        prior: Generator,
        rows: Rows,
        z: Tensor,
        fitness: Tensor,
        spread: Tensor,
        progress: Progress | None,
    ) -> tuple[Tensor, Tensor]:
        """Last populations [n, P, d] and their confidences [n, P], best first."""
        z, total = z.clone(), len(z) * self.steps
        for step in range(self.steps):
            here = (fitness[:, 0] < self.stop).nonzero().squeeze(1)
            if not len(here):
                break
            born = prior.bound(self._breed(rows.at(here), z[here], fitness[here], spread, step).flatten(0, 1))
            answers = ask(born).unflatten(0, (len(here), -1))
            theirs = answers.gather(2, here[:, None, None].expand(-1, answers.shape[1], 1)).squeeze(2)
            both = torch.cat([z[here, : self.elites], born.unflatten(0, theirs.shape)], 1)
            fit = torch.cat([fitness[here, : self.elites], theirs], 1)
            order = engine.keep_best(fit, self.population)
            z[here], fitness[here] = _pick(both, order), fit.gather(1, order)
            if progress:
                progress(total - len(here) * (self.steps - step - 1), total)
        return z, fitness

    def _breed(self, rows: Rows, z: Tensor, fitness: Tensor, spread: Tensor, step: int) -> Tensor:
        """Children [a, C, d] of populations [a, P, d] with confidences [a, P]."""
        count, d = self.population - self.elites, z.shape[2]
        weight = fitness.clamp(min=torch.finfo(fitness.dtype).tiny)
        ladder = weight.cumsum(1) / weight.sum(1, keepdim=True)
        u = rows.uniform(2 * count, name="parents", step=step).to(fitness)
        parents = torch.searchsorted(ladder, u, right=True).clamp(max=self.population - 1)
        (one, two), (p, q) = _pick(z, parents).chunk(2, 1), weight.gather(1, parents).chunk(2, 1)
        crossed = rows.uniform(count, d, name="crossover", step=step).to(z) < (p / (p + q))[:, :, None]
        mutated = rows.uniform(count, d, name="mutated", step=step).to(z) < self.mutation
        noise = rows.normal(count, d, name="mutation", step=step).to(z)
        return torch.where(crossed, one, two) + mutated * self.strength * spread * noise


def _pick(z: Tensor, places: Tensor) -> Tensor:
    """Latents [a, k, d] at places [a, k] of [a, P, d]."""
    return z.gather(1, places[:, :, None].expand(-1, -1, z.shape[2]))
