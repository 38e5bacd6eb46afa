"""The published architectures at their published sizes, on the meta device: shapes are all they need."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from mipriv import plugin
from mipriv.defenses.tl_dmi import TLDMI
from mipriv.errors import InputError
from mipriv.models import cut, pretrained
from mipriv.models.classifiers import Classifier, build
from mipriv.models.classifiers._ir import Block

FACES = (3, 64, 64)
# Published index of the last frozen layer to the last layer with weights up to there, and millions left.
VGG_CURVE = [(22, 21, 15.0), (26, 25, 13.9), (29, 28, 11.5), (33, 31, 9.1), (36, 35, 6.8), (39, 38, 4.4)]


def published(name: str, shape: tuple[int, int, int] = FACES, classes: int = 1000) -> Classifier:
    """One of this folder's architectures, or `torchvision:NAME`, as its defaults have it."""
    name, _, theirs = name.partition(":")
    with torch.device("meta"):
        knobs = {"name": theirs} if theirs else {}
        return build(plugin.load("classifier", name, **knobs), classes, shape, seed=0)


def frozen(model: Classifier, at: str) -> Classifier:
    """The model behind TL-DMI's cut; its probe has to lie where the weights lie."""
    TLDMI(cut=at).prepare(model, FACES)
    return model


def trainable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def total(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "at", "left", "whole"),
    [
        ("vgg16_face", "trunk.features.25", 13.86, 16.78),
        ("ir152", "trunk.blocks.46", 17.83, 62.60),
        ("facenet64", "trunk.blocks.5", 34.39, 35.44),
    ],
)
def test_published_cuts_leave_the_published_numbers(name: str, at: str, left: float, whole: float) -> None:
    model = published(name)
    assert round(total(model) / 1e6, 2) == whole
    assert round(trainable(frozen(model, at)) / 1e6, 2) == left


@pytest.mark.parametrize(("_", "layer", "millions"), VGG_CURVE)
def test_curve_of_trainable_parameters_of_vgg(_: int, layer: int, millions: float) -> None:
    model = frozen(published("vgg16_face"), f"trunk.features.{layer}")
    assert round(trainable(model) / 1e6, 1) == millions
    counted = sum(int(row["trainable"]) for row in cut.account(model, FACES))
    assert counted == trainable(model)


def test_head_alone_of_vgg_is_the_end_of_its_curve() -> None:
    model = frozen(published("vgg16_face"), "trunk.features")
    # The head, and the scale of the normalisation before it: its bias is frozen from the start.
    assert trainable(model) == 2048 * 1000 + 1000 + 2048 and round(trainable(model) / 1e6, 1) == 2.1


def test_vgg_is_torchvisions() -> None:
    with torch.device("meta"):
        theirs = torchvision.models.vgg16_bn().features.state_dict()
    mine = published("vgg16_face").trunk.features.state_dict()
    assert {k: v.shape for k, v in mine.items()} == {k: v.shape for k, v in theirs.items()}


def test_frozen_bias_of_vgg_survives_a_step(toy: dict[str, dict[str, object]]) -> None:
    model = build(plugin.load("classifier", "vgg16_face", **toy["vgg16_face"]), 3, (1, 32, 32), seed=0)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    model(torch.rand(4, 1, 32, 32)).square().sum().backward()
    before = model.head.weight.clone()
    optimizer.step()
    assert not model.trunk.norm.bias.any() and not torch.equal(model.head.weight, before)


def test_stem_of_an_improved_residual_network_is_frozen_with_its_blocks() -> None:
    """Released code misspells `requires_grad` there and trains the stem."""
    model = frozen(published("facenet64"), "trunk.blocks.5")
    assert not any(p.requires_grad for p in model.trunk.stem.parameters())
    wanted = [p.requires_grad for block in model.trunk.blocks for p in block.parameters()]
    assert wanted == sorted(wanted) and trainable(model.trunk.blocks[6]) == total(model.trunk.blocks[6])


def test_judge_of_faces_reads_112_pixels_whatever_it_is_given() -> None:
    model = published("facenet112")
    assert model.trunk.output[3].in_features == 512 * 7 * 7 and len(model.trunk.blocks) == 24
    assert total(model) == 44_087_976
    assert model(torch.zeros(2, *FACES, device="meta")).shape == (2, 1000)


