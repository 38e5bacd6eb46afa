"""StyleGAN2 (Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020) as a prior.

An attack searches w, one style vector for every layer: with a single w the published truncation cutoff
(the first 8 layers) changes nothing, since a search starts from the truncated vector of the first layer.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv import draws
from mipriv.data.augment import Augment
from mipriv.errors import InputError
from mipriv.models.generators import Progress
from mipriv.models.generators._style_generator import StyleGenerator

MEAN_DECAY = 0.995  # of the tracked mean w
LENGTH_DECAY = 0.99  # of the tracked mean path length


@dataclass(frozen=True)
class StyleGAN2:
    """Non-saturating logistic training of StyleGAN2 on public images, regularised lazily.

    Attributes:
        latent_dim: of z ~ N(0, I).
        style_dim: of w, which an attack searches.
        mapping_layers: fully connected layers from z to w.
        channel_base: channels at side r are channel_base / r, at most `channel_max`.
        channel_max: most channels.
        truncation: psi; 1 truncates nothing, 0 starts every search at the mean w.
        limit: standard deviations in P space to which a search is clipped; None: no clip.
        whiten: clip along the principal axes of P space; otherwise coordinate by coordinate, as published.
        steps: of generator and discriminator (25 million images at the published batch).
        batch_size: images a step.
        group: images that share a minibatch deviation; divides the batch.
        lr: of Adam.
        betas: of Adam.
        r1: gamma, weight of the squared slope of the discriminator at real images (over 2).
        r1_every: steps from one R1 penalty to the next; lr and betas are corrected for it.
        path_length: weight of the path length penalty; 0 leaves it out.
        path_length_every: steps from one such penalty to the next; lr and betas are corrected for it.
        mixing: probability that the later layers of a generated image take another w.
        average_images: half-life, in images, of the average of the generator that is kept.
        augment: random view of real and generated images alike before the discriminator.
    """

    latent_dim: int = 512
    style_dim: int = 512
    mapping_layers: int = 8
    channel_base: int = 32_768
    channel_max: int = 512
    truncation: float = 0.5
    limit: float | None = None
    whiten: bool = False
    steps: int = 781_250
    batch_size: int = 32
    group: int = 4
    lr: float = 2e-3
    betas: tuple[float, float] = (0.0, 0.99)
    r1: float = 10.0
    r1_every: int = 16
    path_length: float = 2.0
    path_length_every: int = 4
    mixing: float = 0.9
    average_images: float = 10_000
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        whole = ("latent_dim", "style_dim", "mapping_layers", "channel_max", "steps", "batch_size")
        for name in (*whole, "group", "r1_every", "path_length_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: 1 or more")
        for name in ("lr", "average_images"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: above 0")
        for name in ("truncation", "mixing"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: 0 to 1")
        if self.limit is not None and self.limit <= 0:
            raise InputError(f"limit: {self.limit}; allowed: above 0, or null")
        if self.batch_size % self.group:
            raise InputError(f"batch_size: {self.batch_size}; allowed: a multiple of group ({self.group})")

    def build(self, image_shape: tuple[int, int, int]) -> StyleGenerator:
        """See `Prior.build`.

        Raises:
            InputError: images that are not square with a side of 8, 16, ... 1024 and 1 or 3 channels, or
                a `channel_base` below that side.
        """
        channels, height, width = image_shape
        if height != width or not 8 <= height <= 1024 or height & (height - 1) or channels not in (1, 3):
            raise InputError(
                f"stylegan2: images of {channels}x{height}x{width}; "
                "allowed: 1 or 3 channels, square, a power of two from 8 to 1024"
            )
        if self.channel_base < height:
            raise InputError(f"channel_base: {self.channel_base}; allowed: at least the side, {height}")
        sides = [2**i for i in range(2, height.bit_length())]
        widths = [min(self.channel_base // side, self.channel_max) for side in sides]
        return StyleGenerator(
            self.latent_dim,
            self.style_dim,
            self.mapping_layers,
            widths,
            channels,
            self.truncation,
            self.limit,
        )

    def fit(
        self, images: Tensor, *, seed: int, device: torch.device, progress: Progress | None = None
    ) -> tuple[StyleGenerator, list[dict[str, float]]]:
        """See `Prior.fit`."""
        with draws.seeded(seed, "initial weights"):
            model = self.build(tuple(images.shape[1:])).to(device)  # type: ignore[arg-type]
        random = draws.generator(seed, "order, latents, noise and views")
        training = _Training(self, model, random)
        log = []
        for step in range(self.steps):
            row = training.step(images, step)
            if step % max(1, self.steps // 50) == 0 or step == self.steps - 1:
                log.append({"step": float(step), **row})
            if progress:
                progress(step + 1, self.steps)
        kept = training.kept
        kept.critic.load_state_dict(model.critic.state_dict())
        kept.measure(random, self.whiten)
        return kept.eval().requires_grad_(True), log


class _Training:
    """What changes while StyleGAN2 learns: two optimisers, the averaged generator, the mean path length."""

    def __init__(self, plan: StyleGAN2, model: StyleGenerator, random: torch.Generator) -> None:
        self.plan, self.model, self.random = plan, model, random
        self.kept = copy.deepcopy(model).requires_grad_(False)
        self.makers = [*model.mapping.parameters(), *model.synthesis.parameters()]
        self.maker = self._adam(self.makers, plan.path_length_every if plan.path_length else None)
        self.judge = self._adam([*model.critic.parameters()], plan.r1_every if plan.r1 else None)
        self.length = torch.zeros((), device=model.mean_w.device)

    def step(self, images: Tensor, step: int) -> dict[str, float]:
        """One step of the discriminator, one of the generator, and the penalties that fall due."""
        plan, critic = self.plan, self.model.critic
        critic.requires_grad_(True)
        real = images[torch.randint(len(images), (plan.batch_size,), generator=self.random)]
        real = self._view(real.to(self.model.mean_w) * 2 - 1)
        with torch.no_grad():
            fake = self._view(self.model.synthesis(self.styles(plan.batch_size), self.random))
        judged = F.softplus(critic(fake, plan.group)) + F.softplus(-critic(real, plan.group))
        row = {"critic_loss": _update(self.judge, judged.mean())}
        if plan.r1 and step % plan.r1_every == 0:
            slopes = r1(lambda x: critic(x, plan.group), real)
            row["r1"] = slopes.mean().item()
            _update(self.judge, plan.r1 / 2 * plan.r1_every * slopes.mean())
        critic.requires_grad_(False)
        made = self._view(self.model.synthesis(self.styles(plan.batch_size), self.random))
        row["generator_loss"] = _update(self.maker, F.softplus(-critic(made, plan.group)).mean())
        if plan.path_length and step % plan.path_length_every == 0:
            penalty = self.path_length(max(1, plan.batch_size // 2))
            row["path_length"] = self.length.item()
            _update(self.maker, plan.path_length * plan.path_length_every * penalty)
        self._average()
        return row

    def styles(self, count: int) -> Tensor:
        """Style vectors [count, styles, style_dim]; the mean w follows them, before any mixing."""
        model, number = self.model, self.model.synthesis.styles
        z = torch.randn(2, count, model.noise_dim, generator=self.random).to(model.mean_w)
        w = model.mapping(z[0])
        with torch.no_grad():
            model.mean_w.lerp_(w.mean(0), 1 - MEAN_DECAY)
        mixed = torch.rand(count, generator=self.random) < self.plan.mixing
        first = torch.randint(1, number, (count,), generator=self.random)
        other = (torch.arange(number) >= first[:, None]) & mixed[:, None]
        return torch.where(other[:, :, None].to(w.device), model.mapping(z[1])[:, None], w[:, None])

    def path_length(self, count: int) -> Tensor:
        """E[(|J^T y| - a)^2] with y ~ N(0, I) over the pixels, a the running mean of |J^T y| (eq. 4)."""
        styles = self.styles(count)
        images = self.model.synthesis(styles, self.random)
        y = torch.randn(images.shape, generator=self.random).to(images)
        lengths = path_lengths(images, styles, y)
        self.length.lerp_(lengths.detach().mean(), 1 - LENGTH_DECAY)
        return (lengths - self.length).square().mean()

    @torch.no_grad()
    def _average(self) -> None:
        weight = 1 - 0.5 ** (self.plan.batch_size / self.plan.average_images)
        kept = [*self.kept.mapping.parameters(), *self.kept.synthesis.parameters()]
        for average, now in zip(kept, self.makers, strict=True):
            average.lerp_(now, weight)
        self.kept.mean_w.copy_(self.model.mean_w)

    def _view(self, images: Tensor) -> Tensor:
        uniforms = torch.rand(len(images), Augment.DRAWS, generator=self.random)
        # A view's brightness and contrast are meant for [0, 1].
        return self.plan.augment(images / 2 + 0.5, uniforms) * 2 - 1

    def _adam(self, weights: list[nn.Parameter], every: int | None) -> torch.optim.Optimizer:
        """Adam, its rates corrected for the extra steps of a penalty every so often (appendix B)."""
        share = 1.0 if every is None else every / (every + 1)
        first, second = (beta**share for beta in self.plan.betas)
        return torch.optim.Adam(weights, self.plan.lr * share, (first, second), eps=1e-8)


def r1(critic: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Squared slope of the critic at each image, [n] (Mescheder et al., ICML 2018, eq. 9)."""
    images = images.detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
    return slope.square().flatten(1).sum(1)


def path_lengths(images: Tensor, styles: Tensor, y: Tensor) -> Tensor:
    """|J^T y| of every row, [n], its square averaged over layers, y scaled down by the root of the pixels.

    Args:
        images: [n, C, H, W] computed from `styles`.
        styles: [n, layers, style_dim].
        y: [n, C, H, W].
    """
    pixels = images.shape[2] * images.shape[3]
    (slope,) = torch.autograd.grad((images * y).sum() / pixels**0.5, styles, create_graph=True)
    return slope.square().sum(2).mean(1).sqrt()


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()
