"""Crops, greys and sizes against pixel-by-pixel arithmetic."""

import numpy as np
import pytest

from mipriv.data.transform import Transform
from mipriv.errors import InputError


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear with antialias, by definition: a triangle as wide as an output pixel, of weight one."""

    def weights(n_in: int, n_out: int) -> np.ndarray:
        scale = n_in / n_out
        w = np.zeros((n_out, n_in))
        for o in range(n_out):
            for i in range(n_in):
                w[o, i] = max(0.0, 1 - abs(i + 0.5 - (o + 0.5) * scale) / max(scale, 1))
        return w / w.sum(1, keepdims=True)

    return np.einsum("yi,xj,ijc->yxc", weights(image.shape[0], height), weights(image.shape[1], width), image)


@pytest.mark.parametrize("shape", [(12, 10, 3), (9, 31, 1), (4, 4, 3)])
@pytest.mark.parametrize("size", [(4, 4), (7, 5), (20, 33)])
def test_sizes_match_the_definition(shape, size):
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    result = Transform(size, None, shape[2]).apply(image, "x")
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, resized(image, *size), atol=1e-5)

    image = (image * 255).astype(np.uint8)
    result = Transform(list(size), None, shape[2]).apply(image, "x")
    assert result.dtype == np.uint8
    np.testing.assert_allclose(result, resized(image, *size), atol=1.01)  # Pillow rounds after each axis


@pytest.mark.parametrize("side", range(3, 12))
def test_white_stays_within_one(side):
    white = np.ones((side, side + 3, 1), np.float32)
    assert Transform((2, 3), None, 1).apply(white, "x").max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_an_image_of_the_size_keeps_its_values(dtype):
    image = np.random.default_rng(1).integers(0, 2, (5, 6, 3)).astype(dtype)
    np.testing.assert_array_equal(Transform((5, 6), None, 3).apply(image, "x"), image)


def test_an_image_of_the_size_keeps_values_outside_of_the_unit_interval():
    image = np.random.default_rng(1).normal(0, 9, (5, 6, 1)).astype(np.float32)
    np.testing.assert_array_equal(Transform((5, 6), None, 1).apply(image, "x"), image)


def test_what_keeps_an_image_is_known_by_its_shape():
    assert Transform([5, 6], None, 3).keeps((5, 6, 3))
    for changes in (Transform((6, 5), None, 3), Transform((5, 6), None, 1), Transform((5, 6), 5, 3)):
        assert not changes.keeps((5, 6, 3))


def test_crops():
    image = np.arange(7 * 10, dtype=np.uint8).reshape(7, 10, 1)
    cropped = Transform((2, 3), [1, 4, 2, 3], 1).apply(image, "x")
    np.testing.assert_array_equal(cropped, image[1:3, 4:7])
    np.testing.assert_array_equal(Transform((5, 5), 5, 1).apply(image, "x"), image[1:6, 2:7])
    np.testing.assert_array_equal(Transform((7, 10), [0, 0, 7, 10], 1).apply(image, "x"), image)
    # The crop comes before the resize, which therefore sees nothing outside it.
    spot = np.zeros((8, 8, 1), np.uint8)
    spot[0, 0] = 255
    assert not Transform((2, 2), [1, 1, 4, 4], 1).apply(spot, "x").any()


@pytest.mark.parametrize("crop", [[0, 0, 8, 10], [0, 0, 7, 11], [1, 0, 7, 10], [0, 1, 7, 10], 8])
def test_a_crop_outside_the_image_names_file_and_size(crop):
    with pytest.raises(InputError) as refused:
        Transform((4, 4), crop, 1).apply(np.zeros((7, 10, 1), np.uint8), "who/1.png")
    assert str(refused.value) == f"'who/1.png': transform, crop: {crop} reaches outside this 7 x 10 image"


def test_grey_and_colour():
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    r, g, b = image.astype(int).transpose(2, 0, 1)
    pillow = (19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16  # Pillow's L, in its own fixed point
    np.testing.assert_array_equal(Transform((5, 6), None, 1).apply(image, "x")[:, :, 0], pillow)

    image = rng.random((5, 6, 3), dtype=np.float32)
    grey = Transform((5, 6), None, 1).apply(image, "x")
    assert grey.dtype == np.float32
    np.testing.assert_allclose(grey[:, :, 0], image @ [0.299, 0.587, 0.114], atol=1e-6)
    assert Transform((5, 6), None, 1).apply(np.ones((5, 6, 3), np.float32), "x").max() <= 1

    for plane in (image[:, :, :1], pillow.astype(np.uint8)[:, :, None]):
        coloured = Transform((5, 6), None, 3).apply(plane, "x")
        np.testing.assert_array_equal(coloured, np.concatenate([plane] * 3, axis=2))


@pytest.mark.parametrize(
    ("size", "crop", "channels", "message"),
    [
        ((4,), None, 3, "size: (4,)"),
        ((4, 0), None, 3, "size: (4, 0)"),
        ((4, 4.0), None, 3, "size: (4, 4.0)"),
        ((4, 4), None, 2, "channels: 2"),
        ((4, 4), 0, 3, "crop: 0"),
        ((4, 4), True, 3, "crop: True"),
        ((4, 4), [0, 0, 4], 3, "crop: [0, 0, 4]"),
        ((4, 4), [-1, 0, 4, 4], 3, "crop: [-1, 0, 4, 4]"),
        ((4, 4), [0, 0, 0, 4], 3, "crop: [0, 0, 0, 4]"),
    ],
)
def test_knobs_are_checked(size, crop, channels, message):
    with pytest.raises(InputError) as refused:
        Transform(size, crop, channels)
    assert str(refused.value).startswith(f"transform, {message}; allowed: ")
