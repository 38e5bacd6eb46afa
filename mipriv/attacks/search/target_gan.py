"""KEDMI's GAN of one victim (Chen et al., ICCV 2021): its discriminator tells the victim's classes apart.

The discriminator is a network of K logits D(x) whose log-sum-exp is the evidence that an image is real, as
in semi-supervised GANs (Salimans et al., NeurIPS 2016). Its labels are the victim's answers on public
images. They are asked for once, of a victim in evaluation mode, and the training sees the answers alone: it
cannot change the victim, nor can the victim's mode change it.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv import draws
from mipriv.attacks.search.latents import at_least_one
from mipriv.errors import InputError
from mipriv.models.generators import Generator
from mipriv.models.generators.gan import DCGAN

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TargetRecipe:
    """How a GAN of one victim is made and trained.

    Defaults are the published constants: 120 passes over 30,000 public images, a step of the generator after
    every fifth batch. No paper states the size of the minibatch layer.

    Attributes:
        steps: of the generator.
        critic_steps: of the discriminator, before each.
        batch_size: images a step, and images that `TargetGAN.realism` compares with.
        lr: of Adam, for both networks.
        betas: of Adam.
        entropy_weight: of the summed entropy of D(G(z)) in the generator's loss.
        kernels: of minibatch discrimination: similarities that the last layer sees.
        kernel_dim: numbers that each similarity compares.
    """

    steps: int = 11_250
    critic_steps: int = 5
    batch_size: int = 64
    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    entropy_weight: float = 1e-4
    kernels: int = 64
    kernel_dim: int = 16

    def __post_init__(self) -> None:
        at_least_one(self, "steps", "critic_steps", "kernels", "kernel_dim")
        if self.batch_size < 2:
            raise InputError(f"batch_size: {self.batch_size}; allowed: 2 or more (images are compared)")


def admit(prior: Generator) -> DCGAN:
    """The prior, if a GAN of a victim can begin as it.

    Raises:
        InputError: it is no DCGAN.
    """
    if not isinstance(prior, DCGAN):
        raise InputError(f"prior: {type(prior).__name__}; allowed: a gan")
    return prior


def closeness(one: Tensor, other: Tensor) -> Tensor:
    """exp(-|M_ib - M_jb|_1), minibatch discrimination: [n, B, C] and [m, B, C] to [n, m, B]."""
    return (-(one[:, None] - other[None]).abs().sum(3)).exp()


class Discriminator(nn.Module):
    """K logits from an image's features and from how close they are to those of other images.

    The closeness is a mean over the others, not a sum, so that it does not grow with how many they are.

    Args:
        body: images [n, C, H, W] to features [n, d].
        width: d.
        num_classes: K.
        kernels: B.
        kernel_dim: C of each kernel.
    """

    def __init__(self, body: nn.Module, width: int, num_classes: int, kernels: int, kernel_dim: int) -> None:
        super().__init__()
        self.body = body
        self.project = nn.Sequential(
            nn.Linear(width, kernels * kernel_dim, bias=False), nn.Unflatten(1, (kernels, kernel_dim))
        )
        self.head = nn.Linear(width + kernels, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [n, d] and logits [n, K] of a batch, each image among the others of it (n > 1)."""
        features = self.body(images)
        here = self.project(features)
        # An image is at no distance from itself.
        others = (closeness(here, here).sum(1) - 1) / (len(images) - 1)
        return features, self.head(torch.cat([features, others], 1))

    def among(self, images: Tensor, reference: Tensor) -> Tensor:
        """Logits [n, K] of images, each for itself among the projections [m, B, C] of fixed others."""
        features = self.body(images)
        others = closeness(self.project(features), reference).mean(1)
        logits: Tensor = self.head(torch.cat([features, others], 1))
        return logits


