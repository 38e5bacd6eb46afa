"""A prepared dataset: its image folder and its manifest, read together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipriv.data.images import ImageStore
from mipriv.data.law import GaussianLaw
from mipriv.data.manifest import Manifest, attributes_sha256
from mipriv.data.splits import PRIVATE, PUBLIC, SPLITS
from mipriv.errors import InputError
from mipriv.plugin import one_of

MANIFEST = "manifest.json"
UNKNOWN = -1  # class of an attribute that nobody knows of an image
POOLS = {"public": PUBLIC, "private": PRIVATE}

Pool = Literal["public", "private"]


@dataclass(frozen=True)
class Dataset:
    """Images, labels and attributes by split; the labels of a pool are 0 to K-1 in natural order of names."""

    store: ImageStore
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> "Dataset":
        """Open the folder that holds an image folder and its `MANIFEST`.

        Raises:
            InputError: one of the two is missing or damaged, or they are not of the same data.
        """
        store, manifest = ImageStore.open(folder), Manifest.load(folder / MANIFEST)
        labels = [store.label_names[i] for i in store.labels]
        for what, stored, written in (
            ("labels", labels, [label for _, label, _ in manifest.records]),
            ("attributes", attributes_sha256(store.attribute_names, store.attributes), manifest.attributes),
            ("shape", store.images.shape[1:], (*manifest.transform.size, manifest.transform.channels)),
        ):
            if stored != written:
                raise InputError(
                    f"{str(folder)!r}: {what} differ between images and {MANIFEST}; prepare again"
                )
        return cls(store, manifest)

    def split(self, name: str) -> tuple[Tensor, Tensor]:
        """Images float32 [n, C, H, W], in [0, 1] where `bounded`, and labels int64 [n] within the pool.

        Raises:
            InputError: no such split.
        """
        indices = self._indices(name)
        labels = np.searchsorted(self._people(name.split("/")[0]), self.store.labels[indices])
        return self.store.tensor(indices), torch.from_numpy(labels)

    def attributes(self, split: str) -> Tensor:
        """float32 [n, A], rows as in `split`, columns as in `store.attribute_names`."""
        return torch.from_numpy(np.asarray(self.store.attributes)[self._indices(split)])

    @property
    def attribute_names(self) -> list[str]:
        """In the order of the columns of `attributes`."""
        return self.store.attribute_names

    def attribute(self, split: str, name: str) -> Tensor:
        """Classes int64 [n] of an attribute, rows as in `split`: from 0, or `UNKNOWN`.

        Raises:
            InputError: no such split or attribute, or values that are no classes.
        """
        return torch.from_numpy(self._classes(name)[self._indices(split)])

    def task(self, split: str, name: str | None) -> Tensor:
        """Classes int64 [n] of a task, rows as in `split`: an attribute, or None, who is on each image."""
        return self.split(split)[1] if name is None else self.attribute(split, name)

    def task_classes(self, name: str | None) -> int:
        """How many classes a task has on private images, two or more: K."""
        if name is None:
            return self.num_classes("private")
        return max(2, 1 + max(int(self.attribute(split, name).max()) for split in PRIVATE))

    def num_classes(self, pool: Pool) -> int:
        """People in a pool."""
        return len(self._people(pool))

    def names(self, pool: Pool) -> list[str]:
        """Names of the people in a pool, in the order of their labels."""
        return [self.store.label_names[i] for i in self._people(pool)]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, height, width, channels = self.store.images.shape
        return channels, height, width

    @property
    def law(self) -> GaussianLaw | None:
        """Of an image given its person, where it is known."""
        return self.store.law

    @property
    def bounded(self) -> bool:
        """Whether every pixel lies in [0, 1]; where a law is known they may be any number."""
        return self.store.bounded

    @property
    def digest(self) -> str:
        """Hex sha256 that identifies images, labels, attributes and splits."""
        return self.manifest.digest

    def _indices(self, split: str) -> NDArray[np.int64]:
        one_of(split, SPLITS, "split")
        return self.manifest.splits[split]

    def _classes(self, name: str) -> NDArray[np.int64]:
        one_of(name, self.attribute_names, "attribute")
        values = np.asarray(self.store.attributes)[:, self.attribute_names.index(name)]
        classes = values.astype(np.int64)
        if (classes != values).any() or (classes < UNKNOWN).any():
            raise InputError(
                f"attribute {name!r}: is no class; allowed: whole numbers from 0, -1 where unknown"
            )
        return classes

    def _people(self, pool: str) -> NDArray[np.int64]:
        """Labels of the image folder that a pool has, sorted."""
        one_of(pool, POOLS, "pool")
        return np.unique(np.concatenate([self.store.labels[self._indices(split)] for split in POOLS[pool]]))
