"""Per-image measures of an inversion attack, as a judge of another architecture sees it."""

import torch
from torch import Tensor


def hits(logits: Tensor, identities: Tensor, k: int) -> Tensor:
    """Whether the target is among the judge's k most likely classes: the terms of AttAcc@k.

    Args:
        logits: [n, K] of the judge on reconstructions.
        identities: [n] int64 targets.
        k: 1 or 5 in the literature; capped at K.

    Returns:
        [n] bool.
    """
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return (best == identities[:, None]).any(1)


def knn_distance(features: Tensor, identities: Tensor, private: Tensor, labels: Tensor) -> Tensor:
    """Squared L2 distance to the nearest private image of the same class, in a judge's penultimate features.

    Args:
        features: [n, d] of reconstructions.
        identities: [n] int64 targets.
        private: [m, d] of the private training images.
        labels: [m] int64; every target must occur.

    Returns:
        [n].
    """
    # Differences rather than |a|^2 + |b|^2 - 2ab, which loses digits for near pairs; one class at a time.
    distance = torch.empty(len(features), dtype=features.dtype)
    for identity in identities.unique().tolist():
        rows = identities == identity
        pairs = features[rows][:, None] - private[labels == identity][None]
        distance[rows] = pairs.square().sum(-1).amin(1)
    return distance
