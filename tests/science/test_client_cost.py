"""Costs against nets that are counted by hand, and against a convolution in loops."""

import pytest
import torch
from torch import Tensor, nn

from mipriv import plugin
from mipriv.models.cost import ClientCost, Cost, client_cost, cost
from mipriv.models.split_classifier import build


def by_loops(layer: nn.Conv2d | nn.ConvTranspose2d, side: int) -> int:
    """Products that are formed, one by one; those with the padding's zeros count."""
    (kernel, _), (stride, _) = layer.kernel_size, layer.stride
    count = 0
    (padding, _), (end, _) = layer.padding, layer.output_padding
    if isinstance(layer, nn.ConvTranspose2d):
        places = side
        assert layer(torch.zeros(1, layer.in_channels, side, side)).shape[-1] == (
            (side - 1) * stride - 2 * padding + kernel + end
        )
    else:
        places = len(range(0, side + 2 * padding - kernel + 1, stride))
    for _place in range(places * places):
        for a in range(layer.in_channels):
            for b in range(layer.out_channels):
                same = a * layer.groups // layer.in_channels == b * layer.groups // layer.out_channels
                count += kernel * kernel * same
    return count


LAYERS = [
    nn.Conv2d(3, 4, 3, padding=1),
    nn.Conv2d(4, 6, 5, stride=2, bias=False),
    nn.Conv2d(4, 6, 3, groups=2),
    nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6),
    nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1),
    nn.ConvTranspose2d(6, 4, 3, groups=2),
]


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_a_convolution_is_counted_as_in_loops(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    found = cost(layer, (layer.in_channels, 9, 9))
    assert found == Cost(sum(p.numel() for p in layer.parameters()), by_loops(layer, 9))


def test_a_net_by_hand() -> None:
    """3x3 to 4 channels of 8x8, depthwise of stride 2 to 4x4, linear: 6912 + 576 + 320."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 4, 3, 2, 1, groups=4, bias=False), nn.Flatten(), nn.Dropout(), nn.Linear(64, 5),
    )  # fmt: skip
    weights = (3 * 4 * 9 + 4) + (4 + 4) + 4 * 9 + (64 * 5 + 5)
    assert cost(net, (3, 8, 8)) == Cost(weights, 3 * 4 * 9 * 64 + 4 * 9 * 16 + 64 * 5)


class Twice(nn.Module):
    """Runs its layer twice on rows of five, and never runs `idle`."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.idle = nn.Linear(4, 4), nn.Linear(4, 100)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 5, 4] to the same shape."""
        out: Tensor = self.layer(self.layer(x))
        return out


def test_layers_count_as_often_as_they_run_and_parameters_once() -> None:
    assert cost(Twice().requires_grad_(False), (5, 4)) == Cost(20 + 500, 2 * 5 * 16)


def test_a_net_without_weights_costs_nothing() -> None:
    assert cost(nn.Flatten(), (3, 8, 8)) == Cost(0, 0)


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_the_network_as_it_was(training: bool) -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Dropout()).double().train(training)
    net[2].eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    cost(net, (3, 8, 8))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert [part.training for part in net] == [training, training, False]
    assert not any(part._forward_hooks for part in net.modules())


def test_the_published_client() -> None:
    """Of CEM: 64 and 128 channels at 32 and 16 pixels, the bottleneck at 8; 512 features as float32."""
    model = build(plugin.load("classifier", "vgg11"), 10, (3, 32, 32), "trunk.stage2", "noRELU_C8S1", 0)
    macs = 9 * (3 * 64 * 32**2 + 64 * 128 * 16**2 + 128 * 8 * 8**2)
    assert client_cost(model, (3, 32, 32)) == ClientCost(85_256, macs, 2048)
