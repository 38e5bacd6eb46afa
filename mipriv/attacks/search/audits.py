"""What auditors of attributes share: scaled features, repeated queries, classes that nobody has seen.

Features are standardised by what the auditor was sent. A channel that a defence has silenced has no spread
but rounding; divided by it, the first unusual target would outweigh all else. Deviations are therefore held
above a share of the typical one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from mipriv.attacks.attributes import Known, Told
from mipriv.errors import InputError
from mipriv.metrics import attributes as metrics
from mipriv.plugin import one_of

Predict = Callable[[Tensor], Tensor]  # features [n, *feature_shape], scaled, to scores [n, K]
DEAD = 1e-2  # least deviation, of the root mean square of all
UNSEEN = -20.0  # score of a class that was on no training image: log of two in a thousand million


@dataclass(frozen=True)
class Scale:
    """Features to zero mean and unit deviation, each by itself.

    Attributes:
        mean: [*feature_shape].
        deviation: [*feature_shape], see the module.
    """

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Scale":
        """That of features [q, n, *feature_shape]."""
        rows = features.flatten(0, 1)
        mean = rows.mean(0)
        deviation = (rows - mean).square().mean(0).sqrt()
        typical = float(deviation.square().mean().sqrt())
        return cls(mean, deviation.clamp_min(DEAD * typical if typical > 0 else 1.0))

    def __call__(self, features: Tensor) -> Tensor:
        """[..., *feature_shape]."""
        return (features - self.mean) / self.deviation


@dataclass(frozen=True, eq=False)
class Rows:
    """Scaled features one a row, with their classes.

    Attributes:
        x: [n, *feature_shape] float32.
        y: [n] int64.
        held_x: [v, *feature_shape], to select by.
        held_y: [v].
        classes: K.
    """

    x: Tensor
    y: Tensor
    held_x: Tensor
    held_y: Tensor
    classes: int

    @property
    def weights(self) -> Tensor:
        """[K] float32, by which every class that is there weighs alike; 0 of one that is not."""
        return class_weights(self.y, self.classes)

    @property
    def flat(self) -> "Rows":
        """The same with features [n, d]."""
        return Rows(self.x.flatten(1), self.y, self.held_x.flatten(1), self.held_y, self.classes)

    def rank(self, scores: Tensor) -> tuple[float, float]:
        """Of scores [v, K] of the held rows, higher for better: balanced accuracy, then likelihood."""
        right = metrics.balanced(metrics.hits(scores, self.held_y), self.held_y.numpy())
        weights = class_weights(self.held_y, self.classes)
        return float(right), -float(F.cross_entropy(scores.float(), self.held_y, weights))


@dataclass(frozen=True)
class FromFeatures:
    """An auditor that learns from scaled rows; a subclass says how.

    Attributes:
        average: what is averaged over repeated queries of an image: its `features` before anything is
            learnt, or the `scores`, where every query is a row to learn from.
    """

    average: str = "features"

    def __post_init__(self) -> None:
        one_of(self.average, ("features", "scores"), "average")

    def _told(
        self, known: Known, observed: Tensor, learn: Callable[[Rows], tuple[Predict, dict[str, float]]]
    ) -> Told:
        if observed.ndim < 3 or (*observed.shape[:1], *observed.shape[2:]) != (
            *known.training.shape[:1],
            *known.training.shape[2:],
        ):
            given = [list(part.shape) for part in (observed, known.training)]
            raise InputError(
                f"observed: {given[0]}; allowed: queries and features as in training, {given[1]}"
            )
        parts = [part.detach().float().cpu() for part in (known.training, known.validation, observed)]
        if self.average == "features":
            parts = [part.mean(0, keepdim=True) for part in parts]
        scale = Scale.of(parts[0])
        training, held, targets = (scale(part) for part in parts)
        rows = Rows(
            training.flatten(0, 1),
            known.training_classes.repeat(len(training)),
            held.flatten(0, 1),
            known.validation_classes.repeat(len(held)),
            known.classes,
        )
        predict: Predict
        with one_thread():
            if len(rows.y.unique()) == 1:  # an attacker that has seen one class guesses it
                only = F.one_hot(rows.y[:1], known.classes).float().log().clamp_min(UNSEEN)

                def guess(x: Tensor) -> Tensor:
                    return only.expand(len(x), -1)

                predict, notes = guess, {"one class": 1.0}
            else:
                predict, notes = learn(rows)
            with torch.no_grad():
                told = [
                    predict(part.flatten(0, 1)).float().unflatten(0, part.shape[:2]).mean(0)
                    for part in (held, targets)
                ]
        return Told(told[0], told[1], notes)


@dataclass(frozen=True)
class Learner(FromFeatures, ABC):
    """One that needs features and classes alone; see `Auditor`."""

    def __call__(self, known: Known, observed: Tensor, *, seed: int) -> Told:
        """See `Auditor`."""
        return self._told(known, observed, lambda rows: self._learn(rows, seed))

    @abstractmethod
    def _learn(self, rows: Rows, seed: int) -> tuple[Predict, dict[str, float]]:
        """Scores of any rows, and what was chosen."""


def class_weights(y: Tensor, classes: int) -> Tensor:
    """[K], n / (classes there * images of one), 0 of one without."""
    counts = torch.bincount(y, minlength=classes).float()
    return torch.where(counts > 0, len(y) / (counts.clamp_min(1) * (counts > 0).sum()), 0.0)


def spread(scores: Tensor, present: Tensor, classes: int) -> Tensor:
    """Scores [n, P] of the classes present [P] as [n, K], `UNSEEN` at all others."""
    found = torch.full((len(scores), classes), UNSEEN)
    found[:, present] = scores.float().clamp_min(UNSEEN)
    return found


def chosen(
    rows: Rows, options: Iterator[tuple[float, Predict]], name: str
) -> tuple[Predict, dict[str, float]]:
    """Of options, each a value and what predicts by it, the one that ranks first on the held rows."""
    ranked = [
        (rows.rank(predict(rows.held_x)), -place, value, predict)
        for place, (value, predict) in enumerate(options)
    ]
    _, _, value, predict = max(ranked, key=lambda one: one[:2])
    return predict, {name: value}


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order, whatever the machine: neither torch nor scikit-learn takes a second thread."""
    threads = torch.get_num_threads()
    with threadpool_limits(1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
