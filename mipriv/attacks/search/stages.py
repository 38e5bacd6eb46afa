"""Images sought for features in stages, each from where the one before ended: least squares, or descent."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mipriv import draws
from mipriv.attacks.search.latents import at_least_one
from mipriv.attacks.search.matching import Map, Matching, roughness
from mipriv.attacks.search.pixels import Gaussian, total_variation
from mipriv.solvers.levenberg_marquardt import Schedule, levenberg_marquardt

Candidate = tuple[str, Tensor]


@dataclass(frozen=True)
class Level:
    """One stage of Levenberg and Marquardt's method.

    Attributes:
        smoothness: weight of the squared roughness a pixel, in units of the squared relative feature error.
        outer, inner: see `Schedule`.
    """

    smoothness: float
    outer: int
    inner: int


@dataclass(frozen=True)
class Descent:
    """One stage of Adam on the pixels.

    Attributes:
        steps, lr: of Adam.
        tv_weight: of the total variation a pixel, in units of the squared relative feature error.
    """

    steps: int
    lr: float
    tv_weight: float


@dataclass(frozen=True)
class Posterior:
    """The search for the most probable image, by Levenberg and Marquardt's method.

    Attributes:
        outer, inner: see `Schedule`.
    """

    outer: int = 12
    inner: int = 60

    def __post_init__(self) -> None:
        at_least_one(self, "outer", "inner")


class Counted(nn.Module):
    """A network that counts the images that it sees."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.seen = network, 0

    def forward(self, images: Tensor) -> Tensor:
        """What the network makes of them."""
        self.seen += len(images)
        features: Tensor = self.network(images)
        return features


class Stages:
    """Images [n, C, H, W] of which a network is to make what was observed, all rows together.

    Args:
        network: see `Matching`.
        z: what was observed, [n, *feature_shape].
        shape: of an image.
        box: least and greatest value of a pixel; None: any.
        held: how many of the rows, the first, are of images that the attacker has.
        chunk: most rows in memory together.
        report: called with steps of rows that were done.

    Attributes:
        z, matching: what was observed, and the equations that it leaves.
        passes: over the network so far, forward ones and products with its Jacobian or the transpose alike.
    """

    def __init__(
        self,
        network: Map,
        z: Tensor,
        shape: tuple[int, ...],
        *,
        box: tuple[float, float] | None,
        held: int,
        chunk: int,
        report: Callable[[int], None],
    ) -> None:
        self._shape, self._box, self._held, self._chunk, self._report = shape, box, held, chunk, report
        self.passes = 0
        self.observe(network, z)

    def observe(self, network: Map, z: Tensor) -> None:
        """From now on match z with what this network makes of images."""
        self.z, self.matching = z, Matching(network, z, self._shape)

    def gap(self, images: Tensor) -> float:
        """Relative feature residual of the held images, the median."""
        return float(self.matching.relative(images[: self._held]).median())

    def levels(
        self, name: str, start: Tensor, levels: tuple[Level, ...], lost: float | None = None
    ) -> list[Candidate]:
        """What every level leaves, each from where the one before ended; none after one above `lost`."""
        found = []
        for level in levels:
            parts = []
            for rows in self._chunks():
                solved = levenberg_marquardt(
                    self._equations(rows, level.smoothness),
                    start[rows],
                    Schedule(level.outer, level.inner),
                    box=self._box,
                )
                parts.append(solved.x)
                self.passes += int(solved.evaluations.sum())
                self._report(level.outer * len(rows))
            start = torch.cat(parts)
            found.append((f"{name}, smoothness {level.smoothness:g}", start))
            if lost is not None and self.gap(start) > lost:
                break
        return found

    def most_probable(self, prior: Gaussian, noise: float, search: Posterior) -> Candidate:
        """The image of the largest posterior density, where noise of that variance lies on what was observed.

        In whitened coordinates u of an image x it minimises |f(x) - z|^2 / noise + |u|^2, from the mean.
        Where a box is given pixels are clamped at the end alone.
        """
        parts = []
        for rows in self._chunks():
            start = torch.zeros(len(rows), *self._shape, dtype=self.z.dtype, device=self.z.device)
            solved = levenberg_marquardt(
                self._whitened(rows, prior, noise), start, Schedule(search.outer, search.inner)
            )
            images = prior.pixels(solved.x.flatten(1)).view_as(start)
            parts.append(images if self._box is None else images.clamp(*self._box))
            self.passes += int(solved.evaluations.sum())
            self._report(search.outer * len(rows))
        return "most probable image", torch.cat(parts)

    def _chunks(self) -> tuple[Tensor, ...]:
        rows: tuple[Tensor, ...] = torch.arange(len(self.z), device=self.z.device).split(self._chunk)
        return rows

    def _equations(self, rows: Tensor, smoothness: float) -> Callable[[Tensor, Tensor], Tensor]:
        """Of a chunk: features that do not match yet, and roughness."""
        root = smoothness**0.5
        return lambda x, at: torch.cat([self.matching(x, rows[at]), root * roughness(x)], 1)

    def _whitened(self, rows: Tensor, prior: Gaussian, noise: float) -> Callable[[Tensor, Tensor], Tensor]:
        """Of a chunk: features that do not match yet, and coordinates, each in standard deviations.

        A row's damping is thus on one scale with its prior.
        """
        weight = self.matching.unit / noise**0.5

        def equations(u: Tensor, at: Tensor) -> Tensor:
            flat = u.flatten(1)
            gaps = self.matching(prior.pixels(flat).view_as(u), rows[at])
            return torch.cat([weight[rows[at]] * gaps, flat], 1)

        return equations

    def descend(self, mean: Tensor, descents: tuple[Descent, ...], starts: int, seed: int) -> list[Candidate]:
        """What every stage of Adam leaves; of each row, over starts, the image of least feature residual.

        The first start is the mean, others are random.
        """
        best = [mean] * len(descents)
        least = [torch.full((len(mean),), torch.inf, dtype=mean.dtype, device=mean.device)] * len(best)
        for start in range(starts):
            # All rows start alike: what one begins from depends on no other.
            first = mean
            if start:
                random = draws.uniform(self._shape, seed, "start", start).to(mean)
                first = random.expand_as(mean)
            parts = [self._adam(first[rows], rows, descents) for rows in self._chunks()]
            for place, images in enumerate(map(torch.cat, zip(*parts, strict=True))):
                gaps = self.matching.relative(images)
                better = gaps < least[place]
                best[place] = torch.where(better[:, None, None, None], images, best[place])
                least[place] = torch.where(better, gaps, least[place])
        return [
            (f"adam, variation {d.tv_weight:g}", images) for d, images in zip(descents, best, strict=True)
        ]

    @torch.enable_grad()
    def _adam(self, start: Tensor, rows: Tensor, descents: tuple[Descent, ...]) -> list[Tensor]:
        """Images after every stage."""
        x, found = start.clone().requires_grad_(), []
        for descent in descents:
            adam = torch.optim.Adam([x], descent.lr)
            for _ in range(descent.steps):
                losses = self.matching(x, rows).square().sum(1) + descent.tv_weight * total_variation(x)
                (x.grad,) = torch.autograd.grad(losses.sum(), x)
                adam.step()
                if self._box is not None:
                    with torch.no_grad():
                        x.clamp_(*self._box)
                self._report(len(rows))
            self.passes += 2 * descent.steps * len(rows)
            found.append(x.detach().clone())
        return found
