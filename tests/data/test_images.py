"""The image folder: what is written is what was read, and nothing damaged is opened."""

import json
import os
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from mipriv import plugin
from mipriv.data.images import FILES, ImageStore, attribute_table, index_labels, write
from mipriv.data.sources import Lawful, Record
from mipriv.data.transform import Transform
from mipriv.errors import InputError

SMALL = Transform((4, 4), None, 3)


@dataclass(frozen=True)
class Listed:
    """A source of arrays that are at hand."""

    images: list[np.ndarray]

    def records(self) -> list[Record]:
        return [Record(f"{i}", f"c{i % 3}", {}) for i in range(len(self.images))]

    def read(self, record: Record) -> np.ndarray:
        return self.images[int(record.path)]

    def digest(self, record: Record) -> str:
        raise NotImplementedError


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("name", plugin.names("source"))
def test_a_folder_holds_what_its_source_reads(name, knobs, tmp_path):
    source = plugin.load("source", name, **knobs(name))
    records = source.records()
    transform = Transform((5, 4), None, 1) if isinstance(source, Lawful) else Transform((5, 7), 4, 3)
    write(tmp_path / "out", source, records, transform)
    store = ImageStore.open(tmp_path / "out")
    assert isinstance(store.images, np.memmap)
    assert len(store.images) == len(store.labels) == len(store.attributes) == len(records)
    for i, record in enumerate(records):
        np.testing.assert_array_equal(store.images[i], transform.apply(source.read(record), record.path))
        assert store.label_names[store.labels[i]] == record.label
        held = dict(zip(store.attribute_names, store.attributes[i], strict=True))
        assert held == {key: np.float32(value) for key, value in record.attributes.items()}


def test_the_same_records_give_the_same_bytes(faces, tmp_path):
    source = plugin.load("source", "image_folder", root=str(faces))
    for out in ("one", "two"):
        write(tmp_path / out, source, source.records(), SMALL)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert set(content(tmp_path / "one")) == set(FILES)
    write(tmp_path / "two", source, source.records()[::-1], SMALL)
    assert content(tmp_path / "one") != content(tmp_path / "two")


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    alive, most, lock = 0, 0, threading.Lock()

    def count(step: int) -> None:
        nonlocal alive, most
        with lock:
            alive += step
            most = max(most, alive)

    class Made(Listed):
        def read(self, record: Record) -> np.ndarray:
            image = np.full((4, 4, 3), int(record.path) % 251, np.uint8)
            weakref.finalize(image, count, -1)
            count(1)
            return image

    n = 1500
    source = Made([np.empty(0)] * n)
    seen: list[tuple[int, int]] = []
    write(tmp_path / "out", source, source.records(), SMALL, lambda done, total: seen.append((done, total)))
    assert most < 20
    assert seen[-1] == (n, n) and seen == sorted(set(seen)) and len(seen) > 3
    assert ImageStore.open(tmp_path / "out").images[:, 0, 0, 0].tolist() == [i % 251 for i in range(n)]


def test_float_images_stay_float(tmp_path):
    rng = np.random.default_rng(0)
    source = Listed([rng.random((6, 6, 1), dtype=np.float32) for _ in range(5)])
    write(tmp_path / "out", source, source.records(), Transform((6, 6), None, 1))
    store = ImageStore.open(tmp_path / "out")
    assert store.images.dtype == np.float32
    tensor = store.tensor([4, 0])
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor[0, 0].numpy(), source.images[4][:, :, 0])
    np.testing.assert_array_equal(tensor[1, 0].numpy(), source.images[0][:, :, 0])


def test_tensor_scales_bytes_to_one_and_puts_channels_first(tmp_path):
    images = [np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3) + 200 * i for i in (0, 1)]
    source = Listed([image.astype(np.uint8) for image in images])
    write(tmp_path / "out", source, source.records(), SMALL)
    tensor = ImageStore.open(tmp_path / "out").tensor(np.array([1, 0, 1]))
    assert tensor.shape == (3, 3, 4, 4) and tensor.is_contiguous()
    for row, i in enumerate((1, 0, 1)):
        for c in range(3):
            expected = source.images[i][:, :, c].astype(np.float32) / 255
            np.testing.assert_array_equal(tensor[row, c].numpy(), expected)


