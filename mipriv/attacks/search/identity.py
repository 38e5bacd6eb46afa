"""Identity losses of model inversion: how far a victim's logits are from naming the target, one a row."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

IdentityLoss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(f)_y (GMI, KEDMI): [r, K] and [r] int64 to [r]."""
    return F.cross_entropy(logits, labels, reduction="none")


def poincare(logits: Tensor, labels: Tensor) -> Tensor:
    """Poincaré distance of L1-normalised logits to the (nearly) one-hot target, one a row.

    arccosh(1 + 2 |u - v|^2 / ((1 - |u|^2)(1 - |v|^2))) with u = logits / |logits|_1 and v = onehot - 1e-4
    (Struppek et al. 2022, eq. 5). Computed in float32 or wider.

    Args:
        logits: [r, K].
        labels: [r] int64.

    Returns:
        [r].
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    u = logits.to(wide)
    u = u / u.abs().sum(1, keepdim=True)
    v = F.one_hot(labels, logits.shape[1]).to(wide) - 1e-4
    # A logit that takes the whole L1 norm puts u on the boundary of the ball, where the distance is infinite.
    room = (1 - u.square().sum(1)).clamp(min=1e-6)
    gap = 2 * (u - v).square().sum(1) / (room * (1 - v.square().sum(1)))
    return torch.acosh(1 + gap)


def max_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{k != y} f_k - f_y (PLG-MI, Yuan et al., AAAI 2023, eq. 5): [r, K] and [r] int64 to [r]."""
    target = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], float("-inf"))
    return others.amax(1) - target


def logit(logits: Tensor, labels: Tensor) -> Tensor:
    """-f_y, which unlike the cross-entropy does not saturate (LOMMA, Nguyen et al., CVPR 2023, eq. 6)."""
    return -logits.gather(1, labels[:, None]).squeeze(1)


LOSSES: dict[str, IdentityLoss] = {
    "cross_entropy": cross_entropy,
    "poincare": poincare,
    "max_margin": max_margin,
    "logit": logit,
}
