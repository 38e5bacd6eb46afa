"""Images, folders, arrays and keys that somebody made to do harm."""

import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mipriv.data.sources.arrays import Arrays
from mipriv.data.sources.image_folder import ImageFolder
from mipriv.errors import InputError
from tasks.engine.mirror import Object, refuse_names


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one good image of one person."""
    (tmp_path / "faces" / "p1").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "faces" / "p1" / "1.png")
    return tmp_path / "faces"


def refusal(source: ImageFolder | Arrays) -> str:
    with pytest.raises(InputError) as error:
        for record in source.records():
            source.read(record)
    assert "\n" not in str(error.value)
    return str(error.value)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(
    ("side", "said"),
    [(9_000, "9000 x 9000 pixels; allowed: at most 64000000 in all"), (30_000, "DecompressionBombError")],
)
def test_a_decompression_bomb_is_refused_by_its_header(root: Path, side: int, said: str) -> None:
    """True ones: the larger decodes to 0.9 GB, in less than a megabyte."""
    packed = zlib.compressobj(9)
    rows = b"".join(packed.compress(bytes(1 + side)) for _ in range(side)) + packed.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    assert len(bomb) < 2**20
    (root / "p1" / "bomb.png").write_bytes(bomb)
    assert said in refusal(ImageFolder(str(root)))


def test_a_text_that_unpacks_to_a_gigabyte_is_not_unpacked(root: Path) -> None:
    Image.new("L", (8, 8)).save(root / "p1" / "1.png")
    whole = (root / "p1" / "1.png").read_bytes()
    text = b"Comment\0\0" + zlib.compress(bytes(2**28), 9)
    (root / "p1" / "1.png").write_bytes(whole[:33] + chunk(b"zTXt", text) + whole[33:])
    assert "not a readable image" in refusal(ImageFolder(str(root)))


def test_links_that_leave_the_folder_are_refused(root: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "secret.png")
    (root / "p1" / "link.png").symlink_to(tmp_path / "secret.png")
    assert "link that leaves root" in refusal(ImageFolder(str(root)))
    (root / "p1" / "link.png").unlink()
    (root / "p2").symlink_to(tmp_path)
    assert "link to a folder" in refusal(ImageFolder(str(root)))
    (root / "p2").unlink()
    (root / "p1" / "loop.png").symlink_to(root / "p1" / "loop.png")
    assert "loop.png" in refusal(ImageFolder(str(root)))


ODD = {
    "new\nline": "control character",
    "tab\t": "control character",
    "\x1b[31mred": "control character",
    "gpj.\u202egnp": "mark of direction",
    "\u2066a": "mark of direction",
    "a\u2028b": "line break",
    os.fsdecode(b"\xff\xfe"): "no UTF-8",
}


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_names_that_cannot_be_shown_are_refused_wherever_they_stand(root: Path, name: str) -> None:
    (root / name).mkdir()
    Image.new("L", (8, 8)).save(root / name / "1.png")
    said = refusal(ImageFolder(str(root)))
    assert ODD[name] in said and said.isprintable() and ascii(said) == ascii(said.encode().decode())
    with pytest.raises(InputError, match=ODD[name]):
        refuse_names([Object(f"s3://b/{name}/1.png", name, f"{name}/1.png", 1, "")])


def test_labels_in_an_array_are_names_too(tmp_path: Path) -> None:
    images = np.zeros((2, 4, 4), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.array(["good", "bad\n\u202e"]))
    assert "control character" in refusal(Arrays(str(tmp_path / "a.npz")))


@pytest.mark.parametrize("name", ["O'Brien", 'qu"ote', "a b", "<script>", "-rf", "%41", "日本", "a..b"])
def test_names_that_are_only_unusual_are_fine(root: Path, name: str) -> None:
    (root / name).mkdir()
    Image.new("L", (8, 8)).save(root / name / "1.png")
    assert name in {record.label for record in ImageFolder(str(root)).records()}


@pytest.mark.parametrize(
    "name", ["../up.png", "p1/../../up.png", "/etc/up.png", "..", "p1\\..\\up.png", "./a"]
)
def test_keys_that_climb_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="key leaves its folder"):
        refuse_names([Object(f"s3://b/{name}", name, name, 1, "")])


def test_pickled_objects_in_arrays_are_not_read(tmp_path: Path, mark: Path) -> None:
    from tests.hostile.conftest import Payload

    for name in ("images", "labels"):
        good = {"images": np.zeros((2, 4, 4), np.uint8), "labels": np.arange(2)}
        np.savez(tmp_path / "a.npz", **{**good, name: np.array([Payload(mark), 1], dtype=object)})
        said = refusal(Arrays(str(tmp_path / "a.npz")))
        assert "pickled objects; allowed: numbers and strings" in said or "images: object [2]" in said
        assert not mark.exists()
    with np.load(tmp_path / "a.npz", allow_pickle=True) as held:
        assert held["labels"] is not None and mark.exists(), "the file does harm where it is believed"


def test_an_archive_with_names_that_climb_is_never_unpacked(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    good = inside / "a.npz"
    np.savez(good, images=np.zeros((2, 4, 4), np.uint8), labels=np.arange(2))
    with zipfile.ZipFile(good, "a") as archive:
        archive.writestr("../climbed.npy", b"x")
    source = Arrays(str(good))
    assert len(source.records()) == 2 and source.read(source.records()[0]).shape == (4, 4, 1)
    assert not list(tmp_path.rglob("climbed*"))
    assert "is not a folder" in refusal(ImageFolder(str(good)))


def test_an_archive_among_the_images_is_passed_over(root: Path) -> None:
    with zipfile.ZipFile(root / "p1" / "more.zip", "w") as archive:
        archive.writestr("../climbed.png", b"x")
    assert [record.path for record in ImageFolder(str(root)).records()] == ["p1/1.png"]
    (root / "p1" / "more.zip").rename(root / "p1" / "more.png")
    assert "not a readable image" in refusal(ImageFolder(str(root)))


def test_an_array_that_unpacks_to_far_more_than_it_is_packed_into_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": (3 * 2**8, 2**10, 2**10)}
            )
            for _ in range(3 * 2**8):
                file.write(bytes(2**20))
        with archive.open("labels.npy", "w") as file:
            np.lib.format.write_array(file, np.zeros(3 * 2**8, np.int64))
    assert path.stat().st_size < 2**20
    assert "allowed: at most 200 to 1 above 268435456" in refusal(Arrays(str(path)))
