"""A network cut in two is the same network, and what cannot be cut is refused in one line."""

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv import plugin
from mipriv.errors import InputError
from mipriv.models.classifiers import build
from mipriv.models.fold import folded
from mipriv.models.split import split
from tests.science.conftest import TOY

SHAPE = (3, 32, 32)
KNOBS = {
    **TOY,
    "design_resnet": {"widths": (4, 6, 8)},
    "mobilenet_v2": {"width": 0.1},
    "slim_densenet": {"growth": 4, "blocks": (2, 2)},
    "slim_resnet": {"widths": (4, 8), "depth": 1},
    "slim_vgg": {"widths": (4, 8)},
    "torchvision": {"name": "shufflenet_v2_x0_5"},
}
END = ["trunk.pool", "trunk.flatten"]
# Where each is cut. A new architecture adds a line.
CUTS = {
    "design_resnet": ["trunk.stem.0", "trunk.stage1", "trunk.stage2.0", *END],
    "facenet112": ["normalise", "trunk.stem", "trunk.blocks.0", "trunk.blocks.2", "trunk.output.0"],
    "facenet64": ["normalise", "trunk.stem.0", "trunk.blocks.1", "trunk.blocks", "trunk.output.3"],
    "ir152": ["trunk.stem.1", "trunk.blocks.0", "trunk.blocks.3", "trunk.output"],
    "linear_encoder": ["normalise", "trunk.encode", "trunk.mlp.0"],
    "mobilenet_v2": ["normalise", "trunk.features.0.0", "trunk.features.4.conv", "trunk.features.13", *END],
    "resnet20": ["trunk.stem", "trunk.stage1.0", "trunk.stage2", *END],
    "slim_densenet": ["trunk.stem", "trunk.block1.0", "trunk.block2", *END],
    "slim_resnet": ["trunk.stem.0", "trunk.stem", "trunk.stage1.0", "trunk.stage2", *END],
    "slim_vgg": ["trunk.conv1.1", "trunk.conv1", "trunk.conv2", *END],
    "torchvision": ["trunk.conv1", "trunk.stage2.1", "trunk.stage4", "trunk.fc"],
    "vgg11": ["trunk.stage1.bn1", "trunk.stage2", "trunk.stage5", "trunk.mlp.3"],
    "vgg16_face": [
        "trunk.features.0",
        "trunk.features.25",
        "trunk.features.33",
        "trunk.flatten",
        "trunk.norm",
    ],
}
PLAIN = {
    "resnet18": ["bn1", "maxpool", "layer2", "layer4.1", "avgpool", "fc"],
    "mobilenet_v2": ["features.0", "features.7", "features", "classifier.0"],
    "vgg11_bn": ["features.1", "features", "classifier.3"],
}


def images(*shape: int) -> Tensor:
    return torch.rand(2, *(shape or SHAPE), generator=torch.Generator().manual_seed(0))


def small(name: str) -> nn.Module:
    """A classifier of this family, narrow where its knobs allow that."""
    assert name in CUTS, f"{name} has no line in CUTS"
    return build(plugin.load("classifier", name, **KNOBS[name]), 5, SHAPE, seed=0)


def same(model: nn.Module, cut: str, *, seed: int = 0) -> None:
    """Both modes: the parts' output is the model's, and so are the statistics that training moves."""
    parts, x = split(model, cut, SHAPE), images()
    for training in (True, False):
        model.train(training)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        torch.manual_seed(seed)
        features = parts.client(x)
        kept = features.clone()
        found = parts.server(features)
        after = {k: v.clone() for k, v in model.state_dict().items()}
        assert features.shape[1:] == parts.feature_shape and torch.equal(features, kept)
        model.load_state_dict(before)
        torch.manual_seed(seed)
        assert torch.equal(found, model(x))
        assert all(torch.equal(v, after[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", plugin.names("classifier"))
def test_a_classifier_in_two_parts_is_the_classifier(name: str) -> None:
    model = small(name)
    for cut in [*CUTS[name], "trunk", "head"]:
        same(model, cut)
        same(folded(model, SHAPE), cut)


@pytest.mark.parametrize("name", PLAIN)
def test_a_published_network_in_two_parts_is_the_network(name: str) -> None:
    with torch.device("meta"):  # where the widest layers of VGG take no time
        model = torchvision.models.get_model(name, weights=None, num_classes=7)
        if name == "vgg11_bn":
            model.classifier[0], model.classifier[3] = nn.Linear(512 * 49, 8), nn.Linear(8, 6)
            model.classifier[6] = nn.Linear(6, 7)
    model.to_empty(device="cpu")
    for weight in model.state_dict().values():
        weight.copy_(torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) / 10)
    for cut in PLAIN[name]:
        same(model, cut)


def test_a_transformer_is_cut_between_its_blocks() -> None:
    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 8, 16, num_classes=3)
    same(model, "encoder.layers.encoder_layer_0")
    parts = split(model, "encoder", SHAPE)
    assert parts.feature_shape == (17, 8)
    names = [name for part in (parts.client, parts.server) for name, _ in part.named_parameters()]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())


