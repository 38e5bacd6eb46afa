"""A class-conditional GAN that begins as an unconditional prior (of PLG-MI, Yuan et al., AAAI 2023).

Normalisation whose gains and biases belong to classes (Dumoulin et al., ICLR 2017), the projection
discriminator (Miyato and Koyama, ICLR 2018) under spectral normalisation (Miyato et al., ICLR 2018),
hinge losses (Lim and Ye, 2017).
"""

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from mipriv import draws
from mipriv.attacks.search import rows as engine
from mipriv.attacks.search.latents import at_least_one
from mipriv.data.augment import Augment
from mipriv.models.generators.gan import DCGAN

Penalty = Callable[[Tensor, Tensor, Tensor], Tensor]
Progress = Callable[[int, int], None]


class ConditionalNorm(nn.Module):
    """Batch normalisation with a gain and a bias a class; every class begins with those of `norm`."""

    def __init__(self, norm: nn.BatchNorm2d, num_classes: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(norm.weight.detach().repeat(num_classes, 1))
        self.bias = nn.Parameter(norm.bias.detach().repeat(num_classes, 1))
        self.norm = copy.deepcopy(norm)
        # The statistics alone: affine values that all classes share would undo what the classes learn.
        self.norm.register_parameter("weight", None)
        self.norm.register_parameter("bias", None)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """[n, C, H, W] and classes [n] int64 to [n, C, H, W]."""
        normal: Tensor = self.norm(x)
        return self.gain[labels][:, :, None, None] * normal + self.bias[labels][:, :, None, None]


class ConditionalGenerator(nn.Module):
    """The generator of a DCGAN with class-conditional normalisation; at first every class is the prior.

    Attributes:
        width: channels at the largest resolution.
    """

    def __init__(self, prior: DCGAN, num_classes: int) -> None:
        super().__init__()
        self.stem = copy.deepcopy(prior.stem)
        self.up = nn.ModuleList(
            ConditionalNorm(layer, num_classes) if isinstance(layer, nn.BatchNorm2d) else copy.deepcopy(layer)
            for layer in prior.up
        )
        self.width = next(layer.out_channels for layer in prior.critic if isinstance(layer, nn.Conv2d))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Images [n, C, H, W] in [0, 1] of latents [n, d] and classes [n] int64."""
        x: Tensor = self.stem(z)
        for layer in self.up:
            x = layer(x, labels) if isinstance(layer, ConditionalNorm) else layer(x)
        return x


class ProjectionCritic(nn.Module):
    """D(x, y) = psi(phi(x)) + <v_y, phi(x)>: phi a convolutional pyramid, summed over the image."""

    def __init__(self, image_shape: tuple[int, int, int], width: int, num_classes: int) -> None:
        super().__init__()
        channels, size, _ = image_shape
        widths = [width * 2**i for i in range((size // 4).bit_length() - 1)]
        down: list[nn.Module] = []
        for before, after in itertools.pairwise([channels, *widths]):
            down += [spectral_norm(nn.Conv2d(before, after, 4, 2, 1)), nn.LeakyReLU(0.2)]
        self.down = nn.Sequential(*down)
        self.score = spectral_norm(nn.Linear(widths[-1], 1))
        self.classes = spectral_norm(nn.Embedding(num_classes, widths[-1]))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Scores [n] of images [n, C, H, W] as members of classes [n] int64."""
        features = self.down(images).sum((2, 3))
        scores: Tensor = self.score(features).squeeze(1) + (self.classes(labels) * features).sum(1)
        return scores


def critic_hinge(real: Tensor, fake: Tensor) -> Tensor:
    """E max(0, 1 - D(real)) + E max(0, 1 + D(fake)): scores [n] and [m] to a scalar."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def top_per_class(confidence: Tensor, top: int) -> Tensor:
    """Which images stand for each class: the `top` of the largest confidence, best first.

    Every class chooses for itself, so one image may stand for several; where there are fewer than `top`
    images all of them stand for all classes.

    Args:
        confidence: [m, K] softmax scores.
        top: images a class.

    Returns:
        [K, min(top, m)] rows of `confidence`.
    """
    return engine.keep_best(confidence.T, top)


@dataclass(frozen=True)
class ConditionalGAN:
    """Adversarial training on images with labels.

    Attributes:
        steps: of the generator.
        critic_steps: critic steps before each.
        batch_size: images a step.
        lr: of Adam.
        betas: of Adam.
    """

    steps: int
    critic_steps: int
    batch_size: int
    lr: float
    betas: tuple[float, float]

    def __post_init__(self) -> None:
        at_least_one(self, "steps", "critic_steps", "batch_size")

    def __call__(
        self,
        generator: ConditionalGenerator,
        critic: ProjectionCritic,
        images: Tensor,
        members: Tensor,
        penalty: Penalty,
        *,
        latent_dim: int,
        seed: int,
        progress: Progress | None = None,
    ) -> list[dict[str, float]]:
        """Train both; the generator is left in evaluation mode.

        Args:
            generator: trained from what it is.
            critic: trained from what it is.
            images: [m, C, H, W] in [0, 1], as they are: the critic sees no views of them.
            members: [K, n], rows of `images` that stand for each class.
            penalty: (fakes [b, C, H, W], labels [b], uniforms [b, Augment.DRAWS]) to a scalar that is added
                to the generator's loss.
            latent_dim: of z ~ N(0, I).
            seed: of every draw.
            progress: called with (steps done, steps).

        Returns:
            Figures of logged steps.
        """
        random, size, device = draws.generator(seed, "conditional gan"), self.batch_size, images.device
        maker = torch.optim.Adam(generator.parameters(), self.lr, self.betas)
        judge = torch.optim.Adam(critic.parameters(), self.lr, self.betas)
        generator.train()

        def fakes() -> tuple[Tensor, Tensor]:
            z = torch.randn(size, latent_dim, generator=random).to(images)
            labels = torch.randint(len(members), (size,), generator=random).to(device)
            return generator(z, labels), labels

        log = []
        for step in range(self.steps):
            critic.requires_grad_(True)
            for _ in range(self.critic_steps):
                pairs = torch.randint(members.numel(), (size,), generator=random).to(device)
                real = critic(images[members.flatten()[pairs]], pairs // members.shape[1])
                with torch.no_grad():
                    made, labels = fakes()
                gap = _step(judge, critic_hinge(real, critic(made, labels)))
            critic.requires_grad_(False)
            made, labels = fakes()
            extra = penalty(made, labels, torch.rand(size, Augment.DRAWS, generator=random))
            value = _step(maker, extra - critic(made, labels).mean())
            if step % max(1, self.steps // 50) == 0 or step == self.steps - 1:
                row = {"critic_loss": gap, "generator_loss": value, "penalty": extra.item()}
                log.append({"step": step, **row})
            if progress:
                progress(step + 1, self.steps)
        maker.zero_grad(set_to_none=True)
        generator.eval()
        return log


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()
