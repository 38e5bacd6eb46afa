"""Boundary-Repelling Model Inversion (Kahla et al., CVPR 2022): from hard labels alone."""

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

BLOCK = 256  # latents that are tried together for a start; the published batch


@dataclass(frozen=True)
class BREPMI:
    """Move away from the points of a sphere that the victim calls somebody else; grow the sphere.

    A row begins at a random latent that the victim already calls its identity. Each iteration asks about
    `points` points z + R u on a sphere, u uniform of length 1, and moves by min(R / 3, largest_step) along
    the mean over all points of -u where the label differs and 0 where it does not (repulsion alone). A move
    that leaves the class is taken back. With more than `inside` of the points in the class, R grows by
    `growth`, whether or not the row moves.

    An identity that `start_samples` latents never met is not attacked: its row reports a random latent with
    score 0. Scores are final radii, the paper's own measure of how deep in its class an image lies.

    Defaults are the published constants, but for `steps` and `start_samples`: the paper sets no limit.

    Attributes:
        restarts: latents of the class that an identity begins from; each is one reconstruction.
        start_samples: most latents that are tried for starts, in batches which all identities share.
        points: on a sphere.
        radius: of the first sphere.
        growth: factor of the radius.
        inside: share of points in the class above which the sphere grows.
        largest_step: of a move, before the mean's own length.
        clip: latents are clamped to [-clip, clip]; a sphere wider than that box ends its row.
        patience: iterations without growth after which a row ends, and asks no more.
        steps: most iterations.
        chunk: most images in memory together.
    """

    restarts: int = 1
    start_samples: int = 100_000
    points: int = 32
    radius: float = 2.0
    growth: float = 1.3
    inside: float = 0.75
    largest_step: float = 3.0
    clip: float = 1.5
    patience: int = 1_000
    steps: int = 20_000
    chunk: int = 320

    access: ClassVar[Access] = "labels"

    def __post_init__(self) -> None:
        at_least_one(self, "restarts", "start_samples", "points", "patience", "steps", "chunk")
        for name in ("radius", "largest_step", "clip"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: above 0")
        if self.growth <= 1:
            raise InputError(f"growth: {self.growth}; allowed: above 1")
        if not 0 <= self.inside < 1:
            raise InputError(f"inside: {self.inside}; allowed: 0 to below 1")

    def __call__(
        self,
        victim: Query,
        prior: Generator,
        identities: Tensor,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Reconstructions:
        """See `Inversion`."""
        with engine.attacked(prior):
            ask, rows = Asked(victim, prior, self.chunk), Rows.of(identities, self.restarts, seed)
            start, met = self._starts(ask, prior, rows)
            z, radius = self._walk(ask, prior, rows, start, met, progress)
            scores = torch.where(met, radius, 0).view(len(identities), -1)
            order = engine.keep_best(scores, self.restarts)
            place, shape = engine.places_of(order, self.restarts), order.shape
            images, begun = (engine.in_chunks(prior, of[place], self.chunk) for of in (z, start))
        return Reconstructions(
            images.unflatten(0, shape),
            begun.unflatten(0, shape),
            z[place].unflatten(0, shape),
            scores.gather(1, order),
            ask.queries,
        )

    def _starts(self, ask: Asked, prior: Generator, rows: Rows) -> tuple[Tensor, Tensor]:
        """Latents [r, d], and whether each was met in its class [r]: restart i takes the i-th that was."""
        met: dict[int, list[Tensor]] = {identity: [] for identity in rows.identity.tolist()}
        for first in range(0, self.start_samples, BLOCK):
            if all(len(found) == self.restarts for found in met.values()):
                break
            noise = draws.normal((BLOCK, prior.noise_dim), rows.seed, "starts", first)
            z = self._within(prior, prior.begin(noise[: self.start_samples - first].to(prior.like)))
            for latent, label in zip(z, ask(z).tolist(), strict=True):
                if label in met and len(met[label]) < self.restarts:
                    met[label].append(latent)
        z = self._within(prior, prior.begin(rows.normal(prior.noise_dim, name="start").to(prior.like)))
        keys = list(zip(rows.identity.tolist(), rows.restart.tolist(), strict=True))
        for place, (identity, restart) in enumerate(keys):
            if restart < len(met[identity]):
                z[place] = met[identity][restart]
        return z, torch.tensor([i < len(met[y]) for y, i in keys], device=z.device)

    def _walk(
        self, ask: Asked, prior: Generator, rows: Rows, start: Tensor, met: Tensor, progress: Progress | None
    ) -> tuple[Tensor, Tensor]:
        """Where rows end, [r, d], and their radii, [r]."""
        z, radius = start.clone(), torch.full_like(start[:, 0], self.radius)
        idle, widest = torch.zeros_like(met, dtype=torch.long), 2 * self.clip * start.shape[1] ** 0.5
        for step in range(self.steps):
            here = (met & (idle < self.patience) & (radius < widest)).nonzero().squeeze(1)
            if not len(here):
                break
            z[here], grew = self._step(ask, prior, rows.at(here), z[here], radius[here], step)
            radius[here] *= torch.where(grew, self.growth, 1.0).to(radius)
            idle[here] = torch.where(grew, 0, idle[here] + 1)
            if progress:
                progress(len(z) * self.steps - len(here) * (self.steps - step - 1), len(z) * self.steps)
        return z, radius

    def _step(
        self, ask: Asked, prior: Generator, rows: Rows, z: Tensor, radius: Tensor, step: int
    ) -> tuple[Tensor, Tensor]:
        """One iteration of rows that still run: latents [a, d] moved, and whether spheres grow [a]."""
        labels = rows.identity.to(z.device)
        u = rows.normal(self.points, z.shape[1], name="sphere", step=step).to(z)
        u = u / u.norm(dim=2, keepdim=True)
        probes = z[:, None] + radius[:, None, None] * u
        inside = ask(probes.flatten(0, 1)).view(-1, self.points) == labels[:, None]
        away = -(u * ~inside[:, :, None]).mean(1)
        moved = self._within(prior, z + (radius / 3).clamp(max=self.largest_step)[:, None] * away)
        pushed = (~inside.all(1)).nonzero().squeeze(1)
        if len(pushed):
            kept = pushed[ask(moved[pushed]) == labels[pushed]]
            z = z.index_copy(0, kept, moved[kept])
        return z, inside.sum(1) > self.inside * self.points

    def _within(self, prior: Generator, z: Tensor) -> Tensor:
        return prior.bound(z.clamp(-self.clip, self.clip))
