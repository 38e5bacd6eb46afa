"""Weights in and out: safetensors, strictly; foreign files only where nothing in them is executed."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mipriv.errors import InputError
from mipriv.plugin import one_of


def save(model: nn.Module, path: Path) -> None:
    """Write a model's state dict as safetensors, contiguous and on the CPU."""
    save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, path)


def load_into(model: nn.Module, path: Path) -> None:
    """Fill a model from a safetensors file, every tensor or none.

    Raises:
        InputError: unreadable file, missing or unexpected tensors, or a shape that differs.
    """
    fill(model, read_safetensors(path), str(path))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, whose header is held against the bytes that there are.

    Raises:
        InputError: unreadable file.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error


def read(path: Path, entry: str | None = None) -> dict[str, Tensor]:
    """Tensors of a foreign file: safetensors by its ending, otherwise what `torch.save` wrote.

    Args:
        entry: see `read_state_dict`.

    Raises:
        InputError: no such file, or one that either refuses.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix != ".safetensors":
        return read_state_dict(path, entry)
    if entry is not None:
        raise InputError(f"{path}: entry {entry!r}; allowed: null, a safetensors file holds tensors alone")
    return read_safetensors(path)


def fill(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Copy a state dict into a model after checking that names and shapes agree exactly.

    Raises:
        InputError: naming the first tensor that is missing, unexpected or of another shape.
    """
    own = model.state_dict()
    for name in own.keys() - state.keys():
        raise InputError(f"{where}: tensor {name!r} is missing ({len(own)} tensors are expected)")
    for name in state.keys() - own.keys():
        raise InputError(f"{where}: unexpected tensor {name!r} (the model has none of that name)")
    for name, tensor in own.items():
        if tensor.shape != state[name].shape:
            found, wanted = tuple(state[name].shape), tuple(tensor.shape)
            raise InputError(f"{where}: tensor {name!r} has shape {found}; allowed: {wanted}")
    model.load_state_dict(dict(state), strict=True)


def read_state_dict(path: Path, entry: str | None = None) -> dict[str, Tensor]:
    """A foreign checkpoint's tensors, read with `weights_only=True`: no code in it runs.

    Args:
        entry: the name of the state dict in there, where a checkpoint holds more than one thing.

    Raises:
        InputError: the file is unreadable, holds more than tensors, or is no flat state dict.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile file chooses what its reader raises
        raise InputError(f"{path}: refused: not a plain file of tensors ({type(error).__name__})") from error
    if entry is not None:
        one_of(entry, [str(key) for key in state] if isinstance(state, dict) else [], f"{path}: entry")
        state = state[entry]
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        held = (
            ", ".join(repr(key)[:40] for key in list(state)[:6])
            if isinstance(state, dict)
            else type(state).__name__
        )
        said = f"it holds {held}; allowed is a flat mapping of names to tensors, or `entry` that names one"
        raise InputError(f"{path}: refused: {said}")
    return state
