"""A manifest says what it was built from, and one that was touched is not believed."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mipriv.data.manifest import Manifest
from mipriv.data.sources import Record
from mipriv.data.splits import SPLITS, SplitPlan, plan_splits
from mipriv.data.transform import Transform
from mipriv.errors import InputError

RECORDS = [Record(f"p{p}/{i}\udcff.png", f"p{p}", {"age": float(i)}) for p in (1, 2, 10) for i in range(4)]
DIGESTS = [hashlib.sha256(record.path.encode(errors="surrogateescape")).hexdigest() for record in RECORDS]
PLAN = SplitPlan(public=1, private=2, train=2, validation=1, test=1, public_validation=1, seed=3)
KNOBS = {"root": "$MIPRIV_DATA/x", "max_pixels": 9}
TRANSFORM = Transform([4, 4], [0, 0, 8, 8], 3)


def built(**changed: Any) -> Manifest:
    splits = plan_splits([record.label for record in RECORDS], PLAN)
    given = {
        "source_name": "image_folder",
        "knobs": KNOBS,
        "records": RECORDS,
        "digests": DIGESTS,
        "splits": splits,
        "transform": TRANSFORM,
    } | changed
    return Manifest.build(**given)


def test_what_is_saved_is_loaded(tmp_path):
    manifest = built()
    for name in ("one", "two"):
        built().save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    loaded = Manifest.load(tmp_path / "one")
    assert (loaded.source, loaded.knobs, loaded.transform) == ("image_folder", KNOBS, TRANSFORM)
    assert loaded.records == [(r.path, r.label, d) for r, d in zip(RECORDS, DIGESTS, strict=True)]
    for name in SPLITS:
        np.testing.assert_array_equal(loaded.splits[name], manifest.splits[name])
        assert loaded.splits[name].dtype == np.int64
    assert loaded.digest == manifest.digest
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "one").read_bytes()


def test_the_order_of_indices_does_not_matter():
    splits = {name: indices[::-1] for name, indices in built().splits.items()}
    assert built(splits=splits).digest == built().digest


def test_the_hash_of_a_split_is_that_of_its_index_bytes(tmp_path):
    built().save(tmp_path / "m")
    for part in json.loads((tmp_path / "m").read_text())["splits"].values():
        content = b"".join(i.to_bytes(8, "little") for i in part["indices"])
        assert part["sha256"] == hashlib.sha256(content).hexdigest()


def test_people_are_label_indices_in_natural_order():
    manifest = built()
    names = ["p1", "p2", "p10"]
    for split in SPLITS:
        people = {names.index(RECORDS[i].label) for i in manifest.splits[split]}
        assert manifest.people(split) == sorted(people)


def test_the_digest_hangs_on_the_data_and_not_on_where_it_lay():
    digest = built().digest
    assert built(knobs={"root": "/elsewhere"}).digest == digest
    other = [replace(RECORDS[0], attributes={"age": 9.0}), *RECORDS[1:]]
    renamed = [replace(record, label=record.label + "x") for record in RECORDS]
    splits = plan_splits([record.label for record in RECORDS], replace(PLAN, seed=4))
    digests = {
        digest,
        built(records=other).digest,
        built(records=renamed).digest,
        built(digests=[DIGESTS[1], *DIGESTS[1:]]).digest,
        built(transform=replace(TRANSFORM, size=(4, 5))).digest,
        built(splits=splits).digest,
    }
    assert len(digests) == 6


def sign(document: dict[str, Any]) -> None:
    """Make every hash fit again, as somebody who forges a manifest would."""
    for part in document["splits"].values():
        part["sha256"] = hashlib.sha256(np.array(part["indices"], "<i8").tobytes()).hexdigest()
    records = json.dumps(document["records"], sort_keys=True)
    document["records_sha256"] = hashlib.sha256(records.encode()).hexdigest()


def move(source: str, target: str) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        moved = document["splits"][source]["indices"].pop()
        document["splits"][target]["indices"] = sorted([*document["splits"][target]["indices"], moved])

    return edit


def copy(source: str, target: str) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        indices = {*document["splits"][target]["indices"], document["splits"][source]["indices"][0]}
        document["splits"][target]["indices"] = sorted(indices)

    return edit


def put(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return edit


def spell(document: dict[str, Any]) -> None:
    part = document["splits"]["private/test"]
    part["indices"] = [str(i) for i in part["indices"]]


@pytest.mark.parametrize(
    ("edit", "signed", "message"),
    [
        (move("private/test", "private/train"), False, "split 'private/train' does not match its sha256"),
        (move("private/test", "public/train"), True, "is both public and private"),
        (copy("private/test", "private/train"), True, "is held twice"),
        (put("splits", "private/test", "sha256", value="0" * 64), False, "'private/test' does not match"),
        (put("records", 0, "sha256", value="0" * 64), False, "records do not match their sha256"),
        (put("records", 0, "label", value="p11"), False, "records do not match their sha256"),
        (put("records_sha256", value="0"), False, "records do not match their sha256"),
        (put("records", 0, "extra", value=1), True, "records do not match their sha256"),
        (put("note", value="hello"), False, "unknown, missing or changed fields: note"),
        (put("format", value=2), False, "fields: format; allowed: format 1"),
        (put("transform", "size", value=[4]), False, r"transform, size: \[4\]"),
        (put("transform", "flip", value=True), False, "not a manifest .*flip"),
        (put("splits", "private/test", "indices", value=[99]), True, "an index outside 0 to 11"),
        (put("splits", "private/test", "indices", value=[2**70]), False, "not a manifest .*Overflow"),
        (spell, False, "changed fields: splits"),
        (put("splits", "private/more", value={"indices": [], "sha256": ""}), False, "allowed: exactly"),
        (put("records", value="none"), False, "not a manifest"),
        (put("splits", value=[]), False, "not a manifest"),
        (lambda document: document.pop("source"), False, "not a manifest"),
        (lambda document: document["splits"].pop("public/validation"), False, "allowed: exactly"),
    ],
)
def test_a_manifest_that_was_touched_is_refused(tmp_path, edit, signed, message):
    file = tmp_path / "manifest.json"
    built().save(file)
    document = json.loads(file.read_text())
    if signed:  # the signature is this module's own, so first see that it signs what is untouched
        sign(document)
        file.write_text(json.dumps(document))
        Manifest.load(file)
    edit(document)
    if signed:
        sign(document)
    file.write_text(json.dumps(document))
    with pytest.raises(InputError, match=message) as refused:
        Manifest.load(file)
    assert repr(str(file)) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff", b"{}", b"[" * 10**6])
def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(InputError, match="not a manifest"):
        Manifest.load(tmp_path / "m")
    with pytest.raises(InputError, match="absent': not a manifest"):
        Manifest.load(tmp_path / "absent")


def test_build_refuses_splits_that_overlap():
    splits = plan_splits([record.label for record in RECORDS], PLAN)
    with pytest.raises(InputError, match="held twice"):
        built(splits=splits | {"private/test": splits["private/train"]})
