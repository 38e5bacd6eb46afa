"""Two searches in a prior's latent space: for the best point of a row, and for the best distribution."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mipriv.attacks.search import rows as engine
from mipriv.attacks.search.rows import Rows
from mipriv.errors import InputError
from mipriv.models.generators import Generator

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
Belief = Callable[[Tensor, Tensor], Tensor]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Found:
    """What a search left: every tensor [n, k, ...], best first by a belief.

    Attributes:
        images: [n, k, C, H, W].
        start: [n, k, C, H, W], images of where each row began.
        latents: [n, k, d].
        scores: [n, k].
        steps: evaluations of the objective, in rows.
    """

    images: Tensor
    start: Tensor
    latents: Tensor
    scores: Tensor
    steps: int


@dataclass(frozen=True)
class PointSearch:
    """Descend from random points by Nesterov's momentum; each restart is one reconstruction.

    Attributes:
        restarts: random starting points an identity.
        steps: of optimisation.
        lr: learning rate.
        momentum: of Nesterov's method.
        clip: latents are clamped to [-clip, clip].
        chunk: most rows in memory together.
    """

    restarts: int
    steps: int
    lr: float
    momentum: float
    clip: float
    chunk: int

    def __post_init__(self) -> None:
        at_least_one(self, "restarts", "steps", "chunk")
        if self.clip <= 0:
            raise InputError(f"clip: {self.clip}; allowed: above 0")

    def __call__(
        self,
        prior: Generator,
        identities: Tensor,
        objective: Objective,
        belief: Belief,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Found:
        """Search for every identity.

        Args:
            prior: whose latents are searched.
            identities: [n] int64.
            objective: (latents [c, d], their images, labels [c]) to losses [c].
            belief: (images [c, C, H, W], labels [c]) to scores [c], larger is better.
            seed: see `Rows`.
            progress: called with (row steps done, row steps).
        """
        rows = Rows.of(identities, self.restarts, seed)
        labels = rows.identity.to(prior.like.device)
        start = prior.begin(rows.normal(prior.noise_dim, name="start").to(prior.like))
        start = start.clamp(-self.clip, self.clip)
        z = engine.descend(
            start,
            lambda z, chunk, step: objective(z, prior(z), labels[chunk.to(labels.device)]),
            lambda z: torch.optim.SGD([z], self.lr, self.momentum, nesterov=self.momentum > 0),
            steps=self.steps,
            chunk=self.chunk,
            bound=lambda z: z.clamp(-self.clip, self.clip),
            progress=progress,
        )
        return ranked(prior, z, start, labels, belief, self.restarts, self.chunk, self.steps * len(z))


@dataclass(frozen=True)
class DistributionSearch:
    """Descend on the mean and deviation of a Gaussian an identity, then draw from it (KEDMI, eq. 6).

    Attributes:
        draws: reconstructions an identity, drawn from the recovered distribution.
        steps: of optimisation; each sees one draw.
        lr: of Adam.
        log_variance: at the start, where the mean is 0. Released codes begin with 1 or with 0.
        clip: latents are clamped to [-clip, clip] before the generator sees them; null: not at all.
        chunk: most rows in memory together.
    """

    draws: int
    steps: int
    lr: float
    log_variance: float
    clip: float | None
    chunk: int

    def __post_init__(self) -> None:
        at_least_one(self, "draws", "steps", "chunk")
        if self.clip is not None and self.clip <= 0:
            raise InputError(f"clip: {self.clip}; allowed: above 0, or null")

    def __call__(
        self,
        prior: Generator,
        identities: Tensor,
        objective: Objective,
        belief: Belief,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Found:
        """See `PointSearch.__call__`; the start is what the undescended distribution yields."""
        like, d = prior.like, prior.latent_dim
        rows = Rows.of(identities, 1, seed)
        labels = rows.identity.to(like.device)
        noise = rows.normal(self.steps, d, name="noise").to(like)
        zeros = torch.zeros(len(identities), d).to(like)
        begin = torch.cat([zeros, torch.full_like(zeros, self.log_variance)], 1)

        def loss(parameters: Tensor, chunk: Tensor, step: int) -> Tensor:
            here = chunk.to(like.device)
            z = self._draw(parameters, noise[here, step])
            return objective(z, prior(z), labels[here])

        recovered = engine.descend(
            begin,
            loss,
            lambda p: torch.optim.Adam([p], self.lr),
            steps=self.steps,
            chunk=self.chunk,
            bound=lambda p: p,
            progress=progress,
        )
        every = Rows.of(identities, self.draws, seed)
        last = every.normal(d, name="draw").to(like)
        z, start = (self._draw(p.repeat_interleave(self.draws, 0), last) for p in (recovered, begin))
        repeated = every.identity.to(like.device)
        return ranked(prior, z, start, repeated, belief, self.draws, self.chunk, self.steps * len(identities))

    def _draw(self, parameters: Tensor, noise: Tensor) -> Tensor:
        mean, log_variance = parameters.chunk(2, 1)
        z = mean + (log_variance / 2).exp() * noise
        return z if self.clip is None else z.clamp(-self.clip, self.clip)


def ranked(
    prior: Generator,
    z: Tensor,
    start: Tensor,
    labels: Tensor,
    belief: Belief,
    each: int,
    chunk: int,
    steps: int,
) -> Found:
    """Images of latents z [n * each, d], best first by belief within an identity, with their starts."""
    images, begun = engine.in_chunks(prior, z, chunk), engine.in_chunks(prior, start, chunk)
    with torch.no_grad():
        parts = torch.arange(len(z), device=z.device).split(chunk)
        scores = torch.cat([belief(images[part], labels[part]) for part in parts]).view(-1, each)
    order = engine.keep_best(scores, each)
    place = engine.places_of(order, each)
    shape = (len(order), each)
    images, begun, z = (t[place].unflatten(0, shape) for t in (images, begun, z))
    return Found(images, begun, z, scores.gather(1, order), steps)


def at_least_one(knobs: object, *names: str) -> None:
    """Refuse counts below one.

    Raises:
        InputError: naming the knob.
    """
    for name in names:
        if getattr(knobs, name) < 1:
            raise InputError(f"{name}: {getattr(knobs, name)}; allowed: 1 or more")
