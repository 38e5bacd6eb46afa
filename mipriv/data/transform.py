"""What is done to an image before it is stored: cropped, made grey or coloured, sized."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import interpolate

from mipriv.errors import InputError


@dataclass(frozen=True)
class Transform:
    """Crop, then grey or colour, then size.

    uint8 images are resized by Pillow (bilinear, antialiased) and stay uint8; float32 ones by torch, likewise
    bilinear and antialiased, and stay float32; sizing one takes it to lie in [0, 1] and keeps it there. An
    image that has the size already keeps its values, whatever they are.

    Attributes:
        size: height and width of the result.
        crop: none, [top, left, height, width], or the side of a square in the centre.
        channels: 1 (Pillow's L: 0.299 R + 0.587 G + 0.114 B) or 3 (grey is repeated).
    """

    size: tuple[int, int] | list[int]
    crop: tuple[int, int, int, int] | list[int] | int | None
    channels: Literal[1, 3]

    def __post_init__(self) -> None:
        _require(_is_ints(self.size, 2) and min(self.size) > 0, "size", self.size, "[height, width], above 0")
        _require(self.channels in (1, 3), "channels", self.channels, "1 or 3")
        allowed = "null, the side of a centre square, or [top, left, height, width]"
        if isinstance(self.crop, list | tuple):
            good = _is_ints(self.crop, 4) and min(self.crop) >= 0 and min(self.crop[2:]) > 0
        else:
            good = self.crop is None or (type(self.crop) is int and self.crop > 0)
        _require(good, "crop", self.crop, allowed)

    def apply(self, image: NDArray[Any], name: str) -> NDArray[Any]:
        """[H, W, C] uint8 or float32 to [height, width, channels] of the same type.

        Raises:
            InputError: the crop reaches outside the image, which is called `name`.
        """
        image = self._crop(image, name)
        if self.channels == 1 and image.shape[2] == 3:
            image = _grey(image)
        if image.shape[:2] != tuple(self.size):
            image = _resize(image, self.size[0], self.size[1])
        return image if image.shape[2] == self.channels else np.repeat(image, 3, axis=2)

    def keeps(self, shape: tuple[int, ...]) -> bool:
        """Whether images of this shape [H, W, C] come out as they went in."""
        return self.crop is None and (*self.size, self.channels) == shape

    def _crop(self, image: NDArray[Any], name: str) -> NDArray[Any]:
        h, w = image.shape[:2]
        if self.crop is None:
            return image
        if isinstance(self.crop, int):
            top, left, height, width = (h - self.crop) // 2, (w - self.crop) // 2, self.crop, self.crop
        else:
            top, left, height, width = self.crop
        if top < 0 or left < 0 or top + height > h or left + width > w:
            raise InputError(f"{name!r}: transform, crop: {self.crop} reaches outside this {h} x {w} image")
        cropped: NDArray[Any] = image[top : top + height, left : left + width]
        return cropped


def _require(good: bool, knob: str, value: object, allowed: str) -> None:
    if not good:
        raise InputError(f"transform, {knob}: {value!r}; allowed: {allowed}")


def _is_ints(value: object, length: int) -> bool:
    return isinstance(value, list | tuple) and [type(item) for item in value] == [int] * length


def _grey(image: NDArray[Any]) -> NDArray[Any]:
    if image.dtype == np.uint8:
        return np.asarray(Image.fromarray(np.ascontiguousarray(image)).convert("L"))[:, :, None]
    red, green, blue = np.split(image, 3, axis=2)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _resize(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    if image.dtype == np.uint8:
        plane = image if image.shape[2] == 3 else image[:, :, 0]  # grey has no third axis in Pillow
        picture = Image.fromarray(np.ascontiguousarray(plane))
        resized = picture.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(resized).reshape(height, width, -1)
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    sized = interpolate(planes, (height, width), mode="bilinear", antialias=True)[0]
    return sized.clamp(0, 1).permute(1, 2, 0).numpy()  # rounding may leave [0, 1] by a bit
