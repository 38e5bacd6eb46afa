"""Whom an image shows, as an embedding that knows no label sees it."""

import torch
from torch import Tensor

from mipriv.errors import InputError


def nearest(features: Tensor, gallery: Tensor, labels: Tensor, people: int) -> Tensor:
    """Euclidean distance to the nearest gallery image of each person; its negative serves as scores.

    Args:
        features: [n, d] of the images to judge.
        gallery: [m, d] of known images.
        labels: [m] int64, the person on each, from 0 to people - 1; every person must occur.
        people: K.

    Returns:
        [n, K].

    Raises:
        InputError: a label outside that range, or a person without an image.
    """
    here = labels.unique().tolist()
    if here != list(range(people)):
        raise InputError(f"gallery: {len(here)} people; allowed: images of each of 0 to {people - 1}")
    # Without the products |a|^2 + |b|^2 - 2ab, which lose digits for near pairs.
    distance = torch.cdist(features, gallery, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.stack([distance[:, labels == person].amin(1) for person in range(people)], 1)
