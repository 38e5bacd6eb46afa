"""The best affine map from what a client sends to pixels: cheap, and optimal for linear-Gaussian clients."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mipriv.attacks.reconstruction import Access, Client, Knowledge, Progress, Recovered
from mipriv.attacks.search.latents import at_least_one
from mipriv.attacks.search.releases import CHUNK, Releases
from mipriv.errors import InputError


@dataclass(frozen=True)
class Regression:
    """A ridge regression, solved for every penalty at once.

    Attributes:
        inside: [D], mean of what is mapped.
        outside: [d], mean of what it is mapped to.
        basis: [D, k], from centred features to coordinates in which the Gram matrix is diagonal.
        spectrum: [k], its diagonal, above 0.
        right: [k, d], from those coordinates, divided by spectrum + penalty, to pixels.
        unit: of the penalty: the Gram matrix's trace over D.
    """

    inside: Tensor
    outside: Tensor
    basis: Tensor
    spectrum: Tensor
    right: Tensor
    unit: Tensor

    def __call__(self, features: Tensor, penalty: float) -> Tensor:
        """Features [n, D] to pixels [n, d]; with penalty 0 the least squares of least norm."""
        coordinates = (features - self.inside) @ self.basis / (self.spectrum + penalty * self.unit)
        return self.outside + coordinates @ self.right


class Moments:
    """Sums over pairs of features [n, D] and pixels [n, d], enough for their regression.

    They are kept as D x D sums (the primal form), or as the pairs themselves where these are fewer than D
    (the dual form). All is relative to the means of the first part that is added, so that sums of squares
    do not cancel.

    Args:
        dual: keep the pairs.
    """

    def __init__(self, dual: bool) -> None:
        self._dual, self._count = dual, 0
        self._origin: tuple[Tensor, Tensor] | None = None
        self._sums: list[Tensor] = []
        self._pairs: list[tuple[Tensor, Tensor]] = []

    def add(self, features: Tensor, pixels: Tensor) -> None:
        """Take in a part."""
        self._origin = self._origin or (features.mean(0), pixels.mean(0))
        f, y = features - self._origin[0], pixels - self._origin[1]
        self._count += len(f)
        if self._dual:
            self._pairs.append((f, y))
            return
        new = [f.sum(0), y.sum(0), f.T @ f, f.T @ y]
        self._sums = [a + b for a, b in zip(self._sums, new, strict=True)] if self._sums else new

    def regression(self) -> Regression:
        """The regression of pixels on features, both centred."""
        assert self._origin is not None, "a part was added"
        inside, outside = self._origin
        if self._dual:
            f, y = (torch.cat(part) for part in zip(*self._pairs, strict=True))
            f_mean, y_mean = f.mean(0), y.mean(0)
            f, y = f - f_mean, y - y_mean
            spectrum, vectors = torch.linalg.eigh(f @ f.T)
            kept = self._kept(spectrum)
            basis, right = f.T @ vectors[:, kept], vectors[:, kept].T @ y
        else:
            f_sum, y_sum, ff, fy = self._sums
            f_mean, y_mean = f_sum / self._count, y_sum / self._count
            spectrum, vectors = torch.linalg.eigh(ff - torch.outer(f_sum, f_mean))
            kept = self._kept(spectrum)
            basis = vectors[:, kept]
            right = basis.T @ (fy - torch.outer(f_sum, y_mean))
        unit = spectrum.clamp(min=0).sum() / len(inside)
        return Regression(inside + f_mean, outside + y_mean, basis, spectrum[kept], right, unit)

    def _kept(self, spectrum: Tensor) -> Tensor:
        """Directions that are more than rounding."""
        rounding = torch.finfo(spectrum.dtype).eps * max(self._count, len(spectrum))
        return spectrum > rounding * spectrum[-1]


@dataclass(frozen=True)
class Affine:
    """Minimise |x - b - W z|^2 + penalty tr(Z'Z)/D |W|^2 over the attacker's images x and releases z of them.

    Closed form, in float64. Every training image is released `views` times over with fresh randomness, each
    an average of as many releases as a target has.

    Attributes:
        penalties: of which the one of least validation error is taken, times a feature's sum of squares.
        views: releases of every training image.
    """

    penalties: tuple[float, ...] = (0.0, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
    views: int = 4

    access: ClassVar[Access] = "queries"

    def __post_init__(self) -> None:
        at_least_one(self, "views")
        if not self.penalties or min(self.penalties) < 0:
            raise InputError(f"penalties: {list(self.penalties)}; allowed: one or more, none below 0")

    def __call__(
        self,
        client: Client,
        known: Knowledge,
        observed: Tensor,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Recovered:
        """See `Reconstruction`; steps are views of the training images."""
        asked = Releases(client, known, observed, seed)
        moments = Moments(dual=self.views * len(known.training) < asked.targets[0].numel())
        for view in range(self.views):
            for part in known.training.split(CHUNK):
                moments.add(_rows(asked.mean(part)), _rows(part.to(observed.device)))
            if progress:
                progress(view + 1, self.views)
        fitted = moments.regression()
        held, truth = _rows(asked.mean(known.validation)), _rows(known.validation.to(observed.device))
        log = []
        for step, penalty in enumerate(self.penalties):
            error = (_within(fitted(held, penalty), known) - truth).square().mean().item()
            log.append({"step": float(step), "penalty": penalty, "validation_error": error})
        best = min(log, key=lambda row: row["validation_error"])
        pixels = _within(fitted(_rows(asked.targets), best["penalty"]), known)
        images = pixels.view(-1, *known.training.shape[1:]).to(observed)
        return Recovered(images, best["validation_error"], asked.queries, log)


def _rows(batch: Tensor) -> Tensor:
    return batch.flatten(1).double()


def _within(pixels: Tensor, known: Knowledge) -> Tensor:
    return pixels.clamp(0, 1) if known.bounded else pixels
