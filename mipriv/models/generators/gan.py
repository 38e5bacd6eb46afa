"""A small convolutional GAN as a generator, with its critic as the measure of realism.

The generator follows DCGAN (Radford et al., ICLR 2016). Two objectives: `wgan_gp`, the critic loss of
Gulrajani et al. (NeurIPS 2017, eq. 3) that GMI (Zhang et al., CVPR 2020) builds its prior with, and
`hinge` (Lim and Ye, 2017) with differentiable augmentation (Zhao et al., NeurIPS 2020), which
survives a few hundred images better.
"""

import itertools
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv import draws
from mipriv.data.augment import Augment
from mipriv.device import place
from mipriv.errors import InputError
from mipriv.models.generators import Generator, Progress
from mipriv.plugin import one_of


class DCGAN(Generator):
    """Latents through transposed convolutions from 4x4 up; the critic is the mirror image."""

    def __init__(self, latent_dim: int, width: int, kernel: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, size, _ = image_shape
        self.latent_dim = latent_dim
        doublings = (size // 4).bit_length() - 1
        widths = [width * 2**i for i in range(doublings)][::-1]
        self.stem = nn.Sequential(
            nn.Linear(latent_dim, widths[0] * 16, bias=False), nn.Unflatten(1, (widths[0], 4, 4))
        )
        # Padding that doubles and halves exactly: an odd kernel leaves the doubled image one pixel short.
        margin, short = (kernel - 1) // 2, kernel % 2
        up: list[nn.Module] = [nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for before, after in itertools.pairwise(widths):
            doubling = nn.ConvTranspose2d(before, after, kernel, 2, margin, short, bias=False)
            up += [doubling, nn.BatchNorm2d(after), nn.ReLU()]
        last = nn.ConvTranspose2d(widths[-1], channels, kernel, 2, margin, short)
        self.up = nn.Sequential(*up, last, nn.Sigmoid())
        down: list[nn.Module] = []
        for before, after in zip([channels, *widths[::-1]], widths[::-1], strict=False):
            down += [
                nn.Conv2d(before, after, kernel, 2, margin),
                nn.InstanceNorm2d(after, affine=True),
                nn.LeakyReLU(0.2),
            ]
        # Normalising the first layer would hide the brightness of an image from the critic.
        del down[1]
        self.critic = nn.Sequential(*down, nn.Flatten(), nn.Linear(widths[0] * 16, 1))

    def forward(self, z: Tensor) -> Tensor:
        """See `Generator.forward`."""
        images: Tensor = self.up(self.stem(z))
        return images

    def realism(self, z: Tensor, images: Tensor) -> Tensor:
        """The critic's score of the images, [n]."""
        scores: Tensor = self.critic(images)
        return scores.squeeze(1)


@dataclass(frozen=True)
class GAN:
    """Adversarial training on public images.

    Attributes:
        latent_dim: of z ~ N(0, I).
        width: channels at the largest resolution; doubled with every halving of it.
        kernel: side of every convolution's kernel: 5, as GMI has it, or 4, which is cheaper.
        objective: `wgan_gp` or `hinge`.
        steps: generator steps.
        critic_steps: critic steps for each.
        batch_size: images a step.
        lr: of Adam.
        betas: of Adam.
        penalty: weight of the gradient penalty (`wgan_gp`).
        augment: random view of real and generated images alike before the critic.
    """

    latent_dim: int = 100
    width: int = 64
    kernel: int = 5
    objective: str = "wgan_gp"
    steps: int = 50_000
    critic_steps: int = 5
    batch_size: int = 64
    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    penalty: float = 10.0
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        one_of(self.objective, ("wgan_gp", "hinge"), "objective")
        if self.kernel not in (4, 5):
            raise InputError(f"kernel: {self.kernel}; allowed: 4 or 5")

    def build(self, image_shape: tuple[int, int, int]) -> DCGAN:
        """See `Prior.build`.

        Raises:
            InputError: images that are not square with a side of 8, 16, 32, ...
        """
        _, height, width = image_shape
        if height != width or height < 8 or height & (height - 1):
            raise InputError(f"gan: images of {height}x{width}; allowed: square, a power of two, at least 8")
        return DCGAN(self.latent_dim, self.width, self.kernel, image_shape)

    def fit(
        self, images: Tensor, *, seed: int, device: torch.device, progress: Progress | None = None
    ) -> tuple[DCGAN, list[dict[str, float]]]:
        """See `Prior.fit`."""
        with draws.seeded(seed, "initial weights"):
            model = place(self.build(tuple(images.shape[1:])), device)  # type: ignore[arg-type]
        makers = [*model.stem.parameters(), *model.up.parameters()]
        maker = torch.optim.Adam(makers, self.lr, self.betas)
        judge = torch.optim.Adam(model.critic.parameters(), self.lr, self.betas)
        random = draws.generator(seed, "order, latents and views")
        log = []
        for step in range(self.steps):
            model.critic.requires_grad_(True)
            for _ in range(self.critic_steps):
                rows = torch.randint(len(images), (self.batch_size,), generator=random)
                real, fake = images[rows].to(device), self._sample(model, random).detach()
                real, fake = self._view(real, random), self._view(fake, random)
                gap = _step(judge, self._critic_loss(model, real, fake, random))
            model.critic.requires_grad_(False)
            value = _step(maker, -model.critic(self._view(self._sample(model, random), random)).mean())
            if step % max(1, self.steps // 50) == 0 or step == self.steps - 1:
                log.append({"step": step, "critic_loss": gap, "generator_loss": value})
            if progress:
                progress(step + 1, self.steps)
        return model.eval().requires_grad_(True), log

    def _sample(self, model: DCGAN, random: torch.Generator) -> Tensor:
        device = next(model.parameters()).device
        images: Tensor = model(torch.randn(self.batch_size, self.latent_dim, generator=random).to(device))
        return images

    def _view(self, images: Tensor, random: torch.Generator) -> Tensor:
        return self.augment(images, torch.rand(len(images), Augment.DRAWS, generator=random))

    def _critic_loss(self, model: DCGAN, real: Tensor, fake: Tensor, random: torch.Generator) -> Tensor:
        good, bad = model.critic(real), model.critic(fake)
        if self.objective == "hinge":
            return F.relu(1 - good).mean() + F.relu(1 + bad).mean()
        mix = torch.rand(len(real), 1, 1, 1, generator=random).to(real)
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(model.critic(between).sum(), between, create_graph=True)
        excess = slope.flatten(1).norm(dim=1) - 1
        loss: Tensor = bad.mean() - good.mean() + self.penalty * excess.square().mean()
        return loss


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()
