"""The one on-disk format of images: a folder of memory-mapped arrays.

``images.npy`` [N, H, W, C], uint8, or float32: in [0, 1] unless the images' law is known; ``labels.npy``
int64 [N], an index into the label names; ``attributes.npy`` float32 [N, A]; ``names.json`` with the names of
labels and attributes; where the law is known, ``law.safetensors``, whose sha256 is in ``names.json``.
"""

import io
import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mipriv.data.files import one_line, sha256
from mipriv.data.law import LAW, GaussianLaw
from mipriv.data.sources import Lawful, Record, Source, natural
from mipriv.data.transform import Transform
from mipriv.errors import InputError

# In the order in which they are removed: without its names, which are written last, a folder is no store.
FILES = ("names.json", "images.npy", "labels.npy", "attributes.npy")
THREADS = 4  # decoders that run at once; the bytes written do not depend on it
BLOCK = 256  # images between two calls of `progress`


@dataclass(frozen=True)
class ImageStore:
    """A folder in this format, memory-mapped.

    Attributes:
        images: [N, H, W, C], uint8, or float32: in [0, 1] where `bounded`; C = 1 or 3.
        labels: int64 [N], indices into `label_names`.
        attributes: float32 [N, A].
        label_names: in natural order.
        attribute_names: A names.
        law: of an image given its label, where it is known.
    """

    images: NDArray[Any]
    labels: NDArray[np.int64]
    attributes: NDArray[np.float32]
    label_names: list[str]
    attribute_names: list[str]
    law: GaussianLaw | None

    @classmethod
    def open(cls, folder: Path) -> "ImageStore":
        """Map the folder that `write` wrote.

        Raises:
            InputError: a file that is missing, damaged, or of a shape or type that does not fit the others.
        """
        label_names, attribute_names, law = _read_names(folder / "names.json")
        images, labels, attributes = (_map(folder / name) for name in FILES[1:])
        if law != _law_sha256(folder):
            raise InputError(f"{str(folder / LAW)!r}: not the law that was written with these images")
        store = cls(images, labels, attributes, label_names, attribute_names, GaussianLaw.load(folder))
        for name, array, good, allowed in store._checks():
            if not good:
                held = f"{array.dtype} {list(array.shape)}"
                raise InputError(f"{str(folder / name)!r}: {held}; allowed: {allowed}")
        return store

    @property
    def bounded(self) -> bool:
        """Whether every pixel lies in [0, 1] by what it is, and not only by luck of the draw."""
        return self.law is None

    def tensor(self, indices: Sequence[int] | NDArray[np.int64]) -> torch.Tensor:
        """Images as float32 [n, C, H, W], in [0, 1] where `bounded`."""
        chosen = torch.from_numpy(np.asarray(self.images)[np.asarray(indices, dtype=np.int64)])
        planes = chosen.permute(0, 3, 1, 2).contiguous()
        return planes.float() / 255 if planes.dtype == torch.uint8 else planes

    def _checks(self) -> list[tuple[str, NDArray[Any], bool, str]]:
        """Each file, its array, whether that is good, and what is allowed."""
        images, labels, attributes = self.images, self.labels, self.attributes
        n, k, a = images.shape[:1], len(self.label_names), len(self.attribute_names)
        shaped = images.ndim == 4 and images.shape[3] in (1, 3) and images.dtype in (np.uint8, np.float32)
        indexed = labels.dtype == np.int64 and labels.shape == n and set(labels.tolist()) <= set(range(k))
        tabled = attributes.dtype == np.float32 and attributes.shape == (*n, a)
        checks = [
            ("images.npy", images, shaped, "uint8 or float32 [N, H, W, 1 or 3]"),
            ("labels.npy", labels, indexed, f"int64 {list(n)}, each from 0 to {k - 1}"),
            ("attributes.npy", attributes, tabled, f"float32 {[*n, a]}"),
        ]
        if self.law is not None:
            d = math.prod(images.shape[1:])
            fits = images.dtype == np.float32 and self.law.dim == d
            checks.append((LAW, self.law.basis.numpy(), fits, f"float64 [k, {d}], beside float32 images"))
        return checks


