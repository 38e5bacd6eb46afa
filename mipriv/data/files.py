"""Files that a user brings: found, hashed and decoded with suspicion."""

import hashlib
import os
import re
import unicodedata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mipriv.errors import InputError

# Only these decoders are tried: a file named .png that is in truth PostScript must not start an interpreter.
FORMATS = ("PNG", "JPEG", "PPM", "BMP", "WEBP", "TIFF")

# PIL modes of eight bits and what they become; alpha is dropped. Modes of more bits are refused, since PIL
# would clip them to white rather than scale them.
EIGHT_BIT = {
    "1": "L",
    "L": "L",
    "LA": "L",
    "P": "RGB",
    "PA": "RGB",
    "RGB": "RGB",
    "RGBA": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
}


# Marks that turn the direction of text around: a name that holds one reads as another.
TURNS = {chr(code) for code in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
ODD = {
    "Cc": "a control character",
    "Cs": "bytes that are no UTF-8",
    "Zl": "a line break",
    "Zp": "a line break",
}


def refuse_name(name: str, where: str) -> None:
    """Refuse a name that cannot be shown as what it is, on one line; spaces, quotes and any letters are fine.

    Args:
        where: what bears it.

    Raises:
        InputError: a control character, a line break, a mark of direction, or bytes that are no UTF-8 in it.
    """
    for letter in name:
        kind = "a mark of direction" if letter in TURNS else ODD.get(unicodedata.category(letter))
        if kind is not None:
            raise InputError(f"{where}: name {name!a} holds {kind}; allowed: names of letters that print")


def expand(path: str, where: str) -> Path:
    """`path` with its environment variables filled in; `where` is the knob that gave it.

    Raises:
        InputError: a variable is not set.
    """
    names = [braced or bare for braced, bare in re.findall(r"\$(?:\{([^}]*)\}|(\w+))", path, re.ASCII)]
    unset = [name for name in names if name not in os.environ]
    if unset:
        raise InputError(f"{where}: {path!r} needs environment variables that are unset: {', '.join(unset)}")
    return Path(os.path.expandvars(path))


def sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{str(path)!r}: cannot be read ({one_line(error)})") from error


def read_image(path: Path, max_pixels: int) -> NDArray[np.uint8]:
    """Decode an image file upright (EXIF orientation applied) to uint8 [H, W, C], C = 1 or 3.

    Raises:
        InputError: not an image of `FORMATS`, truncated, of more than eight bits a channel, or larger than
            `max_pixels` by its header, which is read before any pixel is.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            _refuse_header(image, path, max_pixels)
            pixels = np.asarray(ImageOps.exif_transpose(image).convert(EIGHT_BIT[image.mode]))
    except InputError:
        raise
    except Exception as error:  # decoders raise anything (struct.error, SyntaxError, ...) on a hostile file
        raise InputError(f"{str(path)!r}: not a readable image ({one_line(error)})") from error
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _refuse_header(image: Image.Image, path: Path, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        size = f"{image.width} x {image.height}"
        raise InputError(f"{str(path)!r}: image of {size} pixels; allowed: at most {max_pixels} in all")
    if image.mode not in EIGHT_BIT:
        raise InputError(f"{str(path)!r}: image of mode {image.mode}; allowed: 8-bit grey or colour")


def one_line(error: BaseException) -> str:
    """What an exception says, on a single line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
