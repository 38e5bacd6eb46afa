"""Every image by itself: descend on the pixels until the client would send what was observed.

White-box inversion (He et al., "Model Inversion Attacks Against Collaborative Inference", ACSAC 2019;
`MIA_mf` of CEM, Xia et al., CVPR 2025), with the expectation over what the defence draws (Athalye et al.,
ICML 2018).
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mipriv import draws
from mipriv.attacks.reconstruction import Access, Client, Knowledge, Progress, Recovered
from mipriv.attacks.search.latents import at_least_one
from mipriv.attacks.search.pixels import Gaussian, gaussian, total_variation
from mipriv.attacks.search.releases import CHUNK, Releases
from mipriv.errors import InputError
from mipriv.plugin import one_of

PROBES = 16  # releases of one image that tell what the defence draws


@dataclass(frozen=True)
class Channel:
    """What the attacker finds out about the client before the search.

    Attributes:
        random: two releases of one image differ.
        noise: variance of a feature over releases of one image, the mean over features.
        spread: variance of a feature over images, the mean over features.
    """

    random: bool
    noise: float
    spread: float


@dataclass(frozen=True)
class Optimise:
    """Minimise E|client(x) - z|^2 + prior over x, by AMSGrad from the mean of the attacker's images.

    z is the mean of a target's releases: of squared errors to each of them it is all that depends on x. E is
    the mean over `draws` fresh releases of x a step. The prior is

    - `none`;
    - `tv`: tv_weight times the total variation a pixel, the first term being a feature's mean in units of
      its variance over images; pixels are clamped after every step where they are bounded;
    - `gaussian`: that of the attacker's images. With r releases of noise variance s the loss is
      r/(2s) |client(x) - z|^2 + 1/2 |u|^2 in whitened coordinates u of x: for Gaussian noise its minimum
      is the most probable image, for a linear client also the posterior mean.

    Of steps and learning rate the published are 60 times 50 and 0.8, with neither prior nor decay. Here the
    rate falls to zero by a half cosine, so that what the defence draws averages out.

    A client that draws releases features row by row, each with a generator of its own, keyed by what was
    observed: otherwise a row would depend on its place among others.

    Attributes:
        prior: `tv`, `gaussian` or `none`.
        tv_weights: of which the one of least error on validation images is taken; a single one is not tried.
        noise: standard deviation of the release, where the attacker knows it; None: as measured on one image.
        least_noise: variance that `gaussian` assumes at least, over that of a feature over images: what a
            client without noise would need is an infinite weight.
        shrinkage: of the Gaussian's covariance; None: Ledoit and Wolf's.
        steps: of every row.
        lr: of AMSGrad. Of a client that is not linear `gaussian` may want less: whitened coordinates move all
            pixels, and a large step at the start can end in a worse minimum.
        draws: releases a step, of a client that draws.
        selection: validation images, at most, that `tv_weights` are tried on.
        chunk: most rows in memory together.
    """

    prior: str = "tv"
    tv_weights: tuple[float, ...] = (0.0, 1e-3, 1e-2, 1e-1, 1.0)
    noise: float | None = None
    least_noise: float = 1e-4
    shrinkage: float | None = None
    steps: int = 3_000
    lr: float = 0.8
    draws: int = 8
    selection: int = 16
    chunk: int = CHUNK

    access: ClassVar[Access] = "weights"

    def __post_init__(self) -> None:
        one_of(self.prior, ("tv", "gaussian", "none"), "prior")
        at_least_one(self, "steps", "draws", "selection", "chunk")
        if not self.tv_weights or min(self.tv_weights) < 0:
            raise InputError(f"tv_weights: {list(self.tv_weights)}; allowed: one or more, none below 0")
        for name in ("lr", "least_noise"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: above 0")
        if self.noise is not None and self.noise < 0:
            raise InputError(f"noise: {self.noise}; allowed: 0 or more, or null")
        if self.shrinkage is not None and not 0 <= self.shrinkage <= 1:
            raise InputError(f"shrinkage: {self.shrinkage}; allowed: 0 to 1, or null")

    @torch.enable_grad()
    def __call__(
        self,
        client: Client,
        known: Knowledge,
        observed: Tensor,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Recovered:
        """See `Reconstruction`; steps are steps of a row. Raises where no gradient passes the client."""
        asked = Releases(client, known, observed, seed)
        channel = self._measure(asked, known)
        weights = self.tv_weights if self.prior == "tv" else (0.0,)
        some = known.validation[: self.selection]
        tried = len(some) * len(weights) if len(weights) > 1 else 0
        total, done = self.steps * (tried + len(asked.targets)), 0

        def report(rows: int) -> None:
            nonlocal done
            done += rows
            if progress:
                progress(done, total)

        search = _Search(self, asked, known, channel, seed, report)
        weight, error, log = weights[0], None, []
        if tried:
            held, truth = asked.mean(some), some.to(asked.targets)
            for place, candidate in enumerate(weights):
                found, _ = search(held, candidate, f"validation {place}")
                found_error = (found - truth).square().mean().item()
                figures = {"tv_weight": candidate, "validation_error": found_error}
                log.append({"step": float(place), **figures})
            best = min(log, key=lambda row: row["validation_error"])
            weight, error = best["tv_weight"], best["validation_error"]
        images, more = search(asked.targets, weight, "targets")
        return Recovered(images, error, asked.queries, log + more)

    @torch.no_grad()
    def _measure(self, asked: Releases, known: Knowledge) -> Channel:
        """Ask about one image time and again, and about some images once."""
        one = torch.cat([asked.once(known.training[:1]) for _ in range(PROBES)])
        many = asked.once(known.training[:CHUNK])
        # A feature that is the same for every image has no unit.
        spread = max(many.var(0).mean().item(), torch.finfo(many.dtype).tiny)
        return Channel(not bool((one == one[0]).all()), one.var(0).mean().item(), spread)


class _Search:
    """The descent, for targets or for validation images alike."""

    def __init__(
        self,
        knobs: Optimise,
        asked: Releases,
        known: Knowledge,
        channel: Channel,
        seed: int,
        report: Callable[[int], None],
    ) -> None:
        self._knobs, self._asked, self._channel, self._seed = knobs, asked, channel, seed
        self._report, self._bounded = report, known.bounded
        self._shape = known.training.shape[1:]
        training = known.training.to(asked.targets)
        self._mean = training.mean(0)
        self._gaussian: Gaussian | None = None
        if knobs.prior == "gaussian":
            self._gaussian = gaussian(training, knobs.shrinkage)

    def __call__(self, targets: Tensor, tv_weight: float, name: str) -> tuple[Tensor, list[dict[str, float]]]:
        """Images [n, C, H, W] of averaged releases [n, *feature_shape], and figures of logged steps.

        The name is a part of the key of every row's draws.
        """
        found: list[Tensor] = []
        totals: dict[int, Tensor] = {}
        for part in targets.split(self._knobs.chunk):
            images, figures = self._descend(part, tv_weight, name)
            found.append(images)
            for step, row in figures.items():
                totals[step] = totals.get(step, torch.zeros(2, dtype=torch.float64)) + row
        rows = [(step, (sums / len(targets)).tolist()) for step, sums in totals.items()]
        log = [{"step": float(step), "loss": loss, "feature_error": gap} for step, (loss, gap) in rows]
        return torch.cat(found), log

    def _descend(self, targets: Tensor, tv_weight: float, name: str) -> tuple[Tensor, dict[int, Tensor]]:
        knobs, figures = self._knobs, {}
        randoms = [draws.generator(self._seed, name, _digest(row)) for row in targets]
        start = torch.zeros_like(self._mean) if self._gaussian else self._mean
        z = start.expand(len(targets), *self._shape).clone().requires_grad_()
        adam = torch.optim.Adam([z], knobs.lr, amsgrad=True)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, knobs.steps)
        for step in range(knobs.steps):
            images = self._images(z)
            gaps = self._gaps(images, targets, randoms)
            losses = self._losses(gaps, images, z, targets[0].numel(), tv_weight)
            (z.grad,) = torch.autograd.grad(losses.sum(), z)
            adam.step()
            falling.step()
            if self._bounded and self._gaussian is None:
                with torch.no_grad():
                    z.clamp_(0, 1)
            if step % max(1, knobs.steps // 50) == 0 or step == knobs.steps - 1:
                pair = torch.stack([losses.detach().sum(), gaps.detach().sum()])
                figures[step] = pair.double().cpu()
            self._report(len(targets))
        images = self._images(z.detach())
        return images.clamp(0, 1) if self._bounded else images, figures

    def _images(self, z: Tensor) -> Tensor:
        if self._gaussian is None:
            return z
        return self._gaussian.pixels(z.flatten(1)).view(z.shape)

    def _gaps(self, images: Tensor, targets: Tensor, randoms: list[torch.Generator]) -> Tensor:
        """Squared error a feature, the mean over features and draws: one a row."""
        if self._channel.random:
            sent = self._asked.times(images, randoms, self._knobs.draws)
        else:
            sent = self._asked.once(images)[:, None]
        if not sent.requires_grad:
            raise InputError("client: lets no gradient through; allowed: one that can be differentiated")
        gaps: Tensor = (sent - targets[:, None]).square().flatten(1).mean(1)
        return gaps

    def _losses(self, gaps: Tensor, images: Tensor, z: Tensor, features: int, tv_weight: float) -> Tensor:
        """What is minimised, one a row."""
        knobs, channel = self._knobs, self._channel
        if self._gaussian is not None:
            noise = channel.noise if knobs.noise is None else knobs.noise**2
            noise = max(noise, knobs.least_noise * channel.spread) / self._asked.repeats
            return features * gaps / (2 * noise) + z.square().flatten(1).sum(1) / 2
        losses = gaps / channel.spread
        return losses + tv_weight * total_variation(images) if tv_weight else losses


def _digest(row: Tensor) -> int:
    """A key of a row's own: the checksum of its bytes."""
    return zlib.crc32(row.detach().cpu().contiguous().numpy().tobytes())
