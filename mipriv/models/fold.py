"""Evaluation-mode batch normalisation folded into the layer before it: the same function, fewer passes.

An attack evaluates its victim thousands of times without ever training it, and memory traffic, not
arithmetic, bounds small networks on a CPU.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Normalisation = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


def folded(model: nn.Module, image_shape: tuple[int, int, int]) -> nn.Module:
    """A copy of `model` in evaluation mode with every foldable normalisation folded.

    A normalisation is folded where a probe shows that its input is the very output of a
    convolution or linear layer, which nothing else reads.

    Args:
        model: images [n, C, H, W] to any tensor; left as it is.
        image_shape: [C, H, W] of the probe.

    Raises:
        ArithmeticError: the folded copy computes something else: a defect here, not in the model.
    """
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    weight = next(copied.parameters())
    probe = torch.linspace(0, 1, 2 * image_shape[0] * image_shape[1] * image_shape[2], dtype=weight.dtype)
    probe = probe.view(2, *image_shape).to(weight.device)
    with torch.no_grad():
        expected, pairs = _trace(copied, probe)
        for first, second in pairs:
            before, after = copied.get_submodule(first), copied.get_submodule(second)
            _replace(copied, first, _fused(before, after))
            _replace(copied, second, nn.Identity())
        found = copied(probe)
    if not torch.allclose(expected, found, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
        raise ArithmeticError(
            f"{type(model).__name__}: folding normalisation changed what the model computes"
        )
    return copied


@torch.no_grad()
def pairs(model: nn.Module, image_shape: tuple[int, int, int]) -> list[tuple[str, str]]:
    """Names of each layer whose output feeds one normalisation only, and of that one, as `folded` finds them.

    Args:
        model: in evaluation mode, as a normalisation in training mode would take note of the probe.
        image_shape: [C, H, W] of the probe.
    """
    return _trace(model, torch.zeros(1, *image_shape).to(next(model.parameters())))[1]


class _Reads(TorchFunctionMode):
    """Counts, for tensors that it is told of, the functions that compute something from them."""

    def __init__(self) -> None:
        super().__init__()
        # The tensors are kept, so that the id of one is not given to another.
        self.tracked: dict[int, tuple[str, Tensor]] = {}
        self.count: dict[str, int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function; one that returns no tensor (a shape, say) reads nothing."""
        result = func(*args, **(kwargs or {}))
        if any(isinstance(part, Tensor) for part in tree_leaves(result)):
            for part in tree_leaves((args, kwargs or {})):
                if isinstance(part, Tensor) and id(part) in self.tracked:
                    name = self.tracked[id(part)][0]
                    self.count[name] = self.count.get(name, 0) + 1
        return result


def _trace(model: nn.Module, probe: Tensor) -> tuple[Tensor, list[tuple[str, str]]]:
    """The model's output and the (layer, normalisation) pairs in which one feeds only the other."""
    reads = _Reads()
    calls: dict[str, int] = {}
    pairs: list[tuple[str, str]] = []

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        calls[name] = calls.get(name, 0) + 1
        if isinstance(module, Convolution | nn.Linear):
            reads.tracked[id(output)] = name, output
        elif module.track_running_stats and id(inputs[0]) in reads.tracked:
            pairs.append((reads.tracked[id(inputs[0])][0], name))

    hooks = [
        module.register_forward_hook(lambda m, i, o, name=name: note(name, m, i, o))
        for name, module in model.named_modules()
        if isinstance(module, Convolution | nn.Linear | Normalisation)
    ]
    try:
        with reads:
            output = model(probe)
    finally:
        for hook in hooks:
            hook.remove()
    return output, [(a, b) for a, b in pairs if calls[a] == calls[b] == reads.count[a] == 1]


def _fused(layer: nn.Module, normalisation: nn.Module) -> nn.Module:
    fuse: Any = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
    fused: nn.Module = fuse(layer, normalisation)
    return fused.requires_grad_(False)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
