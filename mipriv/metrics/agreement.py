"""Per-image agreement of judges: with the victim, and with an embedding that knows no label."""

import torch
from torch import Tensor

from mipriv.errors import InputError


def agreement(victim_logits: Tensor, judge_logits: Tensor) -> Tensor:
    """Whether victim and judge name the same person.

    Args:
        victim_logits: [n, K], on images of neither's training set.
        judge_logits: [n, K], on the same images.

    Returns:
        [n] bool.

    Raises:
        InputError: the two do not pair.
    """
    if victim_logits.shape != judge_logits.shape:
        found = f"{tuple(victim_logits.shape)} and {tuple(judge_logits.shape)}"
        raise InputError(f"agreement: logits of shapes {found}; allowed: equal shapes [n, K]")
    return victim_logits.argmax(1) == judge_logits.argmax(1)


def false_positives(accepted: Tensor, embedding_scores: Tensor, targets: Tensor) -> Tensor:
    """Whether a classifier takes an image for its target while the embedding's nearest person is another.

    Such images fool the classifier as adversarial examples do (Ho et al., arXiv 2505.03519, type I).
    Where the target shares the highest score with others, it is among the nearest: no false positive.

    Args:
        accepted: [n] bool, by the classifier.
        embedding_scores: [n, K], higher is nearer; `embedding.nearest`, negated.
        targets: [n] int64, from 0 to K - 1.

    Returns:
        [n] bool.

    Raises:
        InputError: another shape, or an `accepted` that is not bool.
    """
    n = len(embedding_scores)
    if accepted.dtype != torch.bool or accepted.shape != (n,) or targets.shape != (n,):
        found = f"{accepted.dtype} {tuple(accepted.shape)}, targets {tuple(targets.shape)}"
        raise InputError(f"false positives: accepted {found}; allowed: bool [{n}], targets [{n}]")
    own = embedding_scores.gather(1, targets[:, None])[:, 0]
    return accepted & (own < embedding_scores.amax(1))
