"""Any network cut in two after a named module: a client that sees images, a server that sees features.

The network is traced symbolically (Reed et al., "torch.fx", MLSys 2022), but only through the modules
around the cut. Every other module is called as it stands, so what it does inside, and in which mode,
need not be traceable.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from mipriv.errors import InputError
from mipriv.models import cut as cuts
from mipriv.plugin import one_of


@dataclass(frozen=True)
class Split:
    """A network in two parts: `server(client(x))` is what the network returns, to the bit.

    Both parts hold the network's own modules and parameters, under their names there, and follow its mode.

    Attributes:
        cut: the client's last module.
        client: images [n, C, H, W] to features [n, *feature_shape].
        server: features to what the network returns; the identity where nothing lies behind the cut.
        feature_shape: of one image's features, e.g. (C, h, w) behind a convolution.
    """

    cut: str
    client: nn.Module
    server: nn.Module
    feature_shape: tuple[int, ...]


def split(model: nn.Module, module: str, image_shape: tuple[int, int, int]) -> Split:
    """Cut a network after a module.

    Where a part of the network is replaced later, or the network moved to another device, it has to be
    split again.

    Args:
        model: images [n, C, H, W] to anything; left as it is.
        module: name of the last module in front of the cut, as in `named_modules`.
        image_shape: [C, H, W].

    Raises:
        InputError: no such module; one that does not run exactly once, or whose output is no tensor; a cut
            that a skip connection crosses; or a network that cannot be traced around the cut.
    """
    inside = dict(model.named_modules(remove_duplicate=False))
    if not module or module not in inside:
        one_of(module, cuts.names(cuts.execution_order(model, image_shape)), "cut")
    graph, place = _traced(model, module, inside[module])
    end = _output(graph)
    first, used = {place, *_needed(place)}, _needed(end)
    behind = [node for node in graph.nodes if node in used and node not in first]
    read = {node: reader for reader in [*behind, end] for node in reader.all_input_nodes}
    shared = [node for node in graph.nodes if node in first and node in read and node is not place]
    for node in shared:
        # What the network itself holds, a parameter, both parts may read.
        if node.op != "get_attr":
            what = f"{_named(read[node])} behind it also reads {_named(node)} before it"
            raise InputError(f"cut: {module!r} is crossed by a skip connection ({what}); allowed: {_RUNS}")
    client = _part(model, [node for node in graph.nodes if node in first], None, place)
    server = _part(model, [*shared, *behind], place, end.args[0])
    return Split(module, client, server, _probed(model, client, server, image_shape, module))


PROBES = 2  # forward evaluations of the network that a split costs, in images

_RUNS = "a module that runs exactly once and whose output is all that what follows reads"


class _Around(fx.Tracer):
    """Traces through the modules that contain the cut, and calls every other as it stands."""

    def __init__(self, cut: nn.Module) -> None:
        super().__init__()
        self.cut = cut

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether `m` is called rather than traced."""
        return m is self.cut or all(inner is not self.cut for inner in m.modules())


def _traced(model: nn.Module, name: str, cut: nn.Module) -> tuple[fx.Graph, fx.Node]:
    """The graph around a cut, and the node of the cut in it."""
    modes = [(part, part.training) for part in model.modules()]
    graphs = {}
    try:
        for training in (True, False):
            model.train(training)
            graphs[training] = _Around(cut).trace(model)
    except Exception as error:  # the network's own code runs: it may raise anything
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"cut: {name!r}: the network cannot be traced around it ({reason[0]})") from error
    finally:
        for part, mode in modes:
            part.training = mode
    if _text(graphs[True]) != _text(graphs[False]):
        what = "a module around it computes differently in training mode by code of its own"
        raise InputError(f"cut: {name!r}: {what}; allowed: a module outside of that one")
    graph = graphs[False]
    calls = [n for n in graph.nodes if n.op == "call_module" and model.get_submodule(str(n.target)) is cut]
    if len(calls) != 1 or calls[0] not in _needed(_output(graph)):
        times = f"runs {len(calls)} times" if len(calls) != 1 else "runs, but its output is not used"
        raise InputError(f"cut: {name!r} {times}; allowed: {_RUNS}")
    return graph, calls[0]


def _text(graph: fx.Graph) -> list[str]:
    return [f"{node.op} {node.target} {node.args} {node.kwargs}" for node in graph.nodes]


def _output(graph: fx.Graph) -> fx.Node:
    found: fx.Node = next(node for node in graph.nodes if node.op == "output")
    return found


def _needed(node: fx.Node) -> set[fx.Node]:
    """Every node that a node's value depends on."""
    found: set[fx.Node] = set()
    todo = list(node.all_input_nodes)
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            todo += one.all_input_nodes
    return found


def _named(node: fx.Node) -> str:
    if node.op == "placeholder":
        return "the images"
    name = getattr(node.target, "__name__", str(node.target))
    return "what the network returns" if node.op == "output" else repr(name)


def _part(
    model: nn.Module, nodes: list[fx.Node], entry: fx.Node | None, result: fx.node.Argument
) -> nn.Module:
    """A module of some nodes of the model's graph, which takes the value of `entry` where one is given."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    if entry is not None:
        # What follows may work in place: whoever sent the features keeps them.
        copies[entry] = graph.call_method("clone", (graph.placeholder("features"),))
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(fx.node.map_arg(result, copies.__getitem__))
    graph.lint()
    return fx.GraphModule(model, graph)


def _probed(
    model: nn.Module, client: nn.Module, server: nn.Module, image_shape: tuple[int, int, int], name: str
) -> tuple[int, ...]:
    """The shape of one image's features, once the parts are seen to do what the network does."""
    modes = [(part, part.training) for part in model.modules()]
    weight = next(model.parameters())
    count = image_shape[0] * image_shape[1] * image_shape[2]
    probe = torch.linspace(0, 1, count, dtype=weight.dtype).view(1, *image_shape).to(weight.device)
    try:
        model.eval()
        with torch.no_grad():
            expected, features = model(probe.clone()), client(probe.clone())
            if not isinstance(features, Tensor):
                what = f"returns a {type(features).__name__}"
                raise InputError(f"cut: {name!r} {what}; allowed: a module that returns a tensor")
            found = server(features)
    finally:
        for part, mode in modes:
            part.training = mode
    for one, other in zip(tree_leaves(expected), tree_leaves(found), strict=True):
        if isinstance(one, Tensor) and not _close(one, other):
            what = "its code does what a trace does not show, such as a change in place"
            raise InputError(f"cut: {name!r}: the network cannot be traced around it ({what})")
    return tuple(features.shape[1:])


def _close(one: Tensor, other: Tensor) -> bool:
    slack = 1e-3 * float(one.abs().max()) if one.numel() else 0.0
    return torch.allclose(one, other, rtol=1e-3, atol=slack, equal_nan=True)
