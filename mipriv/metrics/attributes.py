"""How well scores tell a private attribute, and against which floors.

Figures are taken over images of which each may count several times (`weights`), so that a bootstrap is one
call. All classes of the attribute weigh alike: accuracy is the mean of the recalls, a constant guess reaches
1 / K of K classes, and a rare class cannot be passed over. Classes without an image are left out.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
CHUNK = 200  # resamples of an area under a curve held at once


def hits(scores: Tensor, classes: Tensor) -> Array:
    """[..., n], 1 where the largest of scores [..., n, K] is at the class [n]; a tie is for the first."""
    right: Array = (scores.argmax(-1) == classes).double().numpy()
    return right


def balanced(right: Array, classes: NDArray[np.int64], weights: Array | None = None) -> Array:
    """Balanced accuracy of `right` [..., n] with classes [n]: [...], or [..., b] under weights [b, n]."""
    times = np.ones((1, len(classes))) if weights is None else weights
    # By class, so that each class's weights are a view: a copy for each takes longer than the products.
    order = classes.argsort(kind="stable")
    times, flat = times[:, order], right.reshape(-1, len(classes))[:, order]
    ends = np.append(np.flatnonzero(np.diff(classes[order])) + 1, len(classes))
    total, seen = np.zeros((len(flat), len(times))), np.zeros(len(times))
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        count = times[:, start:end].sum(1)
        total += flat[:, start:end] @ times[:, start:end].T / np.where(count > 0, count, 1)
        seen += count > 0
    found: Array = (total / np.maximum(seen, 1)).reshape(*right.shape[:-1], len(times))
    return found[..., 0] if weights is None else found


def auc(scores: Array, classes: NDArray[np.int64], weights: Array | None = None) -> Array:
    """Mean over classes of the area under the curve of one class against all others, ties half.

    Args:
        scores: [n, K]; of two classes the margin of the second counts.
        classes: [n].
        weights: [b, n].

    Returns:
        [b], or [1] without weights; NaN where no class has both an image and another's.
    """
    times = np.ones((1, len(classes))) if weights is None else weights
    margins = [scores[:, 1] - scores[:, 0]] if scores.shape[1] == 2 else list(scores.T)
    positive = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    areas = [_area(margin, classes == one, times) for margin, one in zip(margins, positive, strict=True)]
    stacked = np.stack(areas)
    known = ~np.isnan(stacked)
    found: Array = np.where(known, stacked, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)
    return found


def _area(margin: Array, own: NDArray[np.bool_], times: Array) -> Array:
    """[b]: the weight of others below each of one's own, those that tie by half."""
    values, place = np.unique(margin, return_inverse=True)
    found = np.empty(len(times))
    for start in range(0, len(times), CHUNK):
        part = times[start : start + CHUNK]
        mine, theirs = (_grouped(part * side, place, len(values)) for side in (own, ~own))
        below = theirs.cumsum(1) - theirs / 2
        both = mine.sum(1) * theirs.sum(1)
        found[start : start + CHUNK] = (mine * below).sum(1) / np.where(both > 0, both, np.nan)
    return found


def _grouped(weights: Array, place: NDArray[np.int64], groups: int) -> Array:
    """Weights [b, n] summed by the group of each column: [b, groups]."""
    order = place.argsort(kind="stable")
    starts = np.searchsorted(place[order], np.arange(groups))
    found: Array = np.add.reduceat(weights[:, order], starts, axis=1)
    return found


def majority(classes: NDArray[np.int64]) -> int:
    """The commonest class."""
    return int(np.bincount(classes).argmax())


def from_label(
    labels: NDArray[np.int64], classes: NDArray[np.int64], of: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Guess the attribute of images from their main label alone, best by `balanced` accuracy.

    Bayes's rule at equal prior odds: of a label the class of which it has the largest share, P(label |
    class). A label that was never seen tells nothing: the commonest class.

    Args:
        labels: [n], of the auditor's own images.
        classes: [n], of the attribute.
        of: [m], labels of targets.
        count: K.
    """
    known, place = np.unique(labels, return_inverse=True)
    table = np.zeros((len(known), count))
    np.add.at(table, (place, classes), 1)
    share = table / np.maximum(table.sum(0), 1)
    best = share.argmax(1)
    where = np.searchsorted(known, of).clip(max=len(known) - 1)
    found: NDArray[np.int64] = np.where(known[where] == of, best[where], majority(classes))
    return found


def recovered(accuracy: Array, floor: Array, undefended: Array) -> Array:
    """Of what undefended features tell beyond a floor, the share that is left; NaN where nothing."""
    gap = undefended - floor
    share: Array = (accuracy - floor) / np.where(gap > 0, gap, np.nan)
    return share