def _map(file: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{str(file)!r}: not a readable array ({one_line(error)})") from error
    return array


def _law_sha256(folder: Path) -> str | None:
    return sha256(folder / LAW) if (folder / LAW).exists() else None


def _read_names(file: Path) -> tuple[list[str], list[str], str | None]:
    """Names of labels and of attributes, and the sha256 of the law if there is one."""
    try:
        names = json.loads(file.read_bytes())
        labels, attributes = list(map(str, names["labels"])), list(map(str, names["attributes"]))
        law = names.get("law")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{str(file)!r}: not the names of an image folder ({one_line(error)})") from error
    return labels, attributes, law


def write(
    folder: Path,
    source: Source,
    records: Sequence[Record],
    transform: Transform,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write records, in their order, as an image folder; the same input gives the same bytes.

    Images go one by one into the memory map, so memory does not grow with their number. What the folder held
    of this format is replaced. The law of a source that is `Lawful` is written beside its images.

    Raises:
        InputError: no record, an image that cannot be read or cropped, images of different types, a value
            outside [0, 1] of a source without a law, or a transform that would change that law.
    """
    if not records:
        raise InputError("no image to write: the source lists none")
    if isinstance(source, Lawful):
        _refuse_change(source.read(records[0]), transform)
    label_names, labels = index_labels([record.label for record in records])
    attribute_names, attributes = attribute_table(records)
    folder.mkdir(parents=True, exist_ok=True)
    # Removed rather than overwritten: an old file may be mapped, or linked to a cache.
    for name in (*FILES, LAW):
        (folder / name).unlink(missing_ok=True)
    _write_images(folder / "images.npy", source, records, transform, progress)
    write_bytes(folder / "labels.npy", _npy(labels))
    write_bytes(folder / "attributes.npy", _npy(attributes))
    if isinstance(source, Lawful):
        source.law().save(folder)
    names: dict[str, Any] = {"labels": label_names, "attributes": attribute_names}
    if law := _law_sha256(folder):
        names["law"] = law
    write_bytes(folder / "names.json", json.dumps(names, indent=1).encode() + b"\n")


def _refuse_change(image: NDArray[Any], transform: Transform) -> None:
    if not transform.keeps(image.shape):
        (height, width, channels), given = image.shape, asdict(transform)
        allowed = f"size [{height}, {width}], crop null, channels {channels}, with which the law stays known"
        raise InputError(f"transform: {given}; allowed: {allowed}")


def _write_images(
    file: Path,
    source: Source,
    records: Sequence[Record],
    transform: Transform,
    progress: Callable[[int, int], None] | None,
) -> None:
    dtype = source.read(records[0]).dtype
    bounded = dtype == np.float32 and not isinstance(source, Lawful)
    shape = (len(records), *transform.size, transform.channels)
    images = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)

    def put(i: int) -> None:
        image = source.read(records[i])
        if image.dtype != dtype:
            raise InputError(f"{records[i].path!r}: {image.dtype}; allowed: {dtype}, as the first image is")
        if bounded and not (image.min() >= 0 and image.max() <= 1):  # `not`: nothing compares with NaN
            held = f"{image.min()} to {image.max()}"
            raise InputError(f"{records[i].path!r}: {held}; allowed: 0 to 1, from a source without a law")
        images[i] = transform.apply(image, records[i].path)

    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(records), BLOCK):
            stop = min(start + BLOCK, len(records))
            for _ in pool.map(put, range(start, stop)):
                pass
            if progress is not None:
                progress(stop, len(records))
    images.flush()
    with file.open("rb") as written:
        os.fsync(written.fileno())


def index_labels(labels: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Distinct labels in natural order, and each label's place among them."""
    names = sorted(set(labels), key=natural)
    places = {name: i for i, name in enumerate(names)}
    return names, np.array([places[label] for label in labels], dtype=np.int64)


def attribute_table(records: Sequence[Record]) -> tuple[list[str], NDArray[np.float32]]:
    """Attribute names, and attributes as float32 [N, A].

    Raises:
        InputError: a record whose attributes are not those of the first.
    """
    names = list(records[0].attributes) if records else []
    for record in records:
        if list(record.attributes) != names:
            held = list(record.attributes)
            raise InputError(f"{record.path!r}: attributes {held}; allowed: {names}, as the first image has")
    rows = [list(record.attributes.values()) for record in records]
    return names, np.array(rows, dtype=np.float32).reshape(len(records), len(names))


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()
