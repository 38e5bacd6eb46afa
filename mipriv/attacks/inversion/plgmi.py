"""Pseudo Label-Guided Model Inversion (Yuan et al., AAAI 2023): a conditional GAN of the victim's classes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from mipriv import draws
from mipriv.attacks.inversion import Access, Progress, Reconstructions, Studied
from mipriv.attacks.search import conditional_gan
from mipriv.attacks.search import rows as engine
from mipriv.attacks.search.conditional_gan import ConditionalGAN, ConditionalGenerator, ProjectionCritic
from mipriv.attacks.search.identity import max_margin
from mipriv.attacks.search.latents import at_least_one
from mipriv.attacks.search.rows import Rows
from mipriv.data.augment import Augment
from mipriv.errors import InputError
from mipriv.models.generators import Generator
from mipriv.models.generators.gan import DCGAN


@dataclass(frozen=True)
class PLGMI:
    """Label public images by the victim, learn a generator of those labels, search it class by class.

    Study: the `top` public images in which the victim believes most stand for each class (pseudo-labels: no
    private image has a part). The public GAN, made conditional, is trained further on them, with
    `margin_weight` times the max-margin loss of the victim on views of its images. Search: Adam over z of the
    max-margin loss averaged over random views; images are ordered by that loss without views.

    Defaults are the published constants. The published networks are residual, with z of 128; here the width
    and the latents are the prior's, and a prior of 0 steps is training from nothing.

    Attributes:
        top: public images a class.
        study_steps: of the generator.
        critic_steps: of the critic, before each.
        batch_size: of the study.
        study_lr: of its Adam.
        study_betas: of its Adam.
        margin_weight: of the max-margin loss beside the adversarial one.
        view: random view of what the victim sees, in study and search.
        restarts: random starting points an identity; each is one reconstruction.
        steps: of the search.
        lr: of the search's Adam.
        views: whose losses a step of the search averages.
        chunk: most rows in memory together in the search.
    """

    top: int = 30
    study_steps: int = 30_000
    critic_steps: int = 5
    batch_size: int = 64
    study_lr: float = 2e-4
    study_betas: tuple[float, float] = (0.0, 0.9)
    margin_weight: float = 0.2
    view: Augment = field(default_factory=lambda: Augment(flip=0.5, area=(0.8, 1.0), rotate=5.0, jitter=0.2))
    restarts: int = 5
    steps: int = 600
    lr: float = 0.1
    views: int = 2
    chunk: int = 300

    access: ClassVar[Access] = "weights"
    learns: ClassVar[tuple[str, ...]] = (
        "top",
        "study_steps",
        "critic_steps",
        "batch_size",
        "study_lr",
        "study_betas",
        "margin_weight",
        "view",
    )

    def __post_init__(self) -> None:
        at_least_one(self, "top", "study_steps", "critic_steps", "batch_size")
        at_least_one(self, "restarts", "steps", "views", "chunk")

    def study(
        self,
        victim: nn.Module,
        prior: Generator,
        public: Tensor,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Studied:
        """See `PreparedInversion`; where there are fewer public images than `top`, all stand for all."""

        def penalty(images: Tensor, labels: Tensor, uniforms: Tensor) -> Tensor:
            return self.margin_weight * max_margin(victim(self.view(images, uniforms)), labels).mean()

        with engine.attacked(victim, prior):
            confidence = engine.in_chunks(lambda part: victim(part).softmax(1), public, self.batch_size)
            members = conditional_gan.top_per_class(confidence, self.top)
            shape, classes = (public.shape[1], public.shape[2], public.shape[3]), confidence.shape[1]
            generator = self.blank(victim, prior, classes, shape).requires_grad_(True)
            with draws.seeded(seed, "initial weights"):
                critic = ProjectionCritic(shape, generator.width, classes).to(prior.like)
            log = self._training()(
                generator,
                critic,
                public.to(prior.like),
                members,
                penalty,
                latent_dim=prior.latent_dim,
                seed=seed,
                progress=progress,
            )
        return Studied(generator, len(public) + self.study_steps * self.batch_size, log)

    def blank(
        self,
        victim: nn.Module,
        prior: Generator,
        num_classes: int,
        image_shape: tuple[int, int, int],
    ) -> ConditionalGenerator:
        """See `PreparedInversion`; every class is the prior."""
        if not isinstance(prior, DCGAN):
            raise InputError(f"prior: {type(prior).__name__}; allowed: a gan")
        return ConditionalGenerator(prior, num_classes).eval()

    def __call__(
        self,
        victim: nn.Module,
        prior: Generator,
        identities: Tensor,
        *,
        knowledge: nn.Module,
        seed: int,
        progress: Progress | None = None,
    ) -> Reconstructions:
        """See `PreparedInversion`."""
        rows = Rows.of(identities, self.restarts, seed)
        labels = rows.identity.to(prior.like.device)
        start = prior.begin(rows.normal(prior.noise_dim, name="start").to(prior.like))
        views = rows.uniform(self.steps, self.views, Augment.DRAWS, name="views")

        def objective(z: Tensor, chunk: Tensor, step: int) -> Tensor:
            here = labels[chunk.to(labels.device)]
            images = knowledge(z, here)
            seen = [self.view(images, views[chunk, step, i]) for i in range(self.views)]
            return torch.stack([max_margin(victim(view), here) for view in seen]).mean(0)

        adam: Callable[[Tensor], torch.optim.Optimizer] = lambda z: torch.optim.Adam([z], self.lr)  # noqa: E731
        with engine.attacked(victim, prior, knowledge):
            z = engine.descend(
                start,
                objective,
                adam,
                steps=self.steps,
                chunk=self.chunk,
                bound=prior.bound,
                progress=progress,
            )
            with torch.no_grad():
                parts = torch.arange(len(z), device=labels.device).split(self.chunk)
                images, begun = (torch.cat([knowledge(of[p], labels[p]) for p in parts]) for of in (z, start))
                margins = torch.cat([max_margin(victim(images[p]), labels[p]) for p in parts])
        scores = -margins.view(len(identities), -1)
        order = engine.keep_best(scores, self.restarts)
        place, shape = engine.places_of(order, self.restarts), order.shape
        images, begun, z = (of[place].unflatten(0, shape) for of in (images, begun, z))
        queries = len(labels) * (self.steps * self.views + 1)
        return Reconstructions(images, begun, z, scores.gather(1, order), queries)

    def _training(self) -> ConditionalGAN:
        return ConditionalGAN(
            self.study_steps, self.critic_steps, self.batch_size, self.study_lr, self.study_betas
        )
