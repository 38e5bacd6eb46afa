"""The block `audit`: victims that users bring, and which attacks they ask for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mipriv.data.files import expand, sha256
from mipriv.errors import InputError
from mipriv.models import foreign
from mipriv.models.foreign import Blueprint, Foreign, Preprocessing
from tasks.engine import store
from tasks.engine.params import Block
from tasks.knowledge import Setting
from tasks.prepare import copies


class Row(Block):
    """A victim and what it is asked.

    `victim` and its `preprocessing`; `sha256` of the weights (null: whichever lie there); `classes`, names in
    the order of its outputs, or how the folders' names were sorted: `sorted`, as torchvision's ImageFolder
    does, or `natural` (s2 before s10); `data`, a row of `prepare` with images that it has not seen;
    `training`, a row of `prepare` all of whose private images it was trained on, or the row `data` itself
    where they are not at hand; `layers`, after which it is cut; `attacks` on features, names under
    `audit.attacks`; `knowledge`, whose images the attacker on features has; `targets`, at most; `people`,
    whether a class is a person; `shadows`, a safetensors file of what shadow models answer (null: there are
    none); `seed` of the attacker.
    """

    victim: Blueprint
    preprocessing: Preprocessing
    sha256: str | None = None
    classes: Literal["sorted", "natural"] | Annotated[list[str], Field(min_length=2)]
    data: str
    training: str
    layers: list[str]
    attacks: list[str]
    knowledge: Setting
    targets: Annotated[int, Field(gt=1)]
    people: bool
    shadows: str | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    def names(self, folders: Sequence[str]) -> list[str]:
        """Names in the order of the outputs, of a victim whose data has these folders, in natural order."""
        if isinstance(self.classes, list):
            return self.classes
        return sorted(folders) if self.classes == "sorted" else list(folders)

    @contextmanager
    def brought(self, root: Path) -> Iterator[Path]:
        """The weights on this machine; of an `s3://` address a copy, which stays.

        Raises:
            InputError: not there, or not of `sha256`.
        """
        with brought(self.victim.weights, root, "weights") as path:
            if not path.is_file():
                raise InputError(f"victim.weights: {self.victim.weights!r}: no such file")
            if self.sha256 is not None and (found := sha256(path)) != self.sha256:
                raise InputError(f"sha256: the weights have {found}; given: {self.sha256}")
            yield path


class Inversion(Block):
    """`attack`, a plug-in, with `knobs`; `prior`, a plug-in learnt from public images, with `prior_knobs`;
    `judge`, an embedding that names people, and the `judge_accuracy` on real test images below which it is
    refused."""

    attack: str
    knobs: dict[str, Any]
    prior: str
    prior_knobs: dict[str, Any]
    judge: str
    judge_accuracy: Annotated[float, Field(ge=0, le=1)]


class Audit(Block):
    """`rates` of false positives; `resamples` of an interval; `images` in the picture wall; `attacks` on
    features with their knobs; `inversion`; `rows`."""

    rates: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)]
    resamples: Annotated[int, Field(gt=19)]
    images: Annotated[int, Field(gt=0)]
    attacks: dict[str, dict[str, Any]]
    inversion: Inversion
    rows: dict[str, Row]


@contextmanager
def brought(address: str, root: Path, knob: str) -> Iterator[Path]:
    """A file that a row names, on this machine."""
    if not store.is_remote(address):
        yield expand(address, knob)
        return
    with store.fetched(address, copies(root, address)) as path:
        yield path


@dataclass(frozen=True)
class Victim:
    """A row's victim as data of some classes sees it.

    Attributes:
        model: in evaluation mode, on the CPU.
        classes: names in the order of its outputs.
    """

    model: Foreign
    classes: list[str]

    @classmethod
    def load(cls, row: Row, weights: Path, shape: tuple[int, int, int], folders: Sequence[str]) -> "Victim":
        """From its file.

        Args:
            weights: brought here.
            shape: [C, H, W] of the data.
            folders: names of the data's classes, in natural order.

        Raises:
            InputError: see `foreign.load` and `foreign.outputs_of`.
        """
        classes = row.names(folders)
        foreign.outputs_of(folders, classes)
        model = foreign.load(row.victim, weights, row.preprocessing, shape, len(classes))
        return cls(model, classes)

    def outputs(self, folders: Sequence[str]) -> list[int]:
        """The output of each class."""
        return foreign.outputs_of(folders, self.classes)
