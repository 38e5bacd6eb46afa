"""Plug & Play Attacks (Struppek et al., ICML 2022): select, optimise under random views, select again."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mipriv import draws
from mipriv.attacks import rows as engine
from mipriv.attacks.inversion import Progress, Reconstructions
from mipriv.attacks.rows import Rows
from mipriv.data.augment import Augment, mirrored
from mipriv.errors import InputError
from mipriv.models.generators import Generator


def poincare(logits: Tensor, labels: Tensor) -> Tensor:
    """Poincaré distance of L1-normalised logits to the (nearly) one-hot target, one a row.

    arccosh(1 + 2 |u - v|^2 / ((1 - |u|^2)(1 - |v|^2))) with u = logits / |logits|_1 and v = onehot - 1e-4
    (Struppek et al. 2022, eq. 5). Computed in float32 or wider.

    Args:
        logits: [r, K].
        labels: [r] int64.

    Returns:
        [r].
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    u = logits.to(wide)
    u = u / u.abs().sum(1, keepdim=True)
    v = torch.nn.functional.one_hot(labels, logits.shape[1]).to(wide) - 1e-4
    # A logit that takes the whole L1 norm puts u on the boundary of the ball, where the distance is infinite.
    room = (1 - u.square().sum(1)).clamp(min=1e-6)
    gap = 2 * (u - v).square().sum(1) / (room * (1 - v.square().sum(1)))
    return torch.acosh(1 + gap)


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
    view: Augment = field(default_factory=lambda: Augment(flip=0.0, area=(0.9, 1.0)))
    keep: int = 50
    final_views: int = 100
    final_view: Augment = field(default_factory=lambda: Augment(flip=0.5, area=(0.5, 0.9), ratio=(0.8, 1.2)))
    chunk: int = 200

    def __post_init__(self) -> None:
        for few, many in (("candidates", "samples"), ("keep", "candidates")):
            if not 1 <= getattr(self, few) <= getattr(self, many):
                raise InputError(f"{few}: {getattr(self, few)}; allowed: 1 to {many} ({getattr(self, many)})")
        for name in ("steps", "final_views", "chunk"):
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
        """See `WhiteBoxInversion`."""
        weight = next(victim.parameters())
        with engine.attacked(victim, prior):
            pool = draws.normal((self.samples, prior.latent_dim), seed, "pool").to(weight)
            pool = prior.bound(pool)
            confidence = engine.in_chunks(lambda z: self._confidence(victim, prior(z)), pool, self.chunk)
            best = engine.keep_best(confidence.T[identities.to(weight.device)], self.candidates)
            start = pool[best.flatten()]
            rows = Rows.of(identities, self.candidates, seed)
            z = self._optimise(victim, prior, start, rows, progress)
            scores = self._final_scores(victim, prior, z, rows).view(len(identities), -1)
            order = engine.keep_best(scores, self.keep)
            chosen = (
                order + torch.arange(len(identities), device=order.device)[:, None] * self.candidates
            ).flatten()
            shape = (len(identities), self.keep)
            images = engine.in_chunks(prior, z[chosen], self.chunk)
            begun = engine.in_chunks(
                prior, start.view(*shape[:1], self.candidates, -1)[:, : self.keep].flatten(0, 1), self.chunk
            )
        queries = 2 * self.samples + len(z) * (self.steps + self.final_views)
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
        views = rows.uniform(self.steps, Augment.DRAWS, name="views")

        def objective(z: Tensor, chunk: Tensor, step: int) -> Tensor:
            seen = self.view(prior(z), views[chunk, step])
            return poincare(victim(seen), labels[chunk.to(labels.device)])

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
