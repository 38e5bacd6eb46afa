"""Spectral norms of convolutions as the linear maps that they are, by power iteration (Yoshida and Miyato,
"Spectral Norm Regularization for Improving the Generalizability of Deep Learning", arXiv:1705.10941).
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call


def squared_norm(
    conv: nn.Conv2d, scale: Tensor | None, start: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Square of the largest factor by which x -> scale conv(x), without its bias, stretches any x.

    The map itself, borders and stride included, rather than the kernel reshaped into a matrix, whose norm may
    lie on either side of it. Too few iterations underestimate.

    Args:
        conv: any.
        scale: [C_out], or None for ones.
        start: [1, C_in, h, w], not zero; of unit norm.
        iterations: of x <- A'A x / |A'A x|, from `start`.

    Returns:
        |A x|^2 of the last x, through which gradients reach the kernel and `scale` alone (at a singular
        vector they are the norm's own, by the envelope theorem), and that x, to begin with at the next step.
    """
    x = start
    fixed = conv.weight.detach()
    factor = None if scale is None else scale.detach()
    with torch.enable_grad():
        for _ in range(iterations):
            x = x.detach().requires_grad_()
            y = _linear(conv, fixed, factor, x)
            (back,) = torch.autograd.grad(y, x, y.detach())
            length = back.norm()
            x = torch.where(length > 0, back / length.clamp(min=torch.finfo(x.dtype).tiny), x)
    x = x.detach()
    return _linear(conv, conv.weight, scale, x).square().sum(), x


def _linear(conv: nn.Conv2d, kernel: Tensor, scale: Tensor | None, x: Tensor) -> Tensor:
    weights = {"weight": kernel}
    if conv.bias is not None:
        weights["bias"] = torch.zeros_like(conv.bias)
    y: Tensor = functional_call(conv, weights, (x,))
    return y if scale is None else y * scale.view(-1, 1, 1)
