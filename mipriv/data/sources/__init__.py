"""Where images come from: one file a source.

A source lists its records without decoding a pixel, then reads and hashes them one by one.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from mipriv.data.law import GaussianLaw


@dataclass(frozen=True)
class Record:
    """One image of a source.

    Attributes:
        path: its name within the source, with forward slashes: the same wherever the source lies.
        label: name of its class or person.
        attributes: figures known of it; the same names, in the same order, for every record of a source.
        pool: the only one that its person may serve in, `public` or `private`; None where the splits decide.
    """

    path: str
    label: str
    attributes: Mapping[str, float]
    pool: str | None = None


class Source(Protocol):
    """What every module of this package offers; may be called from several threads at once."""

    def records(self) -> list[Record]:
        """Every image there is, in `natural` order of paths.

        Raises:
            InputError: what the knobs name is missing, or not what this source reads.
        """
        ...

    def read(self, record: Record) -> NDArray[Any]:
        """The image: [H, W, C] with C = 1 or 3, uint8, or float32: in [0, 1] unless the source is `Lawful`.

        Raises:
            InputError: naming the file that cannot be read.
        """
        ...

    def digest(self, record: Record) -> str:
        """Hex sha256 of the bytes that the image comes from."""
        ...


@runtime_checkable
class Named(Source, Protocol):
    """A source whose records follow from the names of files below its knob `root`, their content unread."""

    @property
    def root(self) -> str:
        """As it was given."""
        ...

    def records_of(self, names: Iterable[str]) -> list[Record]:
        """What `records` would give if files of these names, with forward slashes, lay below `root`.

        Raises:
            InputError: as `records` does.
        """
        ...


@runtime_checkable
class Lawful(Source, Protocol):
    """A source that draws its images from a law that is known: float32, all of one shape, and any number.

    A Gaussian leaves [0, 1] here and there; images clipped to it would be of another law, without a density.
    """

    def law(self) -> GaussianLaw:
        """The law of an image given its identity, of which its label is the name."""
        ...


def natural(name: str) -> tuple[list[str | int], str]:
    """Sort key under which s2 comes before s10; the name itself decides between 1 and 01."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
