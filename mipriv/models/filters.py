"""Filters of a network's convolutions: which there are, what each is worth, and how one is silenced."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mipriv.models import fold

KEPT = "kept"  # buffer of a convolution: [C_out], 1 where a filter is kept


@dataclass(frozen=True)
class Layer:
    """A convolution, and the batch normalisation that alone reads it, if one does.

    Attributes:
        name: of the convolution.
        conv: itself.
        norm: None where something else follows.
        input_shape: (C, h, w) of what it convolves.
    """

    name: str
    conv: nn.Conv2d
    norm: nn.BatchNorm2d | None
    input_shape: tuple[int, int, int]

    def gate(self) -> list[Tensor]:
        """Weights and biases [C_out, ...] in which a filter's output is linear, the last ones that are."""
        last = self.conv if self.norm is None else self.norm
        return [parameter for parameter in (last.weight, last.bias) if parameter is not None]

    def scale(self) -> Tensor | None:
        """[C_out], by which the normalisation multiplies in evaluation mode; None without one."""
        if self.norm is None or self.norm.running_var is None:
            return None
        inverse = (self.norm.running_var + self.norm.eps).rsqrt()
        return inverse * self.norm.weight if self.norm.affine else inverse

    def kept(self) -> Tensor:
        """[C_out], 1 where a filter is kept; once `mark` has been called."""
        return self.conv.get_buffer(KEPT)


@torch.no_grad()
def layers(model: nn.Module, image_shape: tuple[int, int, int]) -> list[Layer]:
    """Every convolution that a forward pass reaches, in the order of the network's modules.

    Args:
        model: images [n, C, H, W] to anything, in any mode; left as it is.
        image_shape: [C, H, W].
    """
    shapes: dict[str, tuple[int, int, int]] = {}

    def note(name: str, inputs: tuple[Any, ...]) -> None:
        shapes[name] = tuple(inputs[0].shape[1:])

    modules = dict(model.named_modules())
    if not any(isinstance(module, nn.Conv2d) for module in modules.values()):
        return []
    modes = [(module, module.training) for module in modules.values()]
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs, name=name: note(name, inputs))
        for name, module in modules.items()
        if isinstance(module, nn.Conv2d)
    ]
    try:
        normed = dict(fold.pairs(model.eval(), image_shape))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes:
            module.training = mode
    found = []
    for name, module in modules.items():
        if isinstance(module, nn.Conv2d) and name in shapes:
            norm = modules[normed.get(name, name)]
            batch_norm = norm if isinstance(norm, nn.BatchNorm2d) else None
            found.append(Layer(name, module, batch_norm, shapes[name]))
    return found


def mark(those: list[Layer]) -> None:
    """Give every convolution the buffer `KEPT`, all ones, which is saved and loaded with its weights."""
    for layer in those:
        ones = torch.ones(layer.conv.out_channels, device=layer.conv.weight.device)
        layer.conv.register_buffer(KEPT, ones)


def worth(layer: Layer, slopes: list[Tensor]) -> Tensor:
    """First-order Taylor worth of filters (Molchanov et al., "Importance Estimation for Neural Network
    Pruning", CVPR 2019): (sum over a filter of g w)^2, the squared first-order change of the loss were the
    filter's output zero.

    It is taken at the normalisation behind a convolution where there is one: a loss that normalisation makes
    blind to a filter's scale has sum g w = 0 in front of it, whatever the filter is worth.

    Args:
        layer: of the filters.
        slopes: of the loss by `layer.gate()`.

    Returns:
        [C_out].
    """
    parts = zip(slopes, layer.gate(), strict=True)
    by_filter = [(g * w).detach().reshape(len(w), -1).sum(1) for g, w in parts]
    return torch.stack(by_filter).sum(0).square()


@torch.no_grad()
def silence(those: list[Layer]) -> None:
    """Zero what filters that are not kept put out, also behind their normalisation."""
    for layer in those:
        gone = layer.kept() == 0
        for module in (layer.conv, layer.norm):
            for parameter in (module.weight, module.bias) if module is not None else ():
                if parameter is not None:
                    parameter.masked_fill_(gone.view(-1, *[1] * (parameter.ndim - 1)), 0)


def least(worths: list[Tensor], count: int) -> list[Tensor]:
    """Which filters of all layers are worth least, though no layer loses its last.

    Args:
        worths: of a layer each, [C_out].
        count: of filters to go; fewer go where only last ones are left.

    Returns:
        Boolean masks of the same shapes, true for a filter that goes.
    """
    gone = [torch.zeros(len(those), dtype=torch.bool) for those in worths]
    places = [(i, j) for i, those in enumerate(worths) for j in range(len(those))]
    order = torch.cat([those.double().cpu() for those in worths]).argsort(stable=True).tolist()
    for i, j in (places[k] for k in order):
        if count and gone[i].sum() < len(gone[i]) - 1:
            gone[i][j] = True
            count -= 1
    return gone
