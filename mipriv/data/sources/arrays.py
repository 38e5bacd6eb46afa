"""Images in one ``.npz`` file."""

import hashlib
import math
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mipriv.data.files import expand, one_line, refuse_name
from mipriv.data.sources import Record
from mipriv.errors import InputError

IMAGES = "uint8, or float32 in [0, 1], of shape [N, H, W] or [N, H, W, C] with C = 1 or 3"
# What zipfile and NumPy raise on a file that is damaged, encrypted or something else.
BROKEN = (OSError, zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError, RuntimeError)
LARGE, RATIO = 2**28, 200  # bytes of an array, and to those it is packed into, above which it is a bomb
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True)
class Arrays:
    """What an ``.npz`` file holds; nothing in it is unpickled.

    Its arrays: ``images``, uint8 or float32 in [0, 1], [N, H, W] or [N, H, W, C] with C = 1 or 3; ``labels``
    [N], integers or strings; both or neither of ``attributes`` [N, A], finite numbers, and
    ``attribute_names`` [A], strings. Paths are ``images/0`` to ``images/N-1``.

    Attributes:
        file: the file; environment variables in it are filled in.
    """

    file: str

    def records(self) -> list[Record]:
        """All images, from the header of ``images`` and the small arrays.

        Raises:
            InputError: an array that is missing, or of a shape or type that is not allowed.
        """
        shape = self._image_shape()
        labels = self._load("labels")
        fits = labels.dtype.kind in "iuU" and labels.shape == shape[:1]
        self._allow("labels", labels, fits, f"[{shape[0]}] int or str")
        for label in set(labels.tolist()):
            refuse_name(str(label), f"{str(self._path)!r}, labels")
        names, table = self._attributes(shape[0])
        return [
            Record(f"images/{i}", str(label), dict(zip(names, row, strict=True)))
            for i, (label, row) in enumerate(zip(labels.tolist(), table.tolist(), strict=True))
        ]

    def read(self, record: Record) -> NDArray[Any]:
        """[H, W, C], uint8 or float32 in [0, 1]; the first call reads all images.

        Raises:
            InputError: ``images`` cannot be read or holds values outside [0, 1].
        """
        image: NDArray[Any] = self._images[int(record.path.removeprefix("images/"))]
        return image

    def digest(self, record: Record) -> str:
        """Hex sha256 of the image's own bytes."""
        return hashlib.sha256(self.read(record).tobytes()).hexdigest()

    @property
    def _path(self) -> Path:
        return expand(self.file, "source arrays, file")

    @cached_property
    def _images(self) -> NDArray[Any]:
        shape = self._image_shape()
        images = self._load("images")
        low, high = images.min(), images.max()
        if images.dtype == np.float32 and not (low >= 0 and high <= 1):  # `not`: nothing compares with NaN
            raise InputError(f"{str(self._path)!r}, images: {low} to {high}; allowed: {IMAGES}")
        return images.reshape(*shape[:3], -1)

    def _image_shape(self) -> tuple[int, ...]:
        shape, dtype = self._header("images")
        channels = shape[3:] or (1,)
        good = len(shape) in (3, 4) and channels[0] in (1, 3) and min(shape) > 0
        if not good or dtype not in (np.uint8, np.float32):
            raise InputError(f"{str(self._path)!r}, images: {dtype} {list(shape)}; allowed: {IMAGES}")
        return shape

    def _attributes(self, n: int) -> tuple[list[str], NDArray[Any]]:
        present = {"attributes", "attribute_names"} & self._members().keys()
        if not present:
            return [], np.empty((n, 0))
        names, table = self._load("attribute_names"), self._load("attributes")
        unique = names.dtype.kind == "U" and names.ndim == 1 and len(set(names.tolist())) == len(names)
        self._allow("attribute_names", names, unique, "[A] str, no name twice")
        fits = table.dtype.kind in "iuf" and table.shape == (n, len(names)) and bool(np.isfinite(table).all())
        self._allow("attributes", table, fits, f"[{n}, {len(names)}] finite numbers")
        return names.tolist(), table

    def _allow(self, name: str, array: NDArray[Any], good: bool, allowed: str) -> None:
        if not good:
            held = f"{array.dtype} {list(array.shape)}"
            raise InputError(f"{str(self._path)!r}, {name}: {held}; allowed: {allowed}")

    def _members(self) -> dict[str, zipfile.ZipInfo]:
        try:
            with zipfile.ZipFile(self._path) as archive:
                return {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        except BROKEN as error:
            raise InputError(f"{str(self._path)!r}: not a readable .npz file ({one_line(error)})") from error

    def _header(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of an array, its data unread; its claims are held against the bytes there are."""
        members = self._members()
        if name not in members:
            raise InputError(f"{str(self._path)!r}: no array {name!r} among {sorted(members)}")
        try:
            with zipfile.ZipFile(self._path) as archive, archive.open(members[name]) as file:
                shape, _, dtype = HEADERS[npy.read_magic(file)](file)
        except BROKEN as error:
            raise InputError(f"{str(self._path)!r}, {name}: not a NumPy array ({one_line(error)})") from error
        if dtype.hasobject:
            raise InputError(f"{str(self._path)!r}, {name}: pickled objects; allowed: numbers and strings")
        if math.prod(shape) * dtype.itemsize > members[name].file_size:
            raise InputError(f"{str(self._path)!r}, {name}: fewer bytes than {dtype} {list(shape)} needs")
        packed = max(members[name].compress_size, 1)
        if members[name].file_size > max(LARGE, RATIO * packed):
            sizes = f"{members[name].file_size} bytes packed into {packed}"
            raise InputError(
                f"{str(self._path)!r}, {name}: {sizes}; allowed: at most {RATIO} to 1 above {LARGE}"
            )
        return shape, dtype

    def _load(self, name: str) -> NDArray[Any]:
        self._header(name)
        try:
            with np.load(self._path, allow_pickle=False) as archive:
                array: NDArray[Any] = archive[name]
        except BROKEN as error:
            raise InputError(f"{str(self._path)!r}, {name}: cannot be read ({one_line(error)})") from error
        return array
