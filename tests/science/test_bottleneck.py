"""Names of bottlenecks are read to the letter; both ends are what a name says, and fit each other."""

import re

import pytest
import torch
from torch import Tensor, nn

from mipriv.errors import InputError
from mipriv.models.bottleneck import GRAMMAR, Bottleneck


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("C8S1", Bottleneck(8, 1, 3, True)),
        ("noRELU_C8S1", Bottleneck(8, 1, 3, False)),
        ("K5C12S4", Bottleneck(12, 4, 5, True)),
        ("noRELU_K1C1S16", Bottleneck(1, 16, 1, False)),
    ],
)
def test_a_name_is_read(name: str, read: Bottleneck) -> None:
    assert Bottleneck.parse(name) == read


# fmt: off
REFUSED = [
    "", "C8", "S1", "8", "CS1", "C8S", "K3", "noRELU_",  # parts
    "c8s1", "C8s1", "noRELU_c8s1", "norelu_C8S1", "RELU_C8S1", "noRELUC8S1", "noRELU_noRELU_C8S1",
    "C8S1K3", "C8K3S1", "KC8S1", "K2C8S1", "K0C8S1", "C0S1", "C08S1", "C8S0", "C8S3", "C8S6",
    "C-8S1", "C8.0S1", "C8S1 ", " C8S1", "C8S1\n", "C8S1,C4S1", "C٨S1", "C8S²",
]
# fmt: on


@pytest.mark.parametrize("name", REFUSED)
def test_another_name_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match=f"^bottleneck: {re.escape(repr(name))}; allowed: ") as caught:
        Bottleneck.parse(name)
    assert str(caught.value).endswith(GRAMMAR) and "\n" not in str(caught.value)


def kinds(end: nn.Module) -> list[str]:
    """Layers of an end by kind, channels, kernel and stride."""
    said = []
    for layer in end.children():
        name = type(layer).__name__
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            (side, _), (stride, _) = layer.kernel_size, layer.stride
            name += f" {layer.in_channels}>{layer.out_channels} k{side} s{stride}"
        said.append(name)
    return said


PUBLISHED = {
    "noRELU_C8S1": (["Conv2d 12>8 k3 s1", "Sigmoid"], ["Conv2d 8>12 k3 s1"]),
    "C8S1": (["Conv2d 12>8 k3 s1", "ReLU", "Sigmoid"], ["Conv2d 8>12 k3 s1", "ReLU"]),
    "K5C2S2": (["Conv2d 12>2 k5 s2", "ReLU", "Sigmoid"], ["ConvTranspose2d 2>12 k5 s2", "ReLU"]),
    "C2S4": (
        ["Conv2d 12>2 k3 s2", "ReLU", "Conv2d 2>2 k3 s2", "ReLU", "Sigmoid"],
        ["ConvTranspose2d 2>2 k3 s2", "ReLU", "ConvTranspose2d 2>12 k3 s2", "ReLU"],
    ),
    "noRELU_C2S4": (
        ["Conv2d 12>2 k3 s2", "Conv2d 2>2 k3 s2", "Sigmoid"],
        ["ConvTranspose2d 2>2 k3 s2", "ConvTranspose2d 2>12 k3 s2"],
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_layers_are_the_published_ones_in_their_order(name: str) -> None:
    made = Bottleneck.parse(name).build((12, 8, 8), seed=0)
    assert (kinds(made.client), kinds(made.server)) == PUBLISHED[name]


@pytest.mark.parametrize("relu", ["", "noRELU_"])
@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_the_server_restores_the_shape(relu: str, kernel: int, stride: int) -> None:
    """Sides need be neither equal nor powers of two."""
    made = Bottleneck.parse(f"{relu}K{kernel}C3S{stride}").build((5, 12, 20), seed=0)
    features = made.client(images(2, 5, 12, 20))
    assert features.shape[1:] == made.feature_shape == (3, 12 // stride, 20 // stride)
    assert made.server(features).shape == (2, 5, 12, 20)


@pytest.mark.parametrize(("name", "least"), [("noRELU_C4S1", 0.0), ("C4S1", 0.5), ("noRELU_C4S2", 0.0)])
def test_features_lie_in_the_range_that_the_name_leaves_them(name: str, least: float) -> None:
    """A sigmoid behind a ReLU never falls below its middle; the published order all the same."""
    features = Bottleneck.parse(name).build((5, 8, 8), seed=0).client(100 * images(4, 5, 8, 8))
    assert least <= features.min() < least + 0.01 and 0.99 < features.max() <= 1


@pytest.mark.parametrize("feature_shape", [(12,), (17, 8), (5, 6, 8), (5, 8, 6), (5, 2, 2)])
def test_features_that_do_not_fit_are_refused(feature_shape: tuple[int, ...]) -> None:
    with pytest.raises(
        InputError, match=r"^bottleneck: features \[.*\] at the cut; allowed: .* that 4 divides$"
    ):
        Bottleneck.parse("C8S4").build(feature_shape, seed=0)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    states = []
    for noise, seed in ((1, 0), (2, 0), (2, 1)):
        torch.manual_seed(noise)
        made = Bottleneck.parse("C2S1").build((3, 4, 4), seed)
        after = torch.rand(1)
        torch.manual_seed(noise)
        assert torch.equal(after, torch.rand(1)), "nobody else's draws are used up"
        states.append(
            torch.cat([p.flatten() for end in (made.client, made.server) for p in end.parameters()])
        )
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])
