"""A simulator of class-mean classifiers under attack: what `membership_model` must meet."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipriv import draws
from mipriv.analysis.membership_model import Design, inflation, signals
from mipriv.errors import InputError

Array = NDArray[np.float64]

CHUNK = 2_048  # models whose choices are held at once


@dataclass(frozen=True, eq=False)
class Simulated:
    """TPR by counting.

    Attributes:
        tpr: [F], mean over examples, each with the threshold of its own.
        se: [F], standard error, from the spread between batches.
        deltas: [T], Delta of the examples judged, for the closed form on the same ones.
    """

    tpr: Array
    se: Array
    deltas: Array


def simulate(
    means: ArrayLike,
    covariance: ArrayLike,
    examples: int,
    fprs: Sequence[float],
    design: Design = "fresh",
    batches: int = 8,
    models: int = 9_999,
    targets: int = 256,
    seed: int = 0,
) -> Simulated:
    """TPR at FPRs of the attack on class-mean classifiers that knows an example's own scores, by Monte Carlo.

    A batch takes a class in turn, as no other class's mean enters s = <x, kept mean of y>. Each of its
    examples is left out by `models` classifiers, whose scores set its threshold, and kept by as many others:

    - `fresh`: x and, for each classifier, S or S - 1 others from the law. Of these only the sum matters,
      and it is drawn at once, being Gaussian too.
    - `half_split`: a pool of 2S, and random halves. A half and its complement give one classifier with x and
      one without; of each pair one is taken, OUT of some pairs and IN of others, so that all are independent
      given the pool.

    The threshold is the quantile at 1 - f of the OUT scores that is passed with probability f (type 6 of
    Hyndman and Fan: of P scores, the k-th highest at f = k / (P + 1)).

    Args:
        means: [C, D], orthonormal.
        covariance: [D, D], V.
        examples: S, kept a class.
        fprs: [F].
        design: how the others are drawn.
        batches: independent repetitions, each with its own examples and classifiers.
        models: classifiers of either side an example.
        targets: examples judged a batch; of half-splits at most the pool's 2S.
        seed: draws are keyed by it, the batch and what they are for.

    Raises:
        InputError: means that are not orthonormal, shapes that do not fit, fewer than 2 batches, or an FPR
            below the resolution, 1 / (models + 1).
    """
    centres, root = _checked(means, covariance)
    inflation(examples, design)  # refuses what the design cannot do
    if batches < 2 or targets < 1 or any(not 1 / (models + 1) <= f < 1 for f in fprs):
        raise InputError(
            f"simulate: {batches} batches of {targets} examples, FPRs {list(fprs)} by {models} models; "
            f"allowed: from 2, from 1, FPRs from {1 / (models + 1):.3g} to below 1"
        )
    rates, deltas = [], []
    for batch in range(batches):
        mean = centres[batch % len(centres)]
        draw = _fresh if design == "fresh" else _half_split
        x, outside, inside, sign = draw(mean, root, examples, models, targets, (seed, batch))
        thresholds = np.quantile(sign * outside, 1 - np.asarray(fprs), axis=0, method="weibull")
        rates.append([(sign * inside > threshold).mean() for threshold in thresholds])
        deltas.append(signals(x, mean, covariance))
    found = np.array(rates)
    return Simulated(found.mean(0), found.std(0, ddof=1) / np.sqrt(batches), np.concatenate(deltas))


def _fresh(
    mean: Array, root: Array, examples: int, models: int, targets: int, key: tuple[int, int]
) -> tuple[Array, Array, Array, Array]:
    """Examples [T, D], scores by classifiers without and with them [P, T], and on which side IN lies [T]."""
    x = mean + _normal((targets, len(mean)), *key, "targets") @ root
    scores = []
    for others, side in ((examples, "out"), (examples - 1, "in")):
        noise = _normal((models, len(mean)), *key, side) @ root
        scores.append((others * mean + np.sqrt(others) * noise) @ x.T / examples)
    own = (x * x).sum(1) / examples
    return x, scores[0], scores[1] + own, np.sign((x * (x - mean)).sum(1))


def _half_split(
    mean: Array, root: Array, examples: int, models: int, targets: int, key: tuple[int, int]
) -> tuple[Array, Array, Array, Array]:
    """As `_fresh`, of the first examples of one pool."""
    pool = mean + _normal((2 * examples, len(mean)), *key, "pool") @ root
    x = pool[:targets]
    total = x @ pool.sum(0) / examples
    sides = []
    for side, wanted in (("out", False), ("in", True)):
        random = draws.stream("class means", *key, side)
        parts = []
        for start in range(0, models, CHUNK):
            kept = _halves(min(CHUNK, models - start), examples, random)
            score = (kept @ pool) @ x.T / examples
            # The complement's sum is the total less this one's.
            parts.append(np.where(kept[:, : len(x)] == wanted, score, total - score))
        sides.append(np.concatenate(parts))
    others = (pool.sum(0) - x) / (2 * examples - 1)
    return x, sides[0], sides[1], np.sign((x * (x - others)).sum(1))


def _halves(models: int, examples: int, random: np.random.Generator) -> Array:
    """Which of 2S examples each model keeps, S of them: [models, 2S] of 0 and 1."""
    order = random.random((models, 2 * examples), dtype=np.float32).argpartition(examples, axis=1)
    kept = np.zeros((models, 2 * examples))
    np.put_along_axis(kept, order[:, :examples], 1.0, axis=1)
    return kept


def _normal(shape: tuple[int, int], *key: int | str) -> Array:
    return draws.stream("class means", *key).standard_normal(shape)


def _checked(means: ArrayLike, covariance: ArrayLike) -> tuple[Array, Array]:
    """Class means [C, D] and a root R of V = R'R [D, D], which also serves where V is singular."""
    centres, v = np.asarray(means, np.float64), np.asarray(covariance, np.float64)
    if centres.ndim != 2 or v.shape != 2 * centres.shape[1:] or not np.allclose(v, v.T):
        found = f"means of {list(centres.shape)}, a covariance of {list(v.shape)}"
        raise InputError(f"simulate: {found}; allowed: [C, D], and [D, D] symmetric")
    if not np.allclose(centres @ centres.T, np.eye(len(centres))):
        raise InputError("simulate: means that are not orthonormal; allowed: C orthonormal rows")
    values, vectors = np.linalg.eigh(v)
    if values[0] < -1e-12 * abs(values[-1]):
        raise InputError(f"simulate: a covariance with eigenvalue {values[0]:.3g}; allowed: none below 0")
    root: Array = np.sqrt(values.clip(0))[:, None] * vectors.T
    return centres, root
