"""What several fresh auditors together tell of an attribute; intervals know of the choice among them.

Two figures. *Chosen*: an attacker takes, for each model, the auditor that did best on its own validation
images, and is judged on the test images; every resample draws the validation images anew and chooses again.
*Maximum*: the best of all on the test images, taken anew in every resample; it has looked at the test images
and flatters the attacker, so that it is never below what an attacker of these auditors reaches.

Test images, or the people on them, and training seeds are resampled independently, by the weights of
`stats.weights`: figures of the same images and seeds are resampled alike, so that shares of them pair.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from mipriv import stats
from mipriv.errors import InputError
from mipriv.metrics import attributes as metrics
from mipriv.metrics.attributes import Array
from mipriv.stats import Figure

LEAST_GAP = 0.1  # between undefended features and the floor, under which a share of it is not told
RESAMPLES = 400  # of an area under a curve, which is sorted
METHOD = "pigeonhole bootstrap"
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sample:
    """The images that figures are taken over.

    Attributes:
        classes: [I], of the attribute.
        owners: [I], which images are drawn together: the person on each; [0, 1, 2, ...] where all are
            independent.
        held: [V], classes of validation images.
        held_owners: [V].
        seeds: S, of training.
    """

    classes: Labels
    owners: Labels
    held: Labels
    held_owners: Labels
    seeds: int

    @cached_property
    def units(self) -> int:
        """Independent ones."""
        return len(np.unique(self.owners))

    @cached_property
    def weights(self) -> tuple[Array, Array, Array]:
        """Of seeds [1 + B, S], images [1 + B, I] and validation images [1 + B, V]; first row: all alike."""
        by_seed, by_unit = stats.weights((self.seeds, self.units), 0)
        by_seed = np.concatenate([np.full((1, self.seeds), 1 / self.seeds), by_seed])
        images = by_unit[:, np.unique(self.owners, return_inverse=True)[1]]
        names, place = np.unique(self.held_owners, return_inverse=True)
        again = _again(len(names), len(images))
        ones = [np.ones((1, len(of))) for of in (self.classes, self.held)]
        return (
            by_seed,
            np.concatenate([ones[0], images]),
            np.concatenate([ones[1], again[:, place].astype(float)]),
        )

    def accuracy(self, hits: Array) -> Array:
        """Balanced accuracy in every resample of hits [..., S, I], over seeds: [..., 1 + B]."""
        return self.over_seeds(metrics.balanced(hits, self.classes, self.weights[1]))

    def over_seeds(self, values: Array) -> Array:
        """Mean over the seeds of each resample of values [..., S, 1 + B]."""
        found: Array = np.einsum("...sb,bs->...b", values, self.weights[0])
        return found

    def figure(self, again: Array, method: str = METHOD) -> Figure:
        """A point [0] and its resamples [1:]; those that are undefined are left out."""
        point, drawn = float(again[0]), again[1:][~np.isnan(again[1:])]
        if not len(drawn) or np.ptp(drawn) < 1e-12:  # no resample differs: what could still hold
            lone = stats.proportion(round(min(max(point, 0.0), 1.0) * self.units), self.units)
            return Figure(
                point, min(lone.low, point), max(lone.high, point), self.units, self.seeds, lone.method
            )
        low, high = stats.interval(drawn)
        return Figure(point, low, high, self.units, self.seeds, method)


@lru_cache(maxsize=2)
def _again(units: int, resamples: int) -> NDArray[np.int64]:
    """How often each validation image is drawn: the same for every arm."""
    return stats.counts(units, resamples, np.random.Generator(np.random.PCG64(1)))


@dataclass(frozen=True, eq=False)
class Audit:
    """All auditors on one defended arm.

    Attributes:
        names: of A auditors.
        scores: [A, S, I, K].
        held: [A, S, V, K], on validation images.
        sample: see `Sample`.

    Raises:
        InputError: shapes that do not belong together.
    """

    names: tuple[str, ...]
    scores: NDArray[np.float32]
    held: NDArray[np.float32]
    sample: Sample

    def __post_init__(self) -> None:
        wanted = (len(self.names), self.sample.seeds)
        shapes = (self.scores.shape[:3], self.held.shape[:3])
        if shapes != ((*wanted, len(self.sample.classes)), (*wanted, len(self.sample.held))):
            raise InputError(
                f"audit: scores {shapes[0]}, {shapes[1]}; allowed: {wanted} and a score of every image"
            )

    @cached_property
    def hits(self) -> Array:
        """[A, S, I]."""
        right: Array = (self.scores.argmax(-1) == self.sample.classes).astype(np.float64)
        return right

    @cached_property
    def held_hits(self) -> Array:
        """[A, S, V]."""
        right: Array = (self.held.argmax(-1) == self.sample.held).astype(np.float64)
        return right

    @cached_property
    def choice(self) -> NDArray[np.int64]:
        """Which auditor is chosen on validation, [S, 1 + B]."""
        told = metrics.balanced(self.held_hits, self.sample.held, self.sample.weights[2])
        found: NDArray[np.int64] = told.argmax(0)
        return found

    @cached_property
    def told(self) -> Array:
        """Balanced accuracy of every auditor, [A, S, 1 + B]."""
        return metrics.balanced(self.hits, self.sample.classes, self.sample.weights[1])

    @cached_property
    def chosen(self) -> Array:
        """Balanced accuracy of the chosen, [1 + B]."""
        return self.sample.over_seeds(np.take_along_axis(self.told, self.choice[None], 0)[0])

    @cached_property
    def maximum(self) -> Array:
        """Of the mean over seeds, [1 + B]."""
        found: Array = self.sample.over_seeds(self.told).max(0)
        return found

    @property
    def chosen_names(self) -> list[str]:
        """Of each seed."""
        return [self.names[at] for at in self.choice[:, 0]]

    @property
    def validation(self) -> float:
        """Balanced accuracy on validation of what is chosen by it, mean over seeds; strengths go by it."""
        told = metrics.balanced(self.held_hits, self.sample.held)
        return float(told.max(0).mean())

    def each(self) -> dict[str, Figure]:
        """Balanced accuracy of every auditor."""
        told = self.sample.over_seeds(self.told)
        return {name: self.sample.figure(again) for name, again in zip(self.names, told, strict=True)}

    def auc(self) -> Figure:
        """Area under the curve of the chosen, with fewer resamples (see `RESAMPLES`)."""
        by_seed, images, _ = self.sample.weights
        few = images[: 1 + RESAMPLES]
        areas = np.stack(
            [
                metrics.auc(self.scores[at, seed].astype(np.float64), self.sample.classes, few)
                for seed, at in enumerate(self.choice[:, 0])
            ]
        )
        return self.sample.figure(np.einsum("sb,bs->b", areas, by_seed[: 1 + RESAMPLES]))


def share(sample: Sample, accuracy: Array, floor: Array, undefended: Array) -> Figure | str:
    """The share of what undefended features tell beyond the floor that is left, or why it is withheld.

    Args:
        accuracy: [1 + B], as `Audit.chosen`.
        floor: [1 + B], of the best predictor that needs no feature.
        undefended: [1 + B], of the undefended client's.
    """
    gap = float(undefended[0] - floor[0])
    if gap < LEAST_GAP:
        return f"undefended less floor: {gap:.3f}; a share is told from {LEAST_GAP:g}"
    return sample.figure(metrics.recovered(accuracy, floor, undefended), "paired pigeonhole bootstrap")
