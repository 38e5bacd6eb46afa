"""Images and manifest together, on the real ORL faces."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mipriv import plugin
from mipriv.data.dataset import MANIFEST, Dataset
from mipriv.data.images import write
from mipriv.data.manifest import Manifest
from mipriv.data.splits import PRIVATE, PUBLIC, SPLITS, SplitPlan, plan_splits
from mipriv.data.transform import Transform
from mipriv.errors import InputError

PLAN = SplitPlan(public=25, private=None, train=6, validation=2, test=-1, public_validation=2, seed=0)
ROUND = Transform((28, 23), None, 1)


def prepare(folder: Path, name: str, knobs: dict, plan: SplitPlan, transform: Transform) -> Dataset:
    source = plugin.load("source", name, **knobs)
    records = source.records()
    write(folder, source, records, transform)
    splits = plan_splits([record.label for record in records], plan)
    digests = [source.digest(record) for record in records]
    Manifest.build(name, knobs, records, digests, splits, transform).save(folder / MANIFEST)
    return Dataset.open(folder)


@pytest.fixture(scope="module")
def orl(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare(tmp_path_factory.mktemp("orl"), "orl", {}, PLAN, ROUND)


def test_every_image_is_where_its_label_says(orl):
    source = plugin.load("source", "orl")
    records = source.records()
    sizes = {"public/train": 200, "public/validation": 50, "private/train": 90, "private/validation": 30}
    assert orl.image_shape == (1, 28, 23)
    for name, n in {**sizes, "private/test": 30}.items():
        images, labels = orl.split(name)
        assert images.shape == (n, 1, 28, 23) and images.dtype == torch.float32
        assert labels.shape == (n,) and labels.dtype == torch.int64
        names = orl.names(name.split("/")[0])
        for image, label, i in zip(images, labels, orl.manifest.splits[name], strict=True):
            assert names[label] == records[i].label
            expected = ROUND.apply(source.read(records[i]), "x").transpose(2, 0, 1) / np.float32(255)
            np.testing.assert_array_equal(image.numpy(), expected)


def test_labels_are_dense_within_a_pool(orl):
    for pool, n, splits in (("public", 25, PUBLIC), ("private", 15, PRIVATE)):
        assert orl.num_classes(pool) == len(orl.names(pool)) == n
        for split in splits:
            assert orl.split(split)[1].unique().tolist() == list(range(n))
        assert orl.names(pool) == sorted(orl.names(pool), key=lambda name: int(name[1:]))
    assert not set(orl.names("public")) & set(orl.names("private"))


def test_attributes_follow_the_rows_of_their_split(tmp_path, save_npz):
    plan = SplitPlan(public=1, private=None, train=1, validation=0, test=0, public_validation=0, seed=0)
    dataset = prepare(tmp_path / "out", "arrays", {"file": save_npz()}, plan, Transform((6, 4), None, 1))
    held = np.load(tmp_path / "set.npz")
    assert dataset.store.attribute_names == ["male", "young"]
    for split in SPLITS:
        rows = dataset.manifest.splits[split]
        expected = held["attributes"][rows].astype(np.float32)
        np.testing.assert_array_equal(dataset.attributes(split).numpy(), expected)
        np.testing.assert_array_equal(dataset.split(split)[0][:, 0].numpy(), held["images"][rows])


def test_an_empty_pool_has_no_classes_and_empty_splits(tmp_path, faces):
    plan = SplitPlan(public=0, private=None, train=1, validation=1, test=1, public_validation=0, seed=0)
    knobs = {"root": str(faces)}
    dataset = prepare(tmp_path / "out", "image_folder", knobs, plan, Transform((8, 8), None, 3))
    assert dataset.num_classes("public") == 0
    images, labels = dataset.split("public/train")
    assert images.shape == (0, 3, 8, 8) and labels.shape == (0,)
    assert dataset.attributes("private/train").shape == (3, 0)


def test_a_dataset_of_a_known_law_says_so(orl, tmp_path, knobs):
    given, transform = knobs("eigenfaces"), Transform((5, 4), None, 1)
    plan = SplitPlan(public=1, private=None, train=2, validation=1, test=1, public_validation=1, seed=0)
    dataset = prepare(tmp_path / "out", "eigenfaces", given, plan, transform)
    law, images = dataset.law, dataset.split("private/train")[0]
    assert law is not None and law.dim == images[0].numel() and not dataset.bounded
    assert images.min() < 0 and images.max() > 1
    assert orl.law is None and orl.bounded


def test_unknown_names_are_refused(orl):
    with pytest.raises(InputError, match="split: 'private/tests' does not exist"):
        orl.split("private/tests")
    with pytest.raises(InputError, match="pool: 'secret' does not exist"):
        orl.num_classes("secret")


def test_the_digest_is_that_of_data_and_splits(tmp_path, faces):
    plan = SplitPlan(public=1, private=None, train=1, validation=1, test=1, public_validation=0, seed=0)
    transform = Transform((8, 8), None, 3)
    one = prepare(tmp_path / "one", "image_folder", {"root": str(faces)}, plan, transform).digest
    moved = faces.rename(tmp_path / "moved")
    assert prepare(tmp_path / "two", "image_folder", {"root": str(moved)}, plan, transform).digest == one
    (moved / "p1" / "1.png").write_bytes((moved / "p1" / "2.png").read_bytes())
    assert prepare(tmp_path / "three", "image_folder", {"root": str(moved)}, plan, transform).digest != one


@pytest.mark.parametrize(
    ("what", "transform", "reverse"),
    [("labels", Transform((8, 8), None, 3), True), ("shape", Transform((8, 9), None, 3), False)],
)
def test_images_and_manifest_of_different_data_are_refused(tmp_path, faces, what, transform, reverse):
    knobs = {"root": str(faces)}
    plan = SplitPlan(public=1, private=None, train=1, validation=1, test=1, public_validation=0, seed=0)
    prepare(tmp_path / "out", "image_folder", knobs, plan, Transform((8, 8), None, 3))
    source = plugin.load("source", "image_folder", **knobs)
    records = source.records()
    write(tmp_path / "out", source, records[::-1] if reverse else records, transform)
    with pytest.raises(InputError, match=f"{what} differ between images and manifest.json; prepare again"):
        Dataset.open(tmp_path / "out")


def test_attributes_that_differ_from_the_manifest_are_refused(tmp_path, save_npz):
    plan = SplitPlan(public=1, private=None, train=1, validation=0, test=0, public_validation=0, seed=0)
    prepare(tmp_path / "out", "arrays", {"file": save_npz()}, plan, Transform((6, 4), None, 1))
    np.save(tmp_path / "out" / "attributes.npy", np.zeros((5, 2), np.float32))
    with pytest.raises(InputError, match="attributes differ between"):
        Dataset.open(tmp_path / "out")


def test_a_folder_without_a_manifest_is_refused(tmp_path, faces):
    source = plugin.load("source", "image_folder", root=str(faces))
    write(tmp_path / "out", source, source.records(), Transform((8, 8), None, 3))
    with pytest.raises(InputError, match=r"manifest\.json': not a manifest"):
        Dataset.open(tmp_path / "out")


def test_attributes_are_classes_in_the_order_of_their_images(tmp_path):
    values = np.array([[1, 0.5], [0, 1], [-1, 0], [2, 0], [1, 1], [0, 1]], dtype=np.float32)
    np.savez(
        tmp_path / "some.npz",
        images=np.zeros((6, 4, 4, 1), np.uint8),
        labels=np.array(["a", "a", "a", "b", "b", "b"]),
        attributes=values,
        attribute_names=np.array(["hat", "half"]),
    )
    plan = SplitPlan(public=0, private=2, train=1, validation=1, test=1, public_validation=0, seed=0)
    knobs = {"file": str(tmp_path / "some.npz")}
    data = prepare(tmp_path / "out", "arrays", knobs, plan, Transform((4, 4), None, 1))
    assert data.attribute_names == ["hat", "half"]
    for split in PRIVATE:
        at = data.manifest.splits[split]
        assert data.attribute(split, "hat").tolist() == values[at, 0].tolist()
        assert data.task(split, "hat").equal(data.attribute(split, "hat"))
        assert data.task(split, None).equal(data.split(split)[1])
    assert data.task_classes("hat") == 3 and data.task_classes(None) == 2
    with pytest.raises(InputError, match=r"attribute: 'hut' does not exist \(did you mean 'hat'\?\)"):
        data.attribute("private/train", "hut")
    with pytest.raises(InputError, match="attribute 'half': is no class; allowed: whole numbers"):
        data.attribute("private/train", "half")
