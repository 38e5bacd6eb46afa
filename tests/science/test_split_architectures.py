"""The published networks of split inference at their published sizes and cuts, and the linear client."""

import pytest
import torch
from torch import Tensor, nn

from mipriv import plugin
from mipriv.errors import InputError
from mipriv.models import classifiers
from mipriv.models.classifiers._residual import Block, Padded
from mipriv.models.classifiers.linear_encoder import LinearEncoder
from mipriv.models.classifiers.resnet20 import ResNet20
from mipriv.models.classifiers.vgg11 import VGG11
from mipriv.models.split_classifier import build

SMALL = VGG11(widths=(2, 3, 4, 4, 4), hidden=6)
HE = {"widths": (16, 16, 32, 64), "strides": (1, 2, 2), "stem": 3}


def total(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_vgg11_in_two_has_the_published_sizes() -> None:
    model = build(VGG11(), 10, (3, 32, 32), "trunk.stage2", "noRELU_C8S1", seed=0)
    assert (total(model.client), model.width) == (85_256, 512)
    assert total(model.server) == 9_689_738 and round(total(model.server) / 1e6, 2) == 9.69


@pytest.mark.parametrize(("side", "width", "last"), [(32, 512, 512), (48, 1152, 512), (64, 2048, 2048)])
def test_vgg11_of_other_images(side: int, width: int, last: int) -> None:
    """Pooling as published at the published sizes: the layers after it read 512 x 2 x 2 at 64 pixels."""
    with torch.device("meta"):
        whole = classifiers.build(VGG11(), 10, (3, side, side), seed=0)
        assert whole.trunk.mlp[1].in_features == last
        assert whole(torch.zeros(2, 3, side, side)).shape == (2, 10)
        features = whole.trunk[:2](torch.zeros(1, 3, side, side))
    assert features.shape[1:] == (128, side // 4, side // 4) and 8 * (side // 4) ** 2 == width


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 28, 28), (3, 31, 31), (3, 16, 40), (3, 48, 48)])
def test_vgg11_takes_every_image_from_16_pixels(shape: tuple[int, int, int]) -> None:
    model = classifiers.build(SMALL, 3, shape, seed=0)
    for training in (True, False):
        assert model.train(training)(images(2, *shape)).isfinite().all()
    assert sum(isinstance(part, nn.MaxPool2d) for part in model.modules()) == 5 - (min(shape[1:]) < 32)


def test_vgg11_refuses_smaller_images_and_another_number_of_widths() -> None:
    with pytest.raises(InputError, match=r"^vgg11: images of 16x15; allowed: at least 16x16$"):
        SMALL.build(3, (1, 16, 15))
    with pytest.raises(InputError, match=r"^vgg11, widths: \[4, 4\]; allowed: 5 of them, one a stage$"):
        VGG11(widths=(4, 4))


@pytest.mark.parametrize(("shortcut", "count"), [("A", 269_722), ("B", 272_474)])
def test_resnet20_of_he_has_the_published_size(shortcut: str, count: int) -> None:
    """As the networks of this name count that others publish for CIFAR-10."""
    with torch.device("meta"):
        architecture = plugin.load("classifier", "resnet20", **HE, shortcut=shortcut)
        assert total(classifiers.build(architecture, 10, (3, 32, 32), seed=0)) == count


def test_resnet20_of_cem_in_two_has_the_published_shapes() -> None:
    """Cut 5: the stem, the first stage and a block; 16, 32 and 64 channels counted by hand."""
    model = build(ResNet20(), 200, (3, 64, 64), "trunk.stage2.0", "noRELU_C8S1", seed=0)
    assert model.feature_shape == (8, 16, 16) and model.width == 2048
    convolutions = 25 * 3 * 16 + 9 * (16 * 32 + 5 * 32 * 32 + 32 * 64 + 64 * 64 + 64 * 8)
    assert total(model.client) == convolutions + 2 * (16 + 6 * 32 + 2 * 64) + 8
    assert model.eval()(images(1, 3, 64, 64)).shape == (1, 200)


