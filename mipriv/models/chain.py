"""A residual network as a chain: layers in front, then blocks y = output(shortcut(x) + branch(x)).

Knows the blocks of this package (`_residual`, `_ir`) and those of torchvision's ResNets.
"""

from dataclasses import dataclass

from torch import Tensor, fx, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from mipriv.errors import InputError
from mipriv.models.classifiers import _ir, _residual

BLOCKS = (_residual.Block, _ir.Block, BasicBlock, Bottleneck)


@dataclass(frozen=True, eq=False)
class Residual:
    """One block, its layers shared with the network.

    Attributes:
        name: as in the network.
        module: the block itself.
        affine: W_1, W_2, ...: each a sequence of convolutions and normalisations.
        activations: between them, one fewer.
        shortcut: S.
        relu: a ReLU follows the sum.
    """

    name: str
    module: nn.Module
    affine: tuple[nn.Module, ...]
    activations: tuple[nn.Module, ...]
    shortcut: nn.Module
    relu: bool

    @property
    def identity(self) -> bool:
        """S(x) is x."""
        return isinstance(self.shortcut, nn.Identity) or (
            isinstance(self.shortcut, nn.MaxPool2d)
            and self.shortcut.kernel_size == 1
            and self.shortcut.stride == 1
        )

    def branch(self, x: Tensor) -> Tensor:
        """F(x): the block without its shortcut and without what follows the sum."""
        for layers, activation in zip(self.affine, (*self.activations, nn.Identity()), strict=True):
            x = activation(layers(x))
        return x


@dataclass(frozen=True, eq=False)
class Chain:
    """Layers and blocks in the order of execution.

    Attributes:
        stem: modules in front of the first block.
        blocks: residual blocks.
        tail: modules behind the last block.
    """

    stem: tuple[nn.Module, ...]
    blocks: tuple[Residual, ...]
    tail: tuple[nn.Module, ...]

    @staticmethod
    def of(network: nn.Module) -> "Chain":
        """The chain that a network is.

        Raises:
            InputError: it is none: something beside its blocks is read twice, or is no module.
        """
        stem: list[nn.Module] = []
        blocks: list[Residual] = []
        tail: list[nn.Module] = []
        for name, module in _sequence(network):
            if isinstance(module, BLOCKS):
                if tail:
                    raise InputError(f"network: {name!r} lies behind other layers; allowed: blocks in a row")
                blocks.append(_block(name, module))
            else:
                (tail if blocks else stem).append(module)
        return Chain(tuple(stem), tuple(blocks), tuple(tail))


class _Blockwise(fx.Tracer):
    """Sees blocks and layers, and nothing inside of them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether `m` is called rather than traced."""
        inside = any(isinstance(part, BLOCKS) for part in m.modules() if part is not m)
        return isinstance(m, BLOCKS) or not (inside or isinstance(m, nn.Sequential | fx.GraphModule))


def _sequence(network: nn.Module) -> list[tuple[str, nn.Module]]:
    try:
        graph = _Blockwise().trace(network)
    except Exception as error:  # the network's own code runs: it may raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"network: cannot be traced as a chain of residual blocks ({reason})") from error
    found: list[tuple[str, nn.Module]] = []
    last: fx.Node | None = None
    for node in graph.nodes:
        if node.op == "placeholder" and last is None:
            last = node
            continue
        if node.op == "output":
            break
        if node.op != "call_module" or node.args != (last,):
            name = getattr(node.target, "__name__", node.target)
            raise InputError(f"network: {name!r} is no module of a chain; allowed: residual blocks in a row")
        found.append((str(node.target), network.get_submodule(str(node.target))))
        last = node
    return found


def _block(name: str, module: nn.Module) -> Residual:
    if isinstance(module, _ir.Block):
        norm, first, activation, second, last = module.residual
        affine = (nn.Sequential(norm, first), nn.Sequential(second, last))
        return Residual(name, module, affine, (activation,), module.shortcut, relu=False)
    if isinstance(module, _residual.Block):
        affine = (nn.Sequential(module.conv1, module.bn1), nn.Sequential(module.conv2, module.bn2))
        return Residual(name, module, affine, (nn.ReLU(),), module.shortcut, relu=True)
    assert isinstance(module, BasicBlock | Bottleneck)
    layers = [nn.Sequential(module.conv1, module.bn1), nn.Sequential(module.conv2, module.bn2)]
    if isinstance(module, Bottleneck):
        layers.append(nn.Sequential(module.conv3, module.bn3))
    shortcut = nn.Identity() if module.downsample is None else module.downsample
    between = tuple(nn.ReLU() for _ in layers[1:])
    return Residual(name, module, tuple(layers), between, shortcut, relu=True)
