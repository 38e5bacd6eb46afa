"""The learnt inverse made sharper by a critic, as CEM measures defences with (Xia et al., CVPR 2025)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv import draws
from mipriv.attacks.reconstruction import Access, Client, Knowledge, Progress, Recovered
from mipriv.attacks.search.inverse import Best, Inverse, InverseRecipe, Pairs
from mipriv.attacks.search.latents import at_least_one
from mipriv.attacks.search.releases import Releases
from mipriv.errors import InputError

CONVOLUTIONS = 4


class Critic(nn.Module):
    """Four convolutions: three that halve the side, and one that sees all that is left.

    Args:
        image_shape: (C, H, W).
        width: channels of the first; doubled with every halving.
    """

    def __init__(self, image_shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        before, *size = image_shape
        layers: list[nn.Module] = []
        for i in range(CONVOLUTIONS - 1):
            layers.append(nn.Conv2d(before, width * 2**i, 5, 2, 2))
            before, size = width * 2**i, [(side + 1) // 2 for side in size]
            # Normalising the first layer would hide brightness; one place alone has no variance. Batch
            # normalisation is no choice: the penalty is on the slope at single images.
            if i and size[0] * size[1] > 1:
                layers.append(nn.InstanceNorm2d(before, affine=True))
            layers.append(nn.LeakyReLU(0.2))
        self.body = nn.Sequential(*layers, nn.Conv2d(before, 1, (size[0], size[1])), nn.Flatten(0))

    def forward(self, images: Tensor) -> Tensor:
        """Scores [n] of images [n, C, H, W]; higher is more real."""
        scores: Tensor = self.body(images)
        return scores


def critic_loss(critic: nn.Module, real: Tensor, fake: Tensor, mix: Tensor, penalty: float) -> Tensor:
    """E D(fake) - E D(real) + penalty E (|grad D(between)| - 1)^2 (Gulrajani et al., NeurIPS 2017, eq. 3).

    Args:
        critic: images [n, C, H, W] to scores [n].
        real: [n, C, H, W].
        fake: [n, C, H, W], without gradients.
        mix: [n] in [0, 1], the share of `real` in the images between.
        penalty: weight of the last term.
    """
    share = mix.view(-1, 1, 1, 1)
    between = (share * real + (1 - share) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    excess = slope.flatten(1).norm(dim=1) - 1
    loss: Tensor = critic(fake).mean() - critic(real).mean() + penalty * excess.square().mean()
    return loss


@dataclass(frozen=True)
class GAN:
    """Minimise -D(G(z)) + image_weight |G(z) - x|^2, D a Wasserstein critic and G begun as a learnt decoder.

    Defaults are the published constants. They keep the last epoch; here the epoch of least validation error
    is kept, of those with the critic: the decoder that G begins as is an attack of its own.

    Attributes:
        decoder: how the generator is built, and learnt before the critic comes.
        epochs: passes over the training images, with the critic.
        batch_size: images a step.
        critic_width: channels of the critic's first convolution.
        critic_steps: for each step of the generator.
        lr: of Adam, for the generator.
        critic_lr: of Adam, for the critic.
        betas: of Adam, for both.
        penalty: weight of the gradient penalty.
        image_weight: of the mean squared error a pixel.
    """

    decoder: InverseRecipe = field(default_factory=InverseRecipe)
    epochs: int = 150
    batch_size: int = 128
    critic_width: int = 64
    critic_steps: int = 10
    lr: float = 5e-4
    critic_lr: float = 5e-3
    betas: tuple[float, float] = (0.5, 0.999)
    penalty: float = 10.0
    image_weight: float = 1_500.0

    access: ClassVar[Access] = "queries"

    def __post_init__(self) -> None:
        at_least_one(self, "epochs", "critic_width", "critic_steps")
        if self.batch_size < 2:
            raise InputError(f"batch_size: {self.batch_size}; allowed: 2 or more")
        for name in ("lr", "critic_lr"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: above 0")
        for name in ("penalty", "image_weight"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: 0 or more")

    def __call__(
        self,
        client: Client,
        known: Knowledge,
        observed: Tensor,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Recovered:
        """See `Reconstruction`; also raises where the epochs have no step of the generator."""
        asked = Releases(client, known, observed, seed)
        total = self.decoder.epochs + self.epochs

        def report(done: int) -> None:
            if progress:
                progress(done, total)

        self._admit(len(known.training))
        inverse, _, log = self.decoder.learn(asked, known, seed=seed, progress=lambda done, _: report(done))
        best = Best()
        for epoch, figures in enumerate(self._against(inverse, asked, known, seed)):
            best.offer(inverse, figures["validation_error"])
            log.append({"step": float(self.decoder.epochs + epoch), **figures})
            report(self.decoder.epochs + epoch + 1)
        best.restore(inverse)
        return Recovered(inverse.decode(asked.targets), best.error, asked.queries, log)

    def _admit(self, images: int) -> None:
        steps = self.epochs * max(1, images // self.batch_size)
        if steps < self.critic_steps:
            allowed = f"1 to {steps}, the steps that {self.epochs} epochs of {images} images surely have"
            raise InputError(f"critic_steps: {self.critic_steps}; allowed: {allowed}")

    @torch.enable_grad()
    def _against(
        self, inverse: Inverse, asked: Releases, known: Knowledge, seed: int
    ) -> Iterator[dict[str, float]]:
        """Train the generator in place against a critic; the figures of every epoch."""
        random = draws.generator(seed, "order and mixtures with a critic")
        pairs = Pairs(asked, known, self.batch_size, random)
        with draws.seeded(seed, "initial weights of the critic"):
            critic = Critic(tuple(known.training.shape[1:]), self.critic_width).to(asked.targets)  # type: ignore[arg-type]
        inverse.requires_grad_(True)
        maker = torch.optim.Adam(inverse.parameters(), self.lr, self.betas)
        judge = torch.optim.Adam(critic.parameters(), self.critic_lr, self.betas)
        step = 0
        for _ in range(self.epochs):
            inverse.train()
            gaps = []
            for features, images in pairs.epoch():
                with torch.no_grad():
                    fake = inverse(features)
                mix = torch.rand(len(images), generator=random).to(images)
                gaps.append(_step(judge, critic_loss(critic, images, fake, mix, self.penalty)))
                step += 1
                if step % self.critic_steps == 0:
                    critic.requires_grad_(False)
                    made = inverse(features)
                    _step(maker, self.image_weight * F.mse_loss(made, images) - critic(made).mean())
                    critic.requires_grad_(True)
            gap = torch.stack(gaps).mean().item()
            yield {"critic_loss": gap, "validation_error": pairs.error(inverse)}
        inverse.eval().requires_grad_(False)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach()
