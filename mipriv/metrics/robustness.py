"""Accuracy under small perturbations: whether a defence only shifts what a network looks at."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mipriv.errors import InputError


def robust_hits(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    steps: int = 10,
    chunk: int = 256,
) -> Tensor:
    """Whether each image is still classified rightly under projected gradient descent.

    Cross-entropy is ascended by the sign of its gradient within |x' - x| <= epsilon and [0, 1] (Madry et al.,
    ICLR 2018, section 2.1), from the image itself, by 2.5 epsilon / steps a step, so that the border is
    reached. An image counts as robust if no iterate, itself the first of them, is classified wrongly; where
    the gradient vanishes the attack stands still, so the result bounds robustness from above.

    Args:
        model: images to logits [n, K]; evaluated in evaluation mode and left as it was, on its device.
        images: [n, C, H, W] in [0, 1].
        labels: [n] int64.
        epsilon: of the L-infinity ball, in units of the image; 5e-4 in the analysis of TL-DMI.
        steps: of the attack.
        chunk: images at a time; rows do not affect each other.

    Returns:
        [n] bool, on the CPU.

    Raises:
        InputError: epsilon below 0, or no step.
    """
    if epsilon < 0 or steps < 1:
        raise InputError(f"epsilon: {epsilon}, steps: {steps}; allowed: from 0, from 1")
    device = next(model.parameters()).device
    parts = zip(images.split(chunk), labels.split(chunk), strict=True)
    with _evaluated(model):
        hits = [_survive(model, x.to(device), y.to(device), epsilon, steps).cpu() for x, y in parts]
    return torch.cat(hits)


def _survive(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, steps: int) -> Tensor:
    low, high = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
    x, right = images.detach(), torch.ones_like(labels, dtype=torch.bool)
    for _ in range(steps):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = model(x)
            loss = _slack(logits, labels).sum()
        right &= logits.argmax(1) == labels
        slope = torch.autograd.grad(loss, x)[0]
        x = (x.detach() + 2.5 * epsilon / steps * slope.sign()).clamp(low, high)
    with torch.no_grad():
        right &= model(x).argmax(1) == labels
    return right


def _slack(logits: Tensor, labels: Tensor) -> Tensor:
    """s with cross-entropy = log(1 + e^s): same signs of gradient, none rounded to zero by confidence.

    [n, K] and [n] to [n]: log sum over the other classes of e^f, less f of the right one.
    """
    own = labels[:, None]
    return logits.scatter(1, own, -torch.inf).logsumexp(1) - logits.gather(1, own)[:, 0]


@contextlib.contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block, and every module's own mode after it."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