def test_a_written_folder_is_replaced_and_not_written_over(tmp_path):
    first, second = (Listed([np.full((4, 4, 3), v, np.uint8)] * 3) for v in (1, 2))
    write(tmp_path / "out", first, first.records(), SMALL)
    opened = ImageStore.open(tmp_path / "out")
    os.link(tmp_path / "out" / "images.npy", tmp_path / "cache")
    cached = (tmp_path / "cache").read_bytes()
    write(tmp_path / "out", second, second.records(), SMALL)
    assert (opened.images == 1).all() and (tmp_path / "cache").read_bytes() == cached
    assert (ImageStore.open(tmp_path / "out").images == 2).all()


def test_a_folder_that_was_not_finished_is_not_opened(tmp_path):
    good = Listed([np.zeros((4, 4, 3), np.uint8)] * 3)
    write(tmp_path / "out", good, good.records(), SMALL)
    bad = Listed([*good.images[:2], np.zeros((3, 3, 3), np.uint8)])
    with pytest.raises(InputError, match=r"'2': transform, crop: 4 reaches outside this 3 x 3 image"):
        write(tmp_path / "out", bad, bad.records(), Transform((4, 4), 4, 3))
    with pytest.raises(InputError, match=r"names.json"):
        ImageStore.open(tmp_path / "out")


def test_what_cannot_be_written(tmp_path):
    mixed = Listed([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.float32)])
    with pytest.raises(InputError, match="'1': float32; allowed: uint8, as the first image is"):
        write(tmp_path / "out", mixed, mixed.records(), SMALL)
    with pytest.raises(InputError, match="no image to write"):
        write(tmp_path / "out", mixed, [], SMALL)
    records = [Record("a", "x", {"age": 1.0}), Record("b", "x", {})]
    with pytest.raises(InputError, match=r"'b': attributes \[\]; allowed: \['age'\]"):
        attribute_table(records)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("images", np.zeros((3, 4, 4), np.uint8), r"images.npy': uint8 \[3, 4, 4\]; allowed: uint8"),
        ("images", np.zeros((3, 4, 4, 2), np.uint8), r"images.npy'"),
        ("images", np.zeros((3, 4, 4, 3)), r"images.npy': float64"),
        ("images", np.uint8(3), r"images.npy': uint8 \[\]"),
        ("images", np.array([None]), r"images.npy': not a readable array"),
        ("labels", np.zeros(2, np.int64), r"int64 \[2\]; allowed: int64 \[3\], each from 0 to 2"),
        ("labels", np.array([0, 1, 3]), r"labels.npy'"),
        ("labels", np.array([0, 1, -1]), r"labels.npy'"),
        ("labels", np.zeros(3, np.int32), r"labels.npy'"),
        ("attributes", np.zeros((3, 1), np.float32), r"float32 \[3, 1\]; allowed: float32 \[3, 0\]"),
        ("attributes", np.zeros((3, 0)), r"attributes.npy'"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path, name, array, message):
    source = Listed([np.zeros((4, 4, 3), np.uint8)] * 3)
    write(tmp_path, source, source.records(), SMALL)
    np.save(tmp_path / f"{name}.npy", array)
    with pytest.raises(InputError, match=message):
        ImageStore.open(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"labels": 3, "attributes": []})])
def test_damaged_names_are_refused(tmp_path, text):
    source = Listed([np.zeros((4, 4, 3), np.uint8)] * 3)
    write(tmp_path, source, source.records(), SMALL)
    (tmp_path / "names.json").write_text(text)
    with pytest.raises(InputError, match=r"names\.json': not the names of an image folder"):
        ImageStore.open(tmp_path)


def test_a_truncated_array_is_refused(tmp_path):
    source = Listed([np.zeros((4, 4, 3), np.uint8)] * 3)
    write(tmp_path, source, source.records(), SMALL)
    with (tmp_path / "images.npy").open("r+b") as file:
        file.truncate(200)
    with pytest.raises(InputError, match=r"images\.npy': not a readable array"):
        ImageStore.open(tmp_path)


def test_labels_are_numbered_in_natural_order():
    names, indices = index_labels(["s10", "s2", "s1", "s2"])
    assert names == ["s1", "s2", "s10"] and indices.tolist() == [2, 1, 0, 1] and indices.dtype == np.int64
