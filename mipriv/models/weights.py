"""Weights in and out: safetensors, strictly; foreign files only where nothing in them is executed."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mipriv.errors import InputError


def save(model: nn.Module, path: Path) -> None:
    """Write a model's state dict as safetensors, contiguous and on the CPU."""
    save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, path)


def load_into(model: nn.Module, path: Path) -> None:
    """Fill a model from a safetensors file, every tensor or none.

    Raises:
        InputError: unreadable file, missing or unexpected tensors, or a shape that differs.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error
    fill(model, state, str(path))


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


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A foreign checkpoint's tensors, read with `weights_only=True`: no code in it runs.

    Raises:
        InputError: the file is unreadable, holds more than tensors, or is no flat state dict.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: refused: not a plain file of tensors ({type(error).__name__})") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path}: refused: allowed is a flat mapping of names to tensors")
    return state
