"""Hidden outputs, read off where they arise: forward hooks with an end."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mipriv.errors import InputError
from mipriv.plugin import one_of

DEPTH = 3  # of the module names that a refusal offers


class Taps:
    """Keeps what named modules put out while gradients are recorded, until it is taken.

    Evaluation under `no_grad` passes unseen. An output is copied: the activation behind it may overwrite it.

    Args:
        model: hooks stay on it until `remove`.
        names: of modules in it.
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        self._outputs: dict[str, Tensor] = {}
        self._hooks = [
            model.get_submodule(name).register_forward_hook(partial(self._keep, name)) for name in names
        ]

    def _keep(self, name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if torch.is_grad_enabled() and isinstance(output, Tensor):
            self._outputs[name] = output.clone()

    def take(self) -> dict[str, Tensor]:
        """Outputs [n, ...] of the last forward pass by module name, handed over once."""
        outputs, self._outputs = self._outputs, {}
        return outputs

    def remove(self) -> None:
        """Take every hook off the model."""
        for hook in self._hooks:
            hook.remove()


def probe(model: nn.Module, names: Iterable[str], image_shape: tuple[int, int, int]) -> dict[str, Tensor]:
    """What named modules put out for one black image of [C, H, W]; the model is left as it was.

    Args:
        model: in any mode; evaluated in evaluation mode, with gradients recorded.
        names: each once, at least one.

    Raises:
        InputError: none or one twice, a name that no module has, or a module that a forward pass does not
            reach or that puts out something other than a tensor.
    """
    names = list(names)
    if not names or len(set(names)) < len(names):
        raise InputError(f"layers: {names}; allowed: one or more names of modules, each once")
    modules = dict(model.named_modules())
    short = [name for name in modules if name and name.count(".") < DEPTH]
    for name in names:
        if not name or name not in modules:
            one_of(name, short, "layers")
    outputs = _outputs(model, names, image_shape)
    for name in names:
        if name not in outputs:
            raise InputError(f"layers: {name!r} puts out no tensor; allowed: a module that does")
    return outputs


def _outputs(model: nn.Module, names: list[str], image_shape: tuple[int, int, int]) -> dict[str, Tensor]:
    taps, modes = Taps(model, names), {module: module.training for module in model.modules()}
    weight = next(model.parameters())
    try:
        model.eval()
        with torch.enable_grad():
            model(torch.zeros(1, *image_shape, device=weight.device, dtype=weight.dtype))
    finally:
        taps.remove()
        for module, training in modes.items():
            module.training = training
    return taps.take()
