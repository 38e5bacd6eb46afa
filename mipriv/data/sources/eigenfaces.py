"""Faces drawn from a Gaussian that was fitted to real ones, so that their law is known.

Turk and Pentland, "Eigenfaces for Recognition", 1991, and Tipping and Bishop, "Probabilistic Principal
Component Analysis", 1999: x = mean + components + pixel noise. Of each component's variance a share lies
between identities, as in Prince and Elder, "Probabilistic Linear Discriminant Analysis for Inferences About
Identity", 2007, with one subspace for both.
"""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mipriv import plugin
from mipriv.data.law import GaussianLaw
from mipriv.data.sources import Lawful, Record, Source
from mipriv.data.transform import Transform
from mipriv.draws import stream
from mipriv.errors import InputError


@dataclass(frozen=True)
class Fit:
    """Principal components of faces, over pixels in the order C, H, W.

    Attributes:
        mean: float64 [d].
        basis: float64 [k, d], orthonormal rows.
        variances: float64 [k], of the faces along each.
    """

    mean: NDArray[np.float64]
    basis: NDArray[np.float64]
    variances: NDArray[np.float64]


@dataclass(frozen=True)
class Eigenfaces:
    """Images of people who never were: paths ``p0/0`` and so on, labels ``p0``.

    An identity's mean is the faces' mean plus a draw of the variance between identities; an image is that
    mean plus a draw of the variance within them, plus noise. Draws hang on (seed, identity, image) alone.
    Values are float32 and not clipped to [0, 1], or the law would no longer be theirs.

    Attributes:
        shape: [height, width] that the faces are brought to, and that the images have.
        components: k, fewer than the faces and at most the pixels.
        noise: standard deviation of each pixel's own noise, above 0.
        identities: how many.
        images: of each identity.
        between: share of each component's variance that lies between identities, from 0 to 1.
        seed: from 0.
        source: name of the source of the faces.
        knobs: its knobs.
        channels: 1 or 3.
    """

    shape: tuple[int, int] | list[int]
    components: int
    noise: float
    identities: int
    images: int
    between: float
    seed: int
    source: str = "orl"
    knobs: dict[str, Any] = field(default_factory=dict)
    channels: Literal[1, 3] = 1

    def __post_init__(self) -> None:
        shape = self.shape
        sized = (
            isinstance(shape, list | tuple) and len(shape) == 2 and all(_is_count(side, 1) for side in shape)
        )
        _require(sized, "shape", shape, "[height, width], above 0")
        for knob, least in {"components": 1, "identities": 1, "images": 1, "seed": 0}.items():
            value = getattr(self, knob)
            _require(_is_count(value, least), knob, value, f"an integer from {least}")
        _require(0 < self.noise < np.inf, "noise", self.noise, "finite, above 0")
        _require(0 <= self.between <= 1, "between", self.between, "from 0 to 1")
        _require(self.channels in (1, 3), "channels", self.channels, "1 or 3")

    def records(self) -> list[Record]:
        """All images, none of them drawn yet.

        Raises:
            InputError: what the source of the faces refuses, or more components than it has faces for.
        """
        faces = self._faces
        _require(not isinstance(faces, Lawful), "source", self.source, "a source of faces in [0, 1]")
        n = len(faces.records())
        most = min(n - 1, self._dim)
        _require(self.components <= most, "components", self.components, f"1 to {most}, of {n} faces")
        images = [(i, j) for i in range(self.identities) for j in range(self.images)]
        return [Record(f"p{i}/{j}", f"p{i}", {}) for i, j in images]

    def read(self, record: Record) -> NDArray[np.float32]:
        """float32 [height, width, channels], unclipped; the first call reads all faces."""
        i, j = map(int, record.path.removeprefix("p").split("/"))
        k, fit = self.components, self._fit
        draws = stream("eigenfaces", self.seed, i, j).standard_normal(k + self._dim)
        within = (draws[:k] * np.sqrt((1 - self.between) * fit.variances)) @ fit.basis
        pixels = self._means[i] + within + self.noise * draws[k:]
        planes = pixels.astype(np.float32).reshape(self.channels, *self.shape)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))

    def digest(self, record: Record) -> str:
        """Hex sha256 of the image's own bytes."""
        return hashlib.sha256(self.read(record).tobytes()).hexdigest()

    def law(self) -> GaussianLaw:
        """Of an image given its identity; the first call of this or `read` reads all faces."""
        fit = self._fit
        within = (1 - self.between) * fit.variances
        return GaussianLaw(torch.from_numpy(fit.basis), torch.from_numpy(within), float(self.noise))

    @property
    def _dim(self) -> int:
        return self.channels * self.shape[0] * self.shape[1]

    @cached_property
    def _faces(self) -> Source:
        faces: Source = plugin.load("source", self.source, **self.knobs)
        return faces

    @cached_property
    def _fit(self) -> Fit:
        transform = Transform(self.shape, None, self.channels)
        faces = [transform.apply(self._faces.read(record), record.path) for record in self._faces.records()]
        return _principal(np.stack([_pixels(face) for face in faces]), self.components)

    @cached_property
    def _means(self) -> list[NDArray[np.float64]]:
        """[d] of each identity; one by one, as a product of all at once may round by how many they are."""
        fit, seed = self._fit, self.seed
        spread = np.sqrt(self.between * fit.variances)
        draws = (stream("eigenfaces", seed, i).standard_normal(len(spread)) for i in range(self.identities))
        return [fit.mean + (draw * spread) @ fit.basis for draw in draws]


def _pixels(face: NDArray[Any]) -> NDArray[np.float64]:
    """[H, W, C] uint8 or float32 to float64 [C x H x W] in [0, 1]."""
    scale = 255 if face.dtype == np.uint8 else 1
    return face.transpose(2, 0, 1).reshape(-1).astype(np.float64) / scale


def _principal(faces: NDArray[np.float64], components: int) -> Fit:
    """Principal components of rows [N, d]."""
    mean = faces.mean(0)
    _, spread, axes = np.linalg.svd(faces - mean, full_matrices=False)
    basis = axes[:components]
    # The sign of a singular vector is the library's choice: fix it, so that images do not depend on it.
    largest = np.take_along_axis(basis, np.abs(basis).argmax(1)[:, None], 1)
    return Fit(mean, basis * np.sign(largest), spread[:components] ** 2 / (len(faces) - 1))


def _is_count(value: object, least: int) -> bool:
    return type(value) is int and value >= least


def _require(good: bool, knob: str, value: object, allowed: str) -> None:
    if not good:
        raise InputError(f"source eigenfaces, {knob}: {value!r}; allowed: {allowed}")
