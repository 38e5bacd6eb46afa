"""Random views against what they are defined to be."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mipriv.data.augment import Augment, _grid, mirrored
from mipriv.errors import InputError


def draws(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, Augment.DRAWS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 2, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_the_plain_view_is_the_image(images: Tensor) -> None:
    """Whether nothing is computed or next to nothing."""
    assert torch.equal(Augment(flip=0.0)(images, draws(6)), images)
    almost = Augment(flip=0.0, rotate=1e-9)(images, draws(6))
    assert torch.allclose(almost, images) and almost is not images


@pytest.mark.parametrize(
    "knob",
    [{"flip": 0.5}, {"area": (0.8, 1.0)}, {"ratio": (0.8, 1.2)}, {"rotate": 5.0}, {"jitter": 0.1}],
)
def test_every_knob_moves_pixels(images: Tensor, knob: dict[str, Any]) -> None:
    assert not torch.allclose(Augment(**{"flip": 0.0, **knob})(images, draws(6)), images, atol=1e-3)


def test_flip_is_a_mirror_image(images: Tensor) -> None:
    assert torch.allclose(Augment(flip=1.0)(images, draws(6)), mirrored(images))


def test_flip_follows_its_probability(images: Tensor) -> None:
    seen = Augment(flip=0.3)(images[:1].expand(400, -1, -1, -1), draws(400))
    turned = (seen - mirrored(images[:1])).abs().amax((1, 2, 3)) < 1e-9
    assert 0.22 < turned.double().mean() < 0.38


def test_a_crop_is_a_part_of_the_image_drawn_larger() -> None:
    """On a ramp, bilinear resampling is exact: a crop of area 1/4 shows half the range of values."""
    ramp = torch.linspace(0, 1, 64, dtype=torch.float64).expand(1, 1, 64, 64)
    seen = Augment(flip=0.0, area=(0.25, 0.25))(ramp.expand(50, -1, -1, -1), draws(50))
    spans = seen.amax((1, 2, 3)) - seen.amin((1, 2, 3))
    assert torch.allclose(spans, torch.full_like(spans, 0.5), atol=0.02)
    starts = seen.amin((1, 2, 3))
    assert starts.min() < 0.1 and starts.max() > 0.4  # it lies anywhere, and never outside
    assert seen.min() >= 0 and seen.max() <= 1


def test_no_shift_keeps_a_crop_in_the_centre() -> None:
    ramp = torch.linspace(0, 1, 64, dtype=torch.float64).expand(5, 1, 64, 64)
    seen = Augment(flip=0.0, area=(0.25, 0.25), shift=0.0)(ramp, draws(5))
    assert torch.allclose(seen.mean((1, 2, 3)), torch.full((5,), 0.5, dtype=torch.float64))


def test_rotation_by_a_quarter_turn() -> None:
    image = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    uniforms = torch.full((1, Augment.DRAWS), 0.5, dtype=torch.float64)
    uniforms[0, 4] = 1.0  # the largest rotation
    turned = Augment(flip=0.0, rotate=90.0)(image, uniforms)
    assert any(torch.allclose(turned, torch.rot90(image, k, (2, 3)), atol=1e-6) for k in (1, 3))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 12)])
def test_places_are_those_of_torchs_affine_grid(height: int, width: int) -> None:
    maps = torch.randn(7, 2, 3, dtype=torch.float64)
    expected = F.affine_grid(maps, [7, 1, height, width], align_corners=False)
    torch.testing.assert_close(_grid(maps, height, width), expected, rtol=1e-12, atol=1e-12)


def test_jitter_stays_in_range_and_changes_brightness(images: Tensor) -> None:
    seen = Augment(flip=0.0, jitter=0.5)(images, draws(6))
    assert seen.min() >= 0 and seen.max() <= 1 and not torch.allclose(seen, images)


def test_a_row_does_not_depend_on_its_neighbours(images: Tensor) -> None:
    view, uniforms = Augment(area=(0.5, 0.9), ratio=(0.8, 1.2), rotate=20, jitter=0.2), draws(6)
    together = view(images, uniforms)
    alone = torch.cat([view(images[i : i + 1], uniforms[i : i + 1]) for i in range(6)])
    assert torch.allclose(together, alone, atol=1e-12)


def test_views_are_differentiable() -> None:
    image = torch.rand(2, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: Augment(area=(0.5, 0.9), rotate=10)(x, draws(2)), (image,))


@pytest.mark.parametrize(
    "wrong", [{"area": (0.9, 0.5)}, {"ratio": (0.0, 1.0)}, {"flip": 1.5}, {"jitter": -0.1}]
)
def test_impossible_ranges_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"^{next(iter(wrong))}: .*allowed"):
        Augment(**wrong)
