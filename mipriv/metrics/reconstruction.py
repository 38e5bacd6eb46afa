"""Per-image measures of how near a reconstruction comes to the picture itself.

All are differentiable, so that a defence or an attacker may train on them. Averages over images are the
caller's: the mean PSNR is not the PSNR of the mean error, which is what the released code of CEM reports.
"""

import torch
from torch import Tensor

from mipriv.errors import InputError

WINDOW, SIGMA = 11, 1.5  # of SSIM's Gaussian, in pixels
K1, K2 = 0.01, 0.03


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Squared error, averaged over the values of an image.

    Args:
        a: [n, C, H, W].
        b: [n, C, H, W].

    Returns:
        [n], in squared units of the image.

    Raises:
        InputError: images that do not pair, or are not floating.
    """
    a, b = _paired(a, b)
    return (a - b).square().mean((1, 2, 3))


def psnr(a: Tensor, b: Tensor, peak: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio: 10 log10(peak^2 / mse), image by image.

    Args:
        a: [n, C, H, W].
        b: [n, C, H, W].
        peak: the largest value that an image can take.

    Returns:
        [n] in dB; infinite, and without a finite gradient, where the images are equal.

    Raises:
        InputError: images that do not pair, or are not floating; or a peak that is not positive.
    """
    if not peak > 0:
        raise InputError(f"peak: {peak}; allowed: above 0")
    return 10 * torch.log10(peak**2 / mse(a, b))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean structural similarity of Wang et al. (IEEE TIP 2004), equations 13 to 17.

    Local moments under a Gaussian window of 11 x 11 pixels and deviation 1.5; K1 = 0.01, K2 = 0.03; peak 1.
    The window stays inside the image, as in the authors' code: the released code of CEM pads with zeros, so
    that its figures take in a border that both images share. An image with a side under 11 pixels gets the
    largest odd window that fits, its deviation scaled with its side. The mean is over positions and channels.

    Args:
        a: [n, C, H, W] in [0, 1].
        b: [n, C, H, W] in [0, 1].

    Returns:
        [n], at most 1, which equal images reach.

    Raises:
        InputError: images that do not pair, or are not floating.
    """
    a, b = _paired(a, b)
    # Variances are differences of near numbers: bfloat16, in which autocast convolves, would be all error.
    with torch.autocast(a.device.type, enabled=False):
        return _similarity(*_moments(a, b)).mean((1, 2, 3))


def _moments(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    """Local means, variances and covariance, equations 14 to 16: each [n, C, H', W']."""
    window = _window(min(a.shape[2:]), a)
    down, across = (_sliding(window, side) for side in a.shape[2:])
    # Around the middle of each picture squares are small, and their differences keep their digits.
    level_a, level_b = (image.mean((2, 3), keepdim=True) for image in (a, b))
    a, b = a - level_a, b - level_b
    mean_a, mean_b, aa, bb, ab = down @ torch.stack([a, b, a * a, b * b, a * b]) @ across.T
    moments = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    return mean_a + level_a, mean_b + level_b, *moments


def _similarity(mean_a: Tensor, mean_b: Tensor, var_a: Tensor, var_b: Tensor, cov: Tensor) -> Tensor:
    """Equation 13, with peak 1."""
    c1, c2 = K1**2, K2**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance * (2 * cov + c2) / (var_a + var_b + c2)


def _window(side: int, like: Tensor) -> Tensor:
    """A side of the Gaussian window for images of some smaller side: [k], summing to one."""
    size = min(WINDOW, side - (side + 1) % 2)
    sigma = SIGMA * size / WINDOW
    place = torch.arange(size, dtype=like.dtype, device=like.device) - size // 2
    weight = torch.exp(-(place**2) / (2 * sigma**2))
    return weight / weight.sum()


def _sliding(window: Tensor, side: int) -> Tensor:
    """The window at every place where it fits: [side - k + 1, side].

    As a matrix: a convolution of single channels is many times slower on CPUs, its gradient more so.
    """
    places = side - len(window) + 1
    padded = torch.cat([window, window.new_zeros(places)])
    return padded.repeat(places)[: places * side].view(places, side)


def _paired(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both in single precision at least."""
    floating = a.is_floating_point() and b.is_floating_point()
    if a.shape != b.shape or a.ndim != 4 or not floating or 0 in a.shape[1:]:
        raise InputError(
            f"images: {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}; allowed: floating numbers, "
            "both of one shape [n, C, H, W]"
        )
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return a.to(dtype), b.to(dtype)


def residual(features: Tensor, observed: Tensor) -> Tensor:
    """How far features are from those observed, relative to these: |f - z| / |z|, both [n, *shape], to [n].

    Small beside a large error of the image, the image is not unique; large, it was not found.
    """
    wanted = observed.flatten(1)
    unit = wanted.norm(dim=1).clamp(min=torch.finfo(wanted.dtype).tiny)
    gaps: Tensor = (features.flatten(1) - wanted).norm(dim=1) / unit
    return gaps
