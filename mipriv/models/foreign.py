"""A classifier that the project did not train: somebody's architecture and weights, made one to attack.

Nothing in a file is executed: weights are tensors or they are refused. The one exception is a factory of the
user's own, `module:factory`, whose import runs its code; it has to be asked for by `allow_code`.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from mipriv import plugin
from mipriv.data.files import one_line
from mipriv.draws import seeded
from mipriv.errors import InputError
from mipriv.models import weights
from mipriv.models.classifiers import Classifier, Normalise

OWN = "plugin:"
RESERVED = ("weights", "weights_backbone", "progress", "num_classes")
COUNTER = ".num_batches_tracked"
ALLOWED = "a classification model of torchvision, plugin:NAME, or module:factory with allow_code: true"


@dataclass(frozen=True)
class Preprocessing:
    """What happens to images in [0, 1] before the network sees them.

    Attributes:
        input_size: [height, width] that the network wants; None: as the images are.
        mean: subtracted, a number a channel of the network; one grey channel is repeated where there are 3.
        std: divided by, as many.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3) or min(self.std, default=0) <= 0:
            given = f"mean {list(self.mean)}, std {list(self.std)}"
            raise InputError(f"preprocessing: {given}; allowed: 1 or 3 numbers each, std above 0")
        if self.input_size is not None and min(self.input_size) < 1:
            raise InputError(
                f"input_size: {list(self.input_size)}; allowed: [height, width], above 0, or null"
            )

    def layer(self) -> nn.Module:
        """Images [n, C, H, W] to what the network takes, differentiable."""
        scaled = Normalise(self.mean, self.std)
        if self.input_size is None:
            return scaled
        return nn.Sequential(nn.Upsample(self.input_size, mode="bilinear"), scaled)