def test_a_padded_shortcut_by_loops() -> None:
    x = images(2, 3, 5, 6)
    found, expected = Padded(2, 2)(x), torch.zeros(2, 5, 3, 3)
    for c in range(3):
        for i in range(3):
            for j in range(3):
                expected[:, 1 + c, i, j] = x[:, c, 2 * i, 2 * j]  # one of the two new ones in front
    assert torch.equal(found, expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize("channels", [3, 5])
def test_a_block_by_hand(stride: int, shortcut: str, channels: int) -> None:
    block, x = Block(3, channels, stride, shortcut).eval(), images(2, 3, 7, 7)  # type: ignore[arg-type]
    y = torch.conv2d(x, block.conv1.weight, stride=stride, padding=1) / (1 + 1e-5) ** 0.5
    y = torch.conv2d(y.clamp(min=0), block.conv2.weight, padding=1) / (1 + 1e-5) ** 0.5
    if (stride, channels) == (1, 3):
        short = x
    elif shortcut == "B":
        short = torch.conv2d(x, block.shortcut[0].weight, stride=stride) / (1 + 1e-5) ** 0.5
    else:
        zeros = torch.zeros(2, (channels - 3) // 2, 7, 7)
        short = torch.cat([zeros, x, zeros], 1)[:, :, ::stride, ::stride]
    assert torch.allclose(block(x), (y + short).clamp(min=0), atol=1e-6)


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"shortcut": "C"}, "shortcut: 'C' does not exist; allowed: A, B"),
        ({"widths": (16, 32, 64)}, "3 widths and 3 strides; allowed: one width more"),
        ({"stem": 4}, "stem: 4; allowed: an odd number"),
        ({"widths": (8, 8, 4, 4)}, r"widths: \[8, 8, 4, 4\]; allowed with shortcut A: none below"),
    ],
)
def test_resnet20_refuses_what_it_cannot_build(knobs: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ResNet20(**knobs)  # type: ignore[arg-type]


SHAPE = (2, 5, 6)


def test_a_linear_client_is_a_matrix_without_bias_and_with_orthonormal_rows() -> None:
    """Whatever the range of the images, and read off the client itself."""
    model = build(LinearEncoder(features=7), 3, SHAPE, "trunk.encode", None, seed=0)
    w = model.client.get_submodule("trunk.encode").weight
    assert w.shape == (7, 60) and total(model.client) == 7 * 60 and model.feature_shape == (7,)
    assert torch.allclose(w @ w.T, torch.eye(7), atol=1e-5)
    x = 50 * torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1))
    expected = torch.stack([w @ image.flatten() for image in x])
    assert torch.allclose(model.client(x), expected, atol=1e-3)
    assert not model.client(torch.zeros(1, *SHAPE)).any()


def test_a_linear_client_may_have_as_many_features_as_pixels() -> None:
    model = classifiers.build(LinearEncoder(features=60, hidden=()), 3, SHAPE, seed=0)
    x = images(2, *SHAPE)
    assert torch.allclose(model.embed(x).norm(dim=1), x.flatten(1).norm(dim=1), rtol=1e-5), "a rotation"
    assert torch.equal(model(x), model.head(model.embed(x)))


@pytest.mark.parametrize("fixed", [True, False])
def test_a_fixed_matrix_is_not_trained(fixed: bool) -> None:
    model = classifiers.build(LinearEncoder(features=4, hidden=(5,), fixed=fixed), 3, SHAPE, seed=0)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == (
        ["trunk.encode.weight"] if fixed else []
    )
    assert model(images(2, *SHAPE)).requires_grad


@pytest.mark.parametrize("features", [0, 61])
def test_impossible_numbers_of_features_are_refused(features: int) -> None:
    with pytest.raises(
        InputError, match=f"^linear_encoder, features: {features}; allowed: 1 to 60, the pixels$"
    ):
        LinearEncoder(features=features).build(3, SHAPE)
