"""Where a network is cut: everything up to a named module, in the order of execution.

Registration order and execution order differ in general, and partial freezing counted over the
wrong one freezes the wrong layers; so the order is observed on a probe.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mipriv.errors import InputError
from mipriv.plugin import one_of


@dataclass(frozen=True)
class Leaf:
    """A module that owns parameters or buffers of its own.

    Attributes:
        name: as in `named_modules`.
        kind: class name.
        parameters: how many it owns.
    """

    name: str
    kind: str
    parameters: int


def execution_order(model: nn.Module, image_shape: tuple[int, int, int]) -> list[Leaf]:
    """Leaves with weights or buffers in the order in which one image of [C, H, W] first reaches them."""
    seen: dict[str, Leaf] = {}
    hooks = []

    def note(name: str, module: nn.Module) -> None:
        count = sum(p.numel() for p in module.parameters(recurse=False))
        seen.setdefault(name, Leaf(name, type(module).__name__, count))

    for name, module in model.named_modules():
        if any(True for _ in module.parameters(recurse=False)) or _persistent_buffers(module):
            hooks.append(module.register_forward_pre_hook(lambda m, _, name=name: note(name, m)))
    was_training = model.training
    try:
        model.eval()
        with torch.no_grad():
            weight = next(model.parameters())
            model(torch.zeros(1, *image_shape, device=weight.device, dtype=weight.dtype))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return list(seen.values())


def front(order: list[Leaf], module: str) -> list[Leaf]:
    """Leaves up to and including the last one inside `module`.

    Raises:
        InputError: no layer lies at or below that name; the allowed names are listed.
    """
    inside = [i for i, leaf in enumerate(order) if leaf.name == module or leaf.name.startswith(f"{module}.")]
    if not inside:
        one_of(module, names(order), "cut")
    return order[: inside[-1] + 1]


def front_by_fraction(order: list[Leaf], fraction: float) -> list[Leaf]:
    """The first `fraction` of the leaves (rounded down), the head never among them.

    Raises:
        InputError: a fraction outside [0, 1).
    """
    if not 0 <= fraction < 1:
        raise InputError(f"cut fraction: {fraction}; allowed: 0 <= fraction < 1")
    return order[: min(int(fraction * len(order)), len(order) - 1)]


def front_by_budget(order: list[Leaf], trainable: int) -> list[Leaf]:
    """The shortest front that leaves at most `trainable` parameters behind it.

    Raises:
        InputError: a budget that the last layer alone exceeds.
    """
    remaining = sum(leaf.parameters for leaf in order)
    for i, leaf in enumerate(order):
        if remaining <= trainable:
            return order[:i]
        remaining -= leaf.parameters
    raise InputError(
        f"cut parameters: {trainable}; allowed: at least {order[-1].parameters} (the last layer)"
    )


def account(model: nn.Module, image_shape: tuple[int, int, int]) -> list[dict[str, str | int]]:
    """Trainable and frozen parameters a layer, in the order of execution."""
    rows: list[dict[str, str | int]] = []
    for leaf in execution_order(model, image_shape):
        own = list(model.get_submodule(leaf.name).parameters(recurse=False))
        trainable = sum(p.numel() for p in own if p.requires_grad)
        row: dict[str, str | int] = {
            "layer": leaf.name,
            "kind": leaf.kind,
            "trainable": trainable,
            "frozen": leaf.parameters - trainable,
        }
        rows.append(row)
    return rows


def names(order: list[Leaf]) -> list[str]:
    """Every prefix of a leaf's name that is short enough to be worth offering."""
    names = {".".join(leaf.name.split(".")[:depth]) for leaf in order for depth in (1, 2, 3)}
    return sorted(names)


def _persistent_buffers(module: nn.Module) -> list[Tensor]:
    kept = set(module.state_dict(keep_vars=True))
    return [buffer for name, buffer in module.named_buffers(recurse=False) if name in kept]
