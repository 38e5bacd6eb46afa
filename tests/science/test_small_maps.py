"""What layers over small maps compute, against plain ones, and which layers are taken."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from mipriv.models import small_maps

PLAIN = {
    "pointwise": lambda: nn.Conv2d(6, 10, 1),
    "pointwise without bias": lambda: nn.Conv2d(6, 10, 1, bias=False),
    "depthwise": lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6),
    "depthwise without bias": lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False),
    "mean": lambda: nn.AdaptiveAvgPool2d(1),
}
TAKEN = {"pointwise": small_maps.Pointwise, "depthwise": small_maps.Depthwise, "mean": small_maps.Mean}
OTHERS = {
    "strided": lambda: nn.Conv2d(6, 10, 1, stride=2),
    "padded pointwise": lambda: nn.Conv2d(6, 10, 1, padding=1),
    "grouped": lambda: nn.Conv2d(6, 6, 1, groups=2),
    "3 by 3": lambda: nn.Conv2d(6, 6, 3, padding=1),
    "depthwise without padding": lambda: nn.Conv2d(6, 6, 3, groups=6),
    "depthwise, strided": lambda: nn.Conv2d(6, 6, 3, 2, 1, groups=6),
    "depthwise, dilated": lambda: nn.Conv2d(6, 6, 3, padding=1, dilation=2, groups=6),
    "depthwise, reflected": lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6, padding_mode="reflect"),
    "two a channel": lambda: nn.Conv2d(6, 12, 3, padding=1, groups=6),
    "means of quarters": lambda: nn.AdaptiveAvgPool2d(2),
}


def adopted(layer: nn.Module) -> nn.Sequential:
    network = nn.Sequential(layer)
    small_maps.adopt(network)
    return network


def gradients(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Output, then gradients of a sum of its cosines by images and by weights."""
    images = images.clone().requires_grad_()
    out = network(images)
    return [out, *torch.autograd.grad(out.cos().sum(), [images, *network.parameters()])]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("side", [(1, 1), (2, 2), (1, 2), (2, 5), (3, 3), (8, 8), (9, 9)])
@pytest.mark.parametrize("name", PLAIN)
def test_outputs_and_gradients_are_those_of_a_plain_layer(
    name: str, side: tuple[int, int], layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(PLAIN[name]()).double().to(memory_format=layout)
    other = copy.deepcopy(plain)
    small_maps.adopt(other)
    assert type(other[0]) is TAKEN[name.partition(" ")[0]]
    images = torch.randn(3, 6, *side, dtype=torch.float64).to(memory_format=layout)
    for expected, found in zip(gradients(plain, images), gradients(other, images), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(other(images), plain(images), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PLAIN)
def test_what_solvers_differentiate_through_is_the_same(name: str) -> None:
    torch.manual_seed(0)
    plain = PLAIN[name]().double()
    other = adopted(copy.deepcopy(plain))
    images, direction = torch.randn(2, 3, 6, 2, 2, dtype=torch.float64)
    weights = dict(other.named_parameters())
    expected = jvp(plain, (images,), (direction,))
    found = jvp(lambda x: functional_call(other, weights, (x,)), (images,), (direction,))
    for one, two in zip(expected, found, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-12, atol=1e-12)
    mapped = torch.vmap(other)(images[:, None])[:, 0]
    torch.testing.assert_close(mapped, expected[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OTHERS)
def test_other_layers_are_left_alone(name: str) -> None:
    assert type(adopted(OTHERS[name]())[0]) is type(OTHERS[name]())


@pytest.mark.parametrize("name", ["depthwise", "mean"])
def test_what_lies_behind_gets_maps_and_gradients_pixel_by_pixel(name: str) -> None:
    network = adopted(PLAIN[name]()).to(memory_format=torch.channels_last)
    images = torch.randn(3, 6, 2, 2).to(memory_format=torch.channels_last).requires_grad_()
    out = network(images)
    assert out.is_contiguous(memory_format=torch.channels_last)
    back = []
    clipped = images.clamp(-1, 1)
    clipped.register_hook(back.append)
    network(clipped).sum().backward()
    assert back[0].is_contiguous(memory_format=torch.channels_last)


def test_weights_and_their_names_stay_where_they_are() -> None:
    conv = PLAIN["depthwise"]()
    weight = conv.weight
    network = adopted(conv)
    assert network[0].weight is weight
    assert list(network.state_dict()) == ["0.weight", "0.bias"]
    assert type(copy.deepcopy(network)[0]) is small_maps.Depthwise
