"""A folder of images, one folder a class."""

import csv
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from mipriv.data.files import expand, read_image, refuse_name, sha256
from mipriv.data.sources import Record, natural
from mipriv.errors import InputError

POOLS = ("public", "private")
EXTENSIONS = {".png", ".jpg", ".jpeg", ".pgm", ".ppm", ".bmp", ".webp", ".tif", ".tiff"}


@dataclass(frozen=True)
class ImageFolder:
    """Every image below `root`, labelled with the folder right below `root` that it is in.

    Environment variables in both paths are filled in. Hidden files and other extensions are passed over. A
    link must point to a file within `root`.

    Attributes:
        root: the folder of class folders.
        attributes: CSV file with a column ``file`` (path below `root`) and otherwise finite numbers; every
            image needs a row, a row needs no image.
        pools: whether class folders lie in folders ``public`` and ``private`` right below `root`, which then
            says who is in which pool.
        max_pixels: images whose header claims more are refused before they are decoded.
    """

    root: str
    attributes: str | None = None
    pools: bool = False
    max_pixels: int = 64_000_000

    def records(self) -> list[Record]:
        """All images.

        Raises:
            InputError: no such folder, no image in it, an image outside a class folder, a link that is not
                allowed, or an attribute file that does not fit.
        """
        root = self._root()
        if not root.is_dir():
            raise InputError(f"source image_folder, root: {str(root)!r} is not a folder")
        return self._records(_images(root), str(root))

    def records_of(self, names: Iterable[str]) -> list[Record]:
        """See `Named`."""
        return self._records([name for name in names if _is_image(name)], self.root)

    def read(self, record: Record) -> NDArray[np.uint8]:
        """uint8 [H, W, C], C = 1 or 3."""
        return read_image(self._root() / record.path, self.max_pixels)

    def digest(self, record: Record) -> str:
        """Hex sha256 of the image file."""
        return sha256(self._root() / record.path)

    def _records(self, images: list[str], root: str) -> list[Record]:
        paths = sorted(images, key=natural)
        if not paths:
            allowed = " ".join(sorted(EXTENSIONS))
            raise InputError(f"source image_folder, root: no image in {root!r}; allowed: {allowed}")
        for path in paths:
            refuse_name(path, "source image_folder, root")
        places = [self._place(path, root) for path in paths]
        table = self._attributes(paths)
        return [
            Record(path, label, table[path], pool) for path, (label, pool) in zip(paths, places, strict=True)
        ]

    def _place(self, path: str, root: str) -> tuple[str, str | None]:
        """The class and the pool of an image."""
        folders = path.split("/")[:-1]
        pool = folders.pop(0) if self.pools and folders else None
        if not folders or (self.pools and pool not in POOLS):
            allowed = f"root/{'|'.join(POOLS)}/CLASS/IMAGE" if self.pools else "root/CLASS/IMAGE"
            raise InputError(f"{f'{root}/{path}'!r}: in no class folder; allowed: {allowed}")
        return folders[0], pool

    def _root(self) -> Path:
        return expand(self.root, "source image_folder, root")

    def _attributes(self, paths: list[str]) -> dict[str, dict[str, float]]:
        if self.attributes is None:
            return {path: {} for path in paths}
        file = expand(self.attributes, "source image_folder, attributes")
        table = _read_table(file)
        for path in paths:
            if path not in table:
                raise InputError(f"{str(file)!r}: no row for {path!r}; every image needs one")
        return table


def _images(root: Path) -> list[str]:
    """Paths below `root` of its images."""
    found = []
    for folder, folders, files in os.walk(root, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            if (link := Path(folder, name)).is_symlink():
                raise InputError(f"{str(link)!r}: link to a folder; allowed: links to files within root")
        for name in files:
            path = Path(folder, name)
            if _is_image(inside := path.relative_to(root).as_posix()):
                _refuse_file(path, root)
                found.append(inside)
    return found


def _is_image(name: str) -> bool:
    """Whether a path below root is an image's, by its extension; what is hidden is not."""
    path = PurePosixPath(name)
    return path.suffix.lower() in EXTENSIONS and not any(part.startswith(".") for part in path.parts)


def _unreadable(error: OSError) -> None:
    raise InputError(f"{error.filename!r}: folder cannot be read ({error.strerror})") from error


def _refuse_file(path: Path, root: Path) -> None:
    # `realpath` stops at a link to itself, which `resolve` breaks on.
    if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise InputError(f"{str(path)!r}: link that leaves root; allowed: links to files within root")
    if not path.is_file():  # opening a pipe would wait for ever
        raise InputError(f"{str(path)!r}: not a regular file, or a link to nothing")


def _read_table(file: Path) -> dict[str, dict[str, float]]:
    """CSV file to {path: {column: figure}}."""
    try:
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as lines:
            reader = csv.reader(lines, strict=True)
            return _parse(file, next(reader, []), [(reader.line_num, row) for row in reader])
    except (OSError, csv.Error) as error:
        raise InputError(f"{str(file)!r}: not a readable CSV file ({error})") from error


def _parse(file: Path, header: list[str], rows: list[tuple[int, list[str]]]) -> dict[str, dict[str, float]]:
    if "file" not in header or len(set(header)) != len(header):
        raise InputError(f"{str(file)!r}: columns {header}; allowed: one called 'file', and no name twice")
    table: dict[str, dict[str, float]] = {}
    for line, row in rows:
        where = f"{str(file)!r}, line {line}"
        if len(row) != len(header):
            raise InputError(f"{where}: {len(row)} cells; allowed: {len(header)}, as in the header")
        cells = dict(zip(header, row, strict=True))
        path = cells.pop("file")
        if path in table:
            raise InputError(f"{where}: a second row for {path!r}")
        table[path] = {name: _number(text, f"{where}, {name}") for name, text in cells.items()}
    return table


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{where}: {text!r}; allowed: a finite number")
    return number
