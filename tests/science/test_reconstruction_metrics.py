"""Errors and similarities of images against loops over pixels, and known answers."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mipriv.errors import InputError
from mipriv.metrics.reconstruction import mse, psnr, residual, ssim

Measure = Callable[[Tensor, Tensor], Tensor]


def pair(n: int, channels: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images and noisy copies, each with a noise of its own, in float64."""
    random = torch.Generator().manual_seed(seed)
    shape = (n, channels, height, width)
    a = torch.rand(shape, dtype=torch.float64, generator=random)
    noise = torch.randn(shape, dtype=torch.float64, generator=random)
    return a, (a + torch.linspace(0.02, 0.6, n)[:, None, None, None] * noise).clamp(0, 1)


def slow_ssim(a: Tensor, b: Tensor) -> float:
    """Of one channel [H, W], every window by itself: weighted deviations from weighted means."""
    height, width = a.shape
    size = max(k for k in range(1, 12, 2) if k <= min(height, width))
    sigma, half = 1.5 * size / 11, size // 2
    weight = {
        (i, j): math.exp(-((i - half) ** 2 + (j - half) ** 2) / (2 * sigma**2))
        for i in range(size)
        for j in range(size)
    }
    total = sum(weight.values())
    found = []
    for top in range(height - size + 1):
        for left in range(width - size + 1):
            x = {(i, j): float(a[top + i, left + j]) for i, j in weight}
            y = {(i, j): float(b[top + i, left + j]) for i, j in weight}
            mx = sum(weight[p] * x[p] for p in weight) / total
            my = sum(weight[p] * y[p] for p in weight) / total
            vx = sum(weight[p] * (x[p] - mx) ** 2 for p in weight) / total
            vy = sum(weight[p] * (y[p] - my) ** 2 for p in weight) / total
            cov = sum(weight[p] * (x[p] - mx) * (y[p] - my) for p in weight) / total
            top_line = (2 * mx * my + 0.01**2) * (2 * cov + 0.03**2)
            found.append(top_line / ((mx**2 + my**2 + 0.01**2) * (vx + vy + 0.03**2)))
    return sum(found) / len(found)


@pytest.mark.parametrize("shape", [(2, 1, 11, 11), (2, 3, 13, 12), (2, 2, 6, 14), (2, 1, 9, 8), (2, 1, 1, 4)])
def test_ssim_window_by_window(shape: tuple[int, int, int, int]) -> None:
    a, b = pair(*shape)
    slow = [
        sum(slow_ssim(x, y) for x, y in zip(one, other, strict=True)) / shape[1]
        for one, other in zip(a, b, strict=True)
    ]
    assert ssim(a, b).tolist() == pytest.approx(slow, rel=1e-9)


def test_errors_pixel_by_pixel() -> None:
    a, b = pair(3, 2, 4, 5)
    slow = [
        sum(float(p - q) ** 2 for p, q in zip(x.flatten(), y.flatten(), strict=True)) / 40
        for x, y in zip(a, b, strict=True)
    ]
    assert mse(a, b).tolist() == pytest.approx(slow)
    assert psnr(a, b).tolist() == pytest.approx([-10 * math.log10(error) for error in slow])


def test_a_psnr_by_hand() -> None:
    a = torch.zeros(2, 1, 3, 3)
    b = torch.stack([torch.full((1, 3, 3), 0.1), torch.full((1, 3, 3), 1.0)])
    assert psnr(a, b).tolist() == pytest.approx([20, 0], abs=1e-5)
    assert psnr(a * 255, b * 255, peak=255).tolist() == pytest.approx([20, 0], abs=1e-5)


def test_an_ssim_by_hand() -> None:
    """Flat images have no structure: luminance alone is left, equation 6."""
    a, b = torch.full((1, 1, 16, 16), 0.2), torch.full((1, 1, 16, 16), 0.6)
    assert ssim(a, b).item() == pytest.approx((2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4), rel=1e-5)


def test_a_picture_and_its_negative_are_opposed() -> None:
    board = ((torch.arange(16)[:, None] + torch.arange(16)) % 2).double()[None, None]
    assert -1 <= ssim(board, 1 - board).item() < -0.98


def test_equal_images_reach_the_ends() -> None:
    a, _ = pair(3, 3, 12, 12)
    assert mse(a, a).tolist() == [0, 0, 0]
    assert psnr(a, a).tolist() == [math.inf] * 3
    assert ssim(a, a).tolist() == pytest.approx([1, 1, 1], abs=1e-12)


@pytest.mark.parametrize("measure", [mse, psnr, ssim])
def test_each_is_symmetric_and_its_images_do_not_touch(measure: Measure) -> None:
    a, b = pair(4, 3, 12, 15)
    assert torch.allclose(measure(a, b), measure(b, a), rtol=1e-12)
    alone = torch.cat([measure(a[k : k + 1], b[k : k + 1]) for k in range(4)])
    assert torch.allclose(measure(a, b), alone, rtol=1e-12)


@pytest.mark.parametrize("measure", [mse, psnr, ssim])
def test_gradients_are_those_of_differences(measure: Measure) -> None:
    a, b = pair(2, 2, 5, 6, seed=1)
    assert torch.autograd.gradcheck(measure, (a.requires_grad_(), b.requires_grad_()))


@pytest.mark.parametrize("measure", [mse, ssim])
def test_low_precision_and_autocast_are_not_followed(measure: Measure) -> None:
    a, b = (images.bfloat16() for images in pair(2, 1, 16, 16))
    exact = measure(a.double(), b.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(measure(a, b).double(), exact, rtol=1e-4)
        assert torch.allclose(measure(a.float(), b.float()).double(), exact, rtol=1e-4)


@pytest.mark.parametrize("measure", [mse, psnr, ssim])
@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 5)),
        (torch.zeros(2, 1, 4, 4), torch.zeros(1, 1, 4, 4)),
        (torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.zeros(1, 1, 4, 4, dtype=torch.uint8)),
    ],
)
def test_images_that_do_not_pair_are_refused(measure: Measure, a: Tensor, b: Tensor) -> None:
    with pytest.raises(InputError, match=r"allowed: floating numbers, both of one shape"):
        measure(a, b)


def test_a_peak_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="peak: 0; allowed: above 0"):
        psnr(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), peak=0)


def test_the_residual_is_relative_to_what_was_observed() -> None:
    observed = torch.tensor([[[3.0, 4.0]], [[0.0, 2.0]]])
    found = residual(observed + torch.tensor([[[0.0, 1.0]], [[2.0, 0.0]]]), observed)
    assert found.tolist() == pytest.approx([1 / 5, 2 / 2])
    assert residual(torch.zeros(1, 3), torch.zeros(1, 3)).tolist() == [0.0], "and never a division by zero"
