"""The layers of StyleGAN2 against their definitions."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mipriv.models.generators._style import (
    Blur,
    Conv,
    Discriminator,
    Modulated,
    Upsample,
    activate,
    deviation,
)
from mipriv.models.generators._style_generator import to_p


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def stretched(x: Tensor, kernel: Tensor) -> Tensor:
    """Zeros between pixels, then a correlation with `kernel` over one pixel of padding."""
    wide = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    wide[:, :, ::2, ::2] = x
    padded = F.pad(wide, (2, 1, 2, 1))
    return F.conv2d(padded, kernel.expand(x.shape[1], 1, 4, 4), groups=x.shape[1])


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulated_convolution_by_its_definition(up: bool, demodulate: bool) -> None:
    """Weights of every image's own, one image at a time (eq. 1 and 3)."""
    layer = Modulated(4, 3, 5, size=3, up=up, demodulate=demodulate).double()
    x, style = normal(3, 3, 6, 6), normal(3, 4)
    found = layer(x, style)
    row = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)
    for i in range(3):
        s = (layer.affine.weight / 2) @ style[i] + layer.affine.bias
        weight = layer.weight * s[:, None, None]
        for o in range(5):
            norm = (weight[o] ** 2).sum() + 1e-8
            weight = weight.clone()
            weight[o] /= norm.sqrt() if demodulate else (3 * 9) ** 0.5
        if up:
            # Convolving commutes with the filter away from the border.
            wide = stretched(x[i : i + 1], torch.outer(row, row) / 16)
            y = F.conv2d(wide, weight.flip(2, 3), padding=1)
            assert torch.allclose(found[i, :, 2:-2, 2:-2], y[0, :, 2:-2, 2:-2], rtol=0, atol=1e-10)
        else:
            y = F.conv2d(x[i : i + 1], weight, padding=1)
            assert torch.allclose(found[i], y[0], rtol=0, atol=1e-10)
        assert found.shape[2:] == y.shape[2:]


def test_demodulated_outputs_have_unit_deviation() -> None:
    layer = Modulated(4, 16, 6).double()
    x, style = normal(4, 16, 64, 64), 3 * normal(4, 4)
    spread = layer(x, style)[:, :, 1:-1, 1:-1].std((2, 3))
    assert torch.allclose(spread, torch.ones_like(spread), atol=0.1)


def test_filters_keep_the_brightness_and_double_or_halve_exactly() -> None:
    flat = torch.ones(1, 2, 8, 8)
    assert torch.allclose(Upsample()(flat)[:, :, 2:-2, 2:-2], torch.ones(1, 2, 12, 12))
    assert torch.allclose(Blur((1, 1))(flat)[:, :, 1:-1, 1:-1], torch.ones(1, 2, 5, 5))
    assert Blur((1, 1))(flat).shape[2] == 7
    x = normal(2, 3, 8, 8)
    row = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)
    assert torch.allclose(Upsample().double()(x), stretched(x, torch.outer(row, row) / 16), atol=1e-10)
    for size in (1, 3):
        assert Conv(2, 5, size, down=True, bias=False)(flat).shape == (1, 5, 4, 4)


def test_deviation_channel_by_hand() -> None:
    x = normal(6, 3, 4, 4)
    found = deviation(x, 2)
    for i in range(6):
        pair = torch.stack([x[i % 3], x[i % 3 + 3]])
        wanted = (pair.var(0, correction=0) + 1e-8).sqrt().mean()
        assert torch.allclose(found[i], wanted.expand(1, 4, 4), atol=1e-12)
    assert torch.allclose(deviation(x, 1), torch.full((6, 1, 4, 4), 1e-4, dtype=torch.float64))


def test_scores_of_training_do_know_their_neighbours() -> None:
    """The minibatch deviation is a property of training: with groups it sees the others."""
    critic = Discriminator([4, 4], 1).double()
    x = normal(4, 1, 8, 8)
    assert not torch.allclose(critic(x, group=4)[:2], critic(x[:2], group=2), atol=1e-8)
    assert torch.allclose(critic(x, group=1)[:2], critic(x[:2], group=1), atol=1e-12)


def test_p_space_undoes_the_last_activation() -> None:
    before = normal(3, 6)
    assert torch.allclose(to_p(activate(before)), 2**0.5 * before, atol=1e-12)
