"""Fashion-MNIST: 70,000 articles of clothing of ten kinds, grey, 28 x 28.

Xiao, Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms",
arXiv 1708.07747, 2017. Read from its four idx files, whose format is that of LeCun's MNIST: two bytes of
nought, 8 for bytes, the number of sizes, the sizes (32 bits, the high byte first), the bytes.
"""

import gzip
import hashlib
import math
import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mipriv.data.files import expand, one_line
from mipriv.data.sources import Record
from mipriv.errors import InputError

CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"
)  # fmt: skip
PARTS = {"test": "t10k", "train": "train"}  # in the order of their paths
MOST, SIDE = 60_000, 28  # images of a part


@dataclass(frozen=True)
class FashionMNIST:
    """Both published parts as one pool, under paths ``test/0`` to ``train/59999``.

    `root` is the folder of the idx files, packed (``.gz``) or not, as Debian's package
    ``dataset-fashion-mnist`` and the publisher have them, or torchvision's root, which holds them in
    ``FashionMNIST/raw``. Records and digests do not depend on which.

    Attributes:
        root: the folder; environment variables in it are filled in.
    """

    root: str = "/usr/share/datasets/fashion-mnist"

    def records(self) -> list[Record]:
        """All images, those of the published test first.

        Raises:
            InputError: `root` lacks a file, or one is damaged.
        """
        return [
            Record(f"{part}/{row}", CLASSES[label], {})
            for part, (_, labels) in self._parts.items()
            for row, label in enumerate(labels.tolist())
        ]

    def read(self, record: Record) -> NDArray[np.uint8]:
        """uint8 [28, 28, 1]; the first call reads all images (55 MB)."""
        part, row = record.path.split("/")
        image: NDArray[np.uint8] = self._parts[part][0][int(row), :, :, None]
        return image

    def digest(self, record: Record) -> str:
        """Hex sha256 of the image's own 784 bytes."""
        return hashlib.sha256(self.read(record).tobytes()).hexdigest()

    @cached_property
    def _parts(self) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        """Images [n, 28, 28] and labels [n]."""
        root = expand(self.root, "source fashion_mnist, root")
        return {part: _part(root, name) for part, name in PARTS.items()}


def _part(root: Path, name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    files = _file(root, f"{name}-images-idx3-ubyte"), _file(root, f"{name}-labels-idx1-ubyte")
    images, labels = _numbers(files[0], (SIDE, SIDE)), _numbers(files[1], ())
    if len(images) != len(labels):
        raise InputError(f"{str(files[1])!r}: {len(labels)} labels; allowed: {len(images)}, one an image")
    if labels.max() >= len(CLASSES):
        raise InputError(f"{str(files[1])!r}: a label of {labels.max()}; allowed: 0 to {len(CLASSES) - 1}")
    return images, labels


def _file(root: Path, name: str) -> Path:
    for folder in (root, root / "FashionMNIST" / "raw"):
        for file in (folder / name, folder / f"{name}.gz"):
            if file.is_file():
                return file
    raise InputError(
        f"source fashion_mnist, root: {str(root)!r} holds no {name}[.gz]; allowed: the folder of Debian's "
        "package dataset-fashion-mnist, or torchvision's root"
    )


def _numbers(file: Path, each: tuple[int, ...]) -> NDArray[np.uint8]:
    """What an idx file holds, [n, *each]; no more is unpacked than it may hold."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            head = stream.read(4 + 4 * (1 + len(each)))
            held = stream.read(MOST * math.prod(each) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{str(file)!r}: cannot be read ({one_line(error)})") from error
    allowed = f"idx of bytes, [n, {', '.join(map(str, each))}]" if each else "idx of bytes, [n]"
    if len(head) < 8 + 4 * len(each) or head[:4] != bytes([0, 0, 8, 1 + len(each)]):
        raise InputError(f"{str(file)!r}: begins with {head[:4].hex(' ') or 'nothing'}; allowed: {allowed}")
    count, *sizes = struct.unpack(f">{1 + len(each)}I", head[4:])
    if tuple(sizes) != each or not 1 <= count <= MOST:
        raise InputError(f"{str(file)!r}: {[count, *sizes]}; allowed: {allowed}, n from 1 to {MOST}")
    if len(held) != count * math.prod(each):
        more = "more" if len(held) > count * math.prod(each) else "fewer"
        raise InputError(f"{str(file)!r}: {more} bytes than {[count, *sizes]}; allowed: as many")
    return np.frombuffer(held, np.uint8).reshape(count, *each)