def test_stochastic_depth_is_left_to_its_module() -> None:
    """Its code asks for the mode: a trace through it would have kept the mode of the day."""
    model = torchvision.models.efficientnet_b0(weights=None, num_classes=3)
    same(model, "features.2")


@pytest.mark.parametrize("cut", ["trunk.stage1", "trunk.stage2.0", "trunk", "head"])
def test_the_parts_hold_the_models_own_parameters_under_their_names(cut: str) -> None:
    model = small("slim_resnet")
    parts = split(model, cut, SHAPE)
    own = dict(model.named_parameters())
    names = [[name for name, _ in part.named_parameters()] for part in (parts.client, parts.server)]
    assert sorted(names[0] + names[1]) == sorted(own)
    for part in (parts.client, parts.server):
        assert all(weight is own[name] for name, weight in part.named_parameters())
    inside = {name for name in own if name.startswith(f"{cut}.")}
    assert inside <= set(names[0])


def test_gradients_are_the_models() -> None:
    model, x = small("slim_resnet").eval(), images().requires_grad_()
    (expected,) = torch.autograd.grad(model(x).square().sum(), x)
    parts = split(model, "trunk.stage1", SHAPE)
    features = parts.client(x)
    (found,) = torch.autograd.grad(parts.server(features).square().sum(), x, retain_graph=True)
    assert torch.equal(found, expected)
    free = features.detach().requires_grad_()
    (slope,) = torch.autograd.grad(parts.server(free).sum(), free)
    assert slope.shape == free.shape and slope.abs().sum() > 0


def test_splitting_changes_neither_statistics_nor_modes() -> None:
    model = small("slim_resnet").train()
    model.trunk.stage1.eval()  # type: ignore[union-attr]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    split(model, "trunk.stage1", SHAPE)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [part.training for part in model.modules()] == modes


def test_an_unknown_module_is_refused_with_a_hint() -> None:
    with pytest.raises(
        InputError, match=r"cut: 'trunk.stag1' does not exist \(did you mean 'trunk.stage1'\?"
    ):
        split(small("slim_resnet"), "trunk.stag1", SHAPE)
    with pytest.raises(InputError, match=r"cut: '' does not exist.*allowed: head"):
        split(small("slim_resnet"), "", SHAPE)


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("slim_resnet", "trunk.stage2.0.conv1"),
        ("slim_resnet", "trunk.stage2.0.shortcut"),
        ("slim_densenet", "trunk.block1.0.conv"),
        ("mobilenet_v2", "trunk.features.3.conv.0"),
    ],
)
def test_a_cut_that_a_skip_connection_crosses_is_refused(name: str, cut: str) -> None:
    with pytest.raises(
        InputError, match=f"cut: '{cut}' is crossed by a skip connection .*; allowed: a module"
    ):
        split(small(name), cut, SHAPE)


class Toy(nn.Module):
    """Runs `act` twice, never `idle`, and `aside` for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.act, self.idle, self.aside = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        out = self.act(self.one(x))
        self.aside(out)
        return self.act(self.two(out))


@pytest.mark.parametrize(
    ("cut", "why"),
    [("act", "runs 2 times"), ("idle", "runs 0 times"), ("aside", "runs, but its output is not used")],
)
def test_a_module_that_does_not_run_exactly_once_is_refused(cut: str, why: str) -> None:
    with pytest.raises(InputError, match=f"cut: '{cut}' {why}; allowed: a module that runs exactly once"):
        split(Toy(), cut, SHAPE)
    same(Toy(), "one")  # a module on both sides of the cut serves both parts


class Branching(Toy):
    """Its code reads a value."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.two(self.one(x)) if x.sum() > 0 else self.two(x)


class Moody(Toy):
    """Its code reads the mode."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.two(F.dropout(self.one(x), training=self.training))


class Hidden(Toy):
    """Works in place on what it does not pass on."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        out = self.one(x)
        out.add_(1.0)
        return self.two(out)


class Pair(Toy):
    """Its `act` returns two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.LSTM(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        out, _ = self.act(self.one(x)[:, 0])
        return out


@pytest.mark.parametrize(
    ("model", "cut", "why"),
    [
        (Branching(), "one", "the network cannot be traced around it"),
        (Moody(), "one", "computes differently in training mode"),
        (Hidden(), "one", "the network cannot be traced around it"),
        (Pair(), "act", "returns a tuple; allowed: a module that returns a tensor"),
    ],
)
def test_what_cannot_be_cut_is_refused_in_one_line(model: nn.Module, cut: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        split(model.train(), cut, SHAPE)
    assert "\n" not in str(caught.value)
    assert all(part.training for part in model.modules())


def test_what_lies_wholly_on_one_side_need_not_be_traceable() -> None:
    same(nn.Sequential(nn.Conv2d(3, 3, 1), Branching(), nn.Flatten(), nn.Linear(3 * 32 * 32, 2)), "0")
