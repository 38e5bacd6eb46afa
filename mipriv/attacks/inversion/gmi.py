"""Generative Model Inversion (Zhang et al., "The Secret Revealer", CVPR 2020)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv.attacks import rows as engine
from mipriv.attacks.inversion import Progress, Reconstructions
from mipriv.attacks.rows import Rows
from mipriv.errors import InputError
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

    def __post_init__(self) -> None:
        for name in ("restarts", "steps", "chunk"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: 1 or more")
        if self.clip <= 0:
            raise InputError(f"clip: {self.clip}; allowed: above 0")

    def __call__(
        self,
        victim: nn.Module,
        prior: Generator,
        identities: Tensor,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Reconstructions:
        """See `WhiteBoxInversion`; images are ordered by the cross-entropy that they reached."""
        weight = next(victim.parameters())
        rows = Rows.of(identities, self.restarts, seed)
        labels = rows.identity.to(weight.device)
        start = rows.normal(prior.latent_dim, name="start").to(weight).clamp(-self.clip, self.clip)

        def objective(z: Tensor, chunk: Tensor, step: int) -> Tensor:
            images = prior(z)
            identity = F.cross_entropy(victim(images), labels[chunk.to(labels.device)], reduction="none")
            return self.identity_weight * identity - self.realism_weight * prior.realism(z, images)

        def nesterov(z: Tensor) -> torch.optim.Optimizer:
            return torch.optim.SGD([z], self.lr, self.momentum, nesterov=self.momentum > 0)

        with engine.attacked(victim, prior):
            z = engine.descend(
                start,
                objective,
                nesterov,
                steps=self.steps,
                chunk=self.chunk,
                bound=lambda z: z.clamp(-self.clip, self.clip),
                progress=progress,
            )
            images = engine.in_chunks(prior, z, self.chunk)
            begun = engine.in_chunks(prior, start, self.chunk)
            belief = engine.in_chunks(lambda x: victim(x).log_softmax(1), images, self.chunk)
        shape = (len(identities), self.restarts)
        scores = belief.gather(1, labels[:, None]).view(shape)
        order = engine.keep_best(scores, self.restarts)
        rank = (
            order.flatten()
            + torch.arange(shape[0], device=order.device).repeat_interleave(shape[1]) * shape[1]
        )
        return Reconstructions(
            images[rank].unflatten(0, shape),
            begun[rank].unflatten(0, shape),
            z[rank].unflatten(0, shape),
            scores.gather(1, order),
            len(z) * (self.steps + 1),
        )