class TargetGAN(Generator):
    """The generator of a public prior, to be trained on, and a discriminator of one victim's classes.

    Stem and up-path, and the convolutions of the critic, begin as the prior's; a prior of 0 steps is training
    from nothing, as published.

    Minibatch discrimination ties the rows of a batch together. In a search a row must not depend on its
    neighbours, so there every row is compared with the same `reference`: images that the generator made
    when its training ended, which are what generated images were compared with while it lasted.

    Args:
        prior: a DCGAN; it is copied.
        num_classes: K of the victim.
        recipe: sizes of the minibatch layer.

    Raises:
        InputError: a prior of another kind.
    """

    reference: Tensor

    def __init__(self, prior: Generator, num_classes: int, recipe: TargetRecipe) -> None:
        super().__init__()
        prior = admit(prior)
        self.latent_dim = prior.latent_dim
        self.stem, self.up = copy.deepcopy(prior.stem), copy.deepcopy(prior.up)
        *body, score = copy.deepcopy(prior.critic)
        assert isinstance(score, nn.Linear)
        sizes = (score.in_features, num_classes, recipe.kernels, recipe.kernel_dim)
        self.discriminator = Discriminator(nn.Sequential(*body), *sizes)
        self.register_buffer("reference", torch.zeros(recipe.batch_size, recipe.kernels, recipe.kernel_dim))
        self.to(prior.like)

    def forward(self, z: Tensor) -> Tensor:
        """See `Generator.forward`."""
        images: Tensor = self.up(self.stem(z))
        return images

    def realism(self, z: Tensor, images: Tensor) -> Tensor:
        """lse D - softplus(lse D), the log of the belief that an image is real: [n].

        Its negative is the prior loss of KEDMI's search.
        """
        logits = self.discriminator.among(images, self.reference)
        return F.logsigmoid(logits.logsumexp(1))

    @torch.no_grad()
    def refer_to(self, z: Tensor) -> None:
        """Compare with the images of latents [batch_size, d] from now on."""
        self.reference.copy_(self.discriminator.project(self.discriminator.body(self(z))))


def discriminator_loss(labelled: Tensor, answers: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """CE(T(x), D(x)) + 1/2 [E sp(lse D(x_u)) - E lse D(x_u) + E sp(lse D(G(z)))], sp the softplus.

    Args:
        labelled: D(x), [n, K] logits.
        answers: softmax T(x), [n, K]: soft labels by the victim.
        real: D(x_u), [m, K].
        fake: D(G(z)), [m, K].
    """
    classes = -(answers * labelled.log_softmax(1)).sum(1).mean()
    known, made = real.logsumexp(1), fake.logsumexp(1)
    return classes + (F.softplus(known).mean() - known.mean() + F.softplus(made).mean()) / 2


def generator_loss(fake: Tensor, real: Tensor, logits: Tensor, entropy_weight: float) -> Tensor:
    """mean |E f(G(z)) - E f(x_u)| + weight * sum H(D(G(z))): matched features, decided classes.

    Args:
        fake: f(G(z)), [n, d] features.
        real: f(x_u), [m, d].
        logits: D(G(z)), [n, K].
        entropy_weight: of the entropies in nats, summed over the rows.
    """
    entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum()
    return (fake.mean(0) - real.mean(0)).abs().mean() + entropy_weight * entropy


def learn(
    prior: Generator,
    public: Tensor,
    answers: Tensor,
    recipe: TargetRecipe,
    *,
    seed: int,
    progress: Progress | None = None,
) -> tuple[TargetGAN, list[dict[str, float]]]:
    """Train the GAN of the victim that gave the answers.

    Args:
        prior: a DCGAN, left as it is.
        public: [m, C, H, W] in [0, 1]; no views are made of them: the answers are to these very images.
        answers: [m, K], softmax of the victim's logits.
        recipe: see `TargetRecipe`.
        seed: of every draw.
        progress: called with (steps done, steps).

    Returns:
        The GAN in evaluation mode, and figures of logged steps.

    Raises:
        InputError: a prior that is no DCGAN.
    """
    with draws.seeded(seed, "initial weights"):
        gan = TargetGAN(prior, answers.shape[1], recipe).train().requires_grad_(True)
    public, judged = public.to(gan.like), gan.discriminator
    random, size = draws.generator(seed, "target gan"), recipe.batch_size
    maker = torch.optim.Adam([*gan.stem.parameters(), *gan.up.parameters()], recipe.lr, recipe.betas)
    judge = torch.optim.Adam(judged.parameters(), recipe.lr, recipe.betas)

    def some() -> Tensor:
        return torch.randint(len(public), (size,), generator=random).to(public.device)

    def noise() -> Tensor:
        return torch.randn(size, gan.latent_dim, generator=random).to(public)

    log = []
    for step in range(recipe.steps):
        judged.requires_grad_(True)
        for _ in range(recipe.critic_steps):
            rows = some()
            with torch.no_grad():
                made = gan(noise())
            logits = [judged(images)[1] for images in (public[rows], public[some()], made)]
            gap = _step(judge, discriminator_loss(logits[0], answers[rows], logits[1], logits[2]))
        judged.requires_grad_(False)
        fake, decided = judged(gan(noise()))
        real = judged.body(public[some()]).detach()
        value = _step(maker, generator_loss(fake, real, decided, recipe.entropy_weight))
        if step % max(1, recipe.steps // 50) == 0 or step == recipe.steps - 1:
            log.append({"step": step, "discriminator_loss": gap, "generator_loss": value})
        if progress:
            progress(step + 1, recipe.steps)
    gan.eval().requires_grad_(True).zero_grad(set_to_none=True)
    gan.refer_to(noise())
    return gan, log


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()
