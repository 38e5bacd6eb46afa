"""What a network costs the device that runs it: parameters, multiply-accumulates, and bytes sent."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mipriv.models.split_classifier import Shape, SplitClassifier

FLOAT = 4  # bytes

Forward = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


@dataclass(frozen=True)
class Cost:
    """Of a network.

    Attributes:
        parameters: all of them, trained or not, each counted once.
        macs: multiply-accumulates of one image.
    """

    parameters: int
    macs: int


@dataclass(frozen=True)
class ClientCost(Cost):
    """Of the client of a split network.

    Attributes:
        bytes: sent an image, its features as float32.
    """

    bytes: int


def cost(module: nn.Module, input_shape: tuple[int, ...]) -> Cost:
    """Parameters, and the multiply-accumulates that one input of this shape takes.

    What counts are convolutions, transposed convolutions and linear layers, as often as they run; biases,
    normalisation, activations, pooling and whatever is no module (the products of attention) do not.

    Args:
        module: left as it is, its mode and statistics, too.
        input_shape: of one input, without the batch.
    """
    macs = 0

    def note(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        nonlocal macs
        macs += _macs(layer, inputs[0], output)

    layers = [layer for layer in module.modules() if isinstance(layer, Forward | Transposed | nn.Linear)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    modes = [(part, part.training) for part in module.modules()]
    weight = next(module.parameters(), torch.zeros(0))
    try:
        module.eval()
        with torch.no_grad():
            module(torch.zeros(1, *input_shape, device=weight.device, dtype=weight.dtype))
    finally:
        for part, training in modes:
            part.training = training
        for hook in hooks:
            hook.remove()
    return Cost(sum(weight.numel() for weight in module.parameters()), macs)


def _macs(layer: nn.Module, x: Tensor, y: Tensor) -> int:
    """A weight is used once for every place that the layer writes to, or, transposed, reads from."""
    if isinstance(layer, nn.Linear):
        return layer.weight.numel() * (y.numel() // layer.out_features)
    if isinstance(layer, Transposed):
        return layer.weight.numel() * (x.numel() // layer.in_channels)
    assert isinstance(layer, Forward)
    return layer.weight.numel() * (y.numel() // layer.out_channels)


def client_cost(model: SplitClassifier, image_shape: Shape) -> ClientCost:
    """What a split network costs its client for one image of (C, H, W)."""
    found = cost(model.client, image_shape)
    return ClientCost(found.parameters, found.macs, FLOAT * model.width)