@pytest.mark.parametrize(("channels_in", "stride"), [(4, 2), (4, 1), (3, 2)])
def test_block_by_hand(channels_in: int, stride: int) -> None:
    block = Block(channels_in, 4, stride).eval()
    norm, first, bend, second, last = block.residual
    with torch.no_grad():
        for module in (norm, last):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    x = torch.randn(2, channels_in, 6, 6)

    def normalised(y: Tensor, m: nn.BatchNorm2d) -> Tensor:
        mean, scale = m.running_mean, (m.running_var + m.eps).sqrt()
        return (y - mean[:, None, None]) / scale[:, None, None]

    y = torch.conv2d(normalised(x, norm), first.weight, padding=1)
    y = torch.where(y > 0, y, 0.25 * y)
    y = normalised(torch.conv2d(y, second.weight, stride=stride, padding=1), last)
    short = x[:, :, ::stride, ::stride]
    if channels_in != 4:
        short = torch.conv2d(short, block.shortcut[0].weight) / (1 + 1e-5) ** 0.5
    assert torch.allclose(block(x), y + short, atol=1e-5)
    assert bend.num_parameters == 4


@pytest.mark.parametrize("name", ["vgg16_face", "ir152", "facenet64", "facenet112"])
def test_a_grey_image_is_its_own_colour_image(name: str, toy: dict[str, dict[str, object]]) -> None:
    """And images are taken as they are: no statistics of another data set are subtracted."""
    grey = build(plugin.load("classifier", name, **toy[name]), 3, (1, 32, 32), seed=0).eval()
    colour = build(plugin.load("classifier", name, **toy[name]), 3, (3, 32, 32), seed=0).eval()
    x = torch.rand(2, 1, 32, 32)
    assert torch.equal(grey(x), colour(x.expand(-1, 3, -1, -1)))
    assert torch.equal(grey.normalise(x), x.expand(-1, 3, -1, -1))


@pytest.mark.parametrize(("name", "least"), [("vgg16_face", 32), ("ir152", 16), ("facenet64", 16)])
def test_images_too_small_are_refused(name: str, least: int) -> None:
    small = least // 2
    with pytest.raises(InputError, match=f"images of {small}x{small}; allowed: at least {least}x{least}"):
        published(name, (3, small, small))


@pytest.mark.parametrize(
    ("name", "size", "classes", "at", "whole", "left"),
    [
        ("resnet18", 64, 1000, "trunk.layer3", 11.69, 8.91),
        ("resnet152", 224, 530, "trunk.layer3", 59.23, 16.05),
        ("inception_v3", 299, 1000, "trunk.Mixed_6e", 23.83, 14.87),
    ],
)
def test_torchvision_nets_build_run_and_freeze_by_name(
    name: str, size: int, classes: int, at: str, whole: float, left: float
) -> None:
    model = published(f"torchvision:{name}", classes=classes)
    assert round(total(model) / 1e6, 2) == whole
    for mode in (True, False):
        assert model.train(mode)(torch.zeros(2, 3, size, size, device="meta")).shape == (2, classes)
    TLDMI(cut=at).prepare(model, (3, size, size))
    assert round(trainable(model) / 1e6, 2) == left


def test_an_image_passes_inception_in_both_modes() -> None:
    """Small images are resized to its own size, and no auxiliary output turns up in training."""
    model = build(plugin.load("classifier", "torchvision", name="inception_v3", input_size=96), 3, FACES, 0)
    x = torch.rand(2, *FACES)
    for mode in (True, False):
        assert model.train(mode)(x).isfinite().all()
    reached = sum(leaf.parameters for leaf in cut.execution_order(model, FACES))
    assert reached == total(model) and model.trunk.AuxLogits is None


class Published:
    """Stands for an entry of torchvision's weight API."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def get_state_dict(self, progress: bool, check_hash: bool) -> dict[str, Tensor]:
        """The tensors; nothing is fetched."""
        return self.state


def test_published_inception_fits_without_its_auxiliary_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        state = torchvision.models.inception_v3().state_dict()
    assert any(name.startswith("AuxLogits") for name in state)
    monkeypatch.setattr(torchvision.models, "get_weight", lambda name: Published(state))
    source = pretrained._torchvision_state("Inception_V3_Weights.IMAGENET1K_V1")
    trunk = published("torchvision:inception_v3").trunk
    assert list(pretrained._in_order(trunk, source, "weights")) == list(source)


def test_published_vgg_fills_the_features_alone(
    monkeypatch: pytest.MonkeyPatch, toy: dict[str, dict[str, object]]
) -> None:
    make = plugin.load("classifier", "vgg16_face", **toy["vgg16_face"])
    other = build(make, 3, FACES, seed=1).trunk.features.state_dict()
    state = {f"features.{k}": v for k, v in other.items()}
    state |= {f"classifier.{i}.{k}": torch.zeros(2, 2) for i in (0, 3, 6) for k in ("weight", "bias")}
    monkeypatch.setattr(torchvision.models, "get_weight", lambda name: Published(state))
    model = build(make, 3, FACES, seed=0)
    before = model.head.weight.clone()
    pretrained.import_trunk(model, "torchvision:VGG16_BN_Weights.IMAGENET1K_V1")
    assert all(torch.equal(v, other[k]) for k, v in model.trunk.features.state_dict().items())
    assert torch.equal(model.head.weight, before) and bool((model.trunk.norm.weight == 1).all())
