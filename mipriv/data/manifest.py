"""The manifest of a prepared dataset: which images, from where, in which split, each with its hash."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipriv.data.files import one_line
from mipriv.data.images import attribute_table, index_labels, write_bytes
from mipriv.data.sources import Record
from mipriv.data.splits import SPLITS, Indices, refuse_splits
from mipriv.data.transform import Transform
from mipriv.errors import InputError

FORMAT = 1

# What reading a file that is not a manifest raises, whatever it is instead.
MALFORMED = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Manifest:
    """What was prepared. No time and no expanded path is in it, so the same data give the same bytes.

    Attributes:
        source: name of the source.
        knobs: its knobs as they were given.
        transform: what was done to each image.
        records: path, label and sha256 of each image, in the order of the image folder.
        attributes: sha256 of attribute names and values (`attributes_sha256`).
        splits: sorted int64 indices of images under each name of `SPLITS`.
    """

    source: str
    knobs: Mapping[str, Any]
    transform: Transform
    records: list[tuple[str, str, str]]
    attributes: str
    splits: dict[str, Indices]

    def __post_init__(self) -> None:
        refuse_splits(self.splits, [label for _, label, _ in self.records])

    @classmethod
    def build(
        cls,
        source_name: str,
        knobs: Mapping[str, Any],
        records: Sequence[Record],
        digests: Sequence[str],
        splits: Mapping[str, Indices],
        transform: Transform,
    ) -> "Manifest":
        """Manifest of records that were written in this order.

        Raises:
            InputError: splits that overlap, share a person, or reach outside the records.
        """
        return cls(
            source=source_name,
            knobs=dict(knobs),
            transform=transform,
            records=[
                (record.path, record.label, digest) for record, digest in zip(records, digests, strict=True)
            ],
            attributes=attributes_sha256(*attribute_table(records)),
            splits={name: np.sort(indices) for name, indices in splits.items()},
        )

    @classmethod
    def load(cls, path: Path) -> "Manifest":
        """Read a manifest and hold it against its own hashes.

        Raises:
            InputError: not a manifest, a hash that does not match, or splits that `build` refuses.
        """
        try:
            document = json.loads(path.read_bytes())
            manifest = cls._parse(document)
            _refuse_difference(document, manifest._document())
        except MALFORMED as error:
            said = str(error) if isinstance(error, InputError) else f"not a manifest ({one_line(error)})"
            raise InputError(f"{str(path)!r}: {said}") from error
        return manifest

    def save(self, path: Path) -> None:
        """Write JSON: sorted, and the same bytes for the same manifest."""
        text = json.dumps(self._document(), indent=1, sort_keys=True)
        write_bytes(path, text.encode() + b"\n")

    @property
    def digest(self) -> str:
        """Hex sha256 of images, labels, attributes, transform and splits; where they lay does not enter."""
        document = self._document()
        return _sha256([document[part] for part in ("records", "attributes", "transform", "splits")])

    def people(self, split: str) -> list[int]:
        """Labels in a split, as sorted indices into the label names of the image folder."""
        _, labels = index_labels([label for _, label, _ in self.records])
        return sorted(set(labels[self.splits[split]].tolist()))

    @classmethod
    def _parse(cls, document: dict[str, Any]) -> "Manifest":
        return cls(
            source=document["source"]["name"],
            knobs=document["source"]["knobs"],
            transform=Transform(**document["transform"]),
            records=[(record["path"], record["label"], record["sha256"]) for record in document["records"]],
            attributes=document["attributes"],
            splits={name: np.array(part["indices"], np.int64) for name, part in document["splits"].items()},
        )

    def _document(self) -> dict[str, Any]:
        records = [{"path": path, "label": label, "sha256": digest} for path, label, digest in self.records]
        splits = {}
        for name in SPLITS:
            content = hashlib.sha256(self.splits[name].astype("<i8").tobytes())
            splits[name] = {"indices": self.splits[name].tolist(), "sha256": content.hexdigest()}
        document: dict[str, Any] = {
            "format": FORMAT,
            "source": {"name": self.source, "knobs": self.knobs},
            "transform": asdict(self.transform),
            "attributes": self.attributes,
            "records": records,
            "records_sha256": _sha256(records),
            "splits": splits,
        }
        plain: dict[str, Any] = json.loads(json.dumps(document))  # as a file would give it back: no tuples
        return plain


def attributes_sha256(names: Sequence[str], values: NDArray[np.float32]) -> str:
    """Hex sha256 of attribute names [A] and values [N, A]."""
    return _sha256([list(names), hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()])


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _refuse_difference(found: dict[str, Any], recomputed: dict[str, Any]) -> None:
    for name in SPLITS:
        if found["splits"][name]["sha256"] != recomputed["splits"][name]["sha256"]:
            raise InputError(f"split {name!r} does not match its sha256; it was changed or damaged")
    if found["records_sha256"] != recomputed["records_sha256"]:
        raise InputError("records do not match their sha256; they were changed or damaged")
    if found != recomputed:
        wrong = sorted(key for key in found.keys() | recomputed if found.get(key) != recomputed.get(key))
        raise InputError(f"unknown, missing or changed fields: {', '.join(wrong)}; allowed: format {FORMAT}")