@dataclass(frozen=True)
class Blueprint:
    """Which network, and which file fills it.

    Attributes:
        arch: see `ALLOWED`.
        weights: a safetensors file (by its ending), or one that `torch.save` wrote.
        knobs: keyword arguments of the network's maker.
        allow_code: whether `module:factory` may be imported, which runs it.
        entry: where a checkpoint holds more than a state dict, the name that it has in there.
        prefix: taken off the front of every name that has it, e.g. ``module.``.
        rename: first parts of names, in the file and in the network.
        drop: names, or first parts of names, of tensors that are passed over.
    """

    arch: str
    weights: str
    knobs: Mapping[str, Any] = field(default_factory=dict)
    allow_code: bool = False
    entry: str | None = None
    prefix: str = ""
    rename: Mapping[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()

    def build(self, classes: int, shape: tuple[int, int, int]) -> nn.Module:
        """The untrained network: images [n, *shape] to logits [n, classes].

        Raises:
            InputError: no such architecture, knobs that it does not take, or code that was not asked for.
        """
        if ":" not in self.arch:
            return self._torchvision(classes)
        if self.arch.startswith(OWN):
            architecture = plugin.load("classifier", self.arch.removeprefix(OWN), **self.knobs)
            with seeded(0, "overwritten"):
                model: Classifier = architecture.build(classes, shape)
            model.normalise = nn.Identity()
            return model
        if not self.allow_code:
            said = f"{self.arch!r} names code, and importing it runs it"
            raise InputError(f"arch: {said}; allowed: {ALLOWED}")
        return self._code()

    def _torchvision(self, classes: int) -> nn.Module:
        names = torchvision.models.list_models(torchvision.models)
        plugin.one_of(self.arch, names, f"arch (allowed: {ALLOWED}); torchvision model")
        for name in RESERVED:
            if name in self.knobs:
                raise InputError(
                    f"knobs: {name!r} is not yours to set; allowed: what {self.arch} takes otherwise"
                )
        with seeded(0, "overwritten"):
            return self._made(torchvision.models.get_model, self.arch, weights=None, num_classes=classes)

    def _code(self) -> nn.Module:
        module, _, name = self.arch.partition(":")
        try:
            factory = getattr(importlib.import_module(module), name)
        except Exception as error:  # it is the user's code that runs
            raise InputError(f"arch: {self.arch!r} cannot be imported ({one_line(error)})") from error
        return self._made(factory)

    def _made(self, factory: Any, *arguments: Any, **own: Any) -> nn.Module:
        try:
            model = factory(*arguments, **own, **self.knobs)
        except Exception as error:
            raise InputError(f"arch: {self.arch!r} cannot be built ({one_line(error)})") from error
        if not isinstance(model, nn.Module):
            raise InputError(f"arch: {self.arch!r} made a {type(model).__name__}; allowed: a torch.nn.Module")
        return model

    def state(self, path: Path) -> dict[str, Tensor]:
        """The tensors of a file under the network's own names.

        Raises:
            InputError: see `weights.read`; or two tensors that renaming gives one name.
        """
        found: dict[str, Tensor] = {}
        for name, tensor in weights.read(path, self.entry).items():
            if any(name == part or name.startswith(f"{part}.") for part in self.drop):
                continue
            new = self._renamed(name.removeprefix(self.prefix))
            if new in found:
                raise InputError(
                    f"{str(path)!r}: two tensors would be {new!r}; allowed: another prefix or rename"
                )
            found[new] = tensor
        return found

    def _renamed(self, name: str) -> str:
        for old, new in self.rename.items():
            if name == old or name.startswith(f"{old}."):
                return new + name.removeprefix(old)
        return name


class Foreign(nn.Module):
    """`network(normalise(x))`, images in [0, 1] in, logits out.

    Args:
        network: a classifier that takes normalised images.
        preprocessing: what it wants done before.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.normalise, self.network = preprocessing.layer(), network

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, K] of images [n, C, H, W] in [0, 1]."""
        logits: Tensor = self.network(self.normalise(x))
        return logits


def load(
    blueprint: Blueprint,
    path: Path,
    preprocessing: Preprocessing,
    image_shape: tuple[int, int, int],
    classes: int,
) -> Foreign:
    """A victim in evaluation mode, on the CPU.

    Args:
        path: of the weights, brought here and its variables filled in.
        image_shape: [C, H, W] of the data.
        classes: outputs of the network.

    Raises:
        InputError: one line, if anything does not fit: tensors missing, left over, of another shape or not
            finite; another number of classes; images that the network cannot take.
    """
    network = blueprint.build(
        classes, (len(preprocessing.mean), *(preprocessing.input_size or image_shape[1:]))
    )
    state = blueprint.state(path)
    _refuse_classes(network, state, str(path), classes)
    weights.fill(network, _checked(network, state, str(path)), str(path))
    if image_shape[0] not in (1, len(preprocessing.mean)):
        said = f"images of {image_shape[0]} channels, mean of {len(preprocessing.mean)}"
        raise InputError(f"preprocessing: {said}; allowed: as many, or grey images")
    model = Foreign(network, preprocessing).eval()
    probe = torch.full((2, *image_shape), 0.5)
    try:
        with torch.no_grad():
            found = model(probe)
    except Exception as error:
        raise InputError(
            f"{blueprint.arch}: takes no images {list(image_shape)} ({one_line(error)})"
        ) from error
    if not isinstance(found, Tensor) or found.shape != (2, classes) or not found.isfinite().all():
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(
            f"{blueprint.arch}: answers {shape} to 2 images; allowed: finite logits [2, {classes}]"
        )
    return model


def outputs_of(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Which output of a network is of each class of the data.

    Args:
        names: of the data's classes.
        classes: names in the order of the network's outputs.

    Raises:
        InputError: a name given twice, or a class of the data that the network does not know.
    """
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if list(classes).count(name) > 1)
        raise InputError(
            f"classes: {twice!r} is there twice; allowed: each name once, in the order of outputs"
        )
    unknown = [name for name in names if name not in classes]
    if unknown:
        known = ", ".join(map(repr, classes[:5])) + (", ..." if len(classes) > 5 else "")
        raise InputError(f"classes: no {unknown[0]!r}, a class of the data; given: {len(classes)}: {known}")
    return [list(classes).index(name) for name in names]


def _refuse_classes(network: nn.Module, state: Mapping[str, Tensor], where: str, classes: int) -> None:
    """The last layer of another length has a line of its own: it is the label map that is wrong."""
    own = network.state_dict()
    wrong = {n for n, tensor in own.items() if n in state and state[n].shape != tensor.shape}
    heads = {n for n in wrong if own[n].ndim and own[n].shape[0] == classes and state[n].ndim == own[n].ndim}
    if wrong and wrong == heads and all(state[n].shape[1:] == own[n].shape[1:] for n in heads):
        found = int(state[next(iter(heads))].shape[0])
        last = sorted(heads)[-1]
        raise InputError(f"{where}: {found} classes by {last!r}; the data and `classes` say {classes}")


def _checked(network: nn.Module, state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """A state dict held against the network's. Older files lack counters that evaluation does not read."""
    for name, tensor in network.state_dict().items():
        if name not in state:
            if name.endswith(COUNTER):
                state[name] = tensor
            continue  # `fill` names the others
        given = state[name]
        if given.layout is not torch.strided or given.is_floating_point() != tensor.is_floating_point():
            raise InputError(
                f"{where}: tensor {name!r} is {given.dtype}, {given.layout}; allowed: {tensor.dtype}"
            )
        if given.shape == tensor.shape and given.is_floating_point() and not given.isfinite().all():
            raise InputError(f"{where}: tensor {name!r} holds values that are not finite")
    return state
