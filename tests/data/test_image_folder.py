"""A folder that somebody else made: what is found in it, and what is refused."""

import os
import shutil
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mipriv.data.sources.image_folder import ImageFolder
from mipriv.errors import InputError


def refusal(root: Path, **knobs: object) -> str:
    """What is said of the first image, or of the folder."""
    source = ImageFolder(str(root), **knobs)
    with pytest.raises(InputError) as refused:
        for record in source.records():
            source.read(record)
    message = str(refused.value)
    assert "\n" not in message
    return message


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_labels_are_the_top_folders_and_order_is_natural(faces):
    (faces / "README.txt").write_text("not an image")
    (faces / ".hidden").mkdir()
    for hidden in (".hidden/1.png", "p1/.1.png"):
        (faces / hidden).write_bytes(b"")
    paths = [record.path for record in ImageFolder(str(faces)).records()]
    people = [("p1", 5), ("p2", 4), ("p10", 3)]
    assert paths == [f"{person}/{i}.png" for person, n in people for i in [*range(1, n), "more/0"]]
    labels = [record.label for record in ImageFolder(str(faces)).records()]
    assert labels == [person for person, n in people for _ in range(n)]


def test_listing_decodes_nothing(faces):
    for file in faces.rglob("*.png"):
        file.write_bytes(b"no image at all")
    assert len(ImageFolder(str(faces)).records()) == 12


def test_names_with_odd_characters(tmp_path):
    names = ["a b", "qu'ote\"", "%41", "日本", "-rf", "O'Brien"]
    pixels = {name: np.full((2, 3, 3), i, np.uint8) for i, name in enumerate(names)}
    for name in names:
        (tmp_path / name).mkdir()
        Image.fromarray(pixels[name]).save(tmp_path / name / f"{name}.PNG")
    source = ImageFolder(str(tmp_path))
    records = source.records()
    assert {record.label for record in records} == set(names)
    for record in records:
        np.testing.assert_array_equal(source.read(record), pixels[record.label])
        assert len(source.digest(record)) == 64
    for file in tmp_path.rglob("*.PNG"):
        file.write_bytes(b"")
    refusal(tmp_path)


def test_truncated_images_and_other_files_are_named(faces):
    file = faces / "p1" / "1.png"
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:20], b"", b"plain text", b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        file.write_bytes(content)
        assert f"{str(file)!r}: not a readable image" in refusal(faces)


def test_other_formats_are_refused_whatever_they_are_called(faces):
    file = faces / "p1" / "1.png"
    Image.new("L", (4, 4)).save(file, format="GIF")
    assert f"{str(file)!r}: not a readable image" in refusal(faces)


def test_size_is_read_from_the_header_and_refused_before_decoding(faces):
    file = faces / "p1" / "1.png"
    file.write_bytes(png_header(8001, 8000))
    assert refusal(faces) == f"{str(file)!r}: image of 8001 x 8000 pixels; allowed: at most 64000000 in all"
    file.write_bytes(png_header(10, 10))
    assert refusal(faces, max_pixels=99).endswith("10 x 10 pixels; allowed: at most 99 in all")
    Image.new("L", (2, 60)).save(file)
    assert "2 x 60 pixels" in refusal(faces, max_pixels=119)
    assert len(ImageFolder(str(faces), max_pixels=120).read(ImageFolder(str(faces)).records()[0])) == 60
    file.write_bytes(png_header(100_000, 100_000))
    limit = Image.MAX_IMAGE_PIXELS
    message = refusal(faces, max_pixels=10**12)
    assert str(file) in message and "DecompressionBombError" in message and limit == Image.MAX_IMAGE_PIXELS


def test_sixteen_bits_are_refused_rather_than_clipped(faces):
    file = faces / "p1" / "1.png"
    Image.fromarray(np.full((4, 4), 4096, np.uint16)).save(file)
    assert "allowed: 8-bit" in refusal(faces)


def test_grey_palette_alpha_and_rotation_become_plain_pixels(tmp_path):
    (tmp_path / "a").mkdir()
    file = tmp_path / "a" / "1.png"
    source = ImageFolder(str(tmp_path))

    def stored(image: Image.Image, **options: object) -> np.ndarray:
        image.save(file, **options)
        return source.read(source.records()[0])

    colour = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    picture = Image.fromarray(colour)
    exif = Image.Exif()
    exif[274] = 6  # shown after a quarter turn clockwise
    assert stored(picture.convert("L")).shape == (2, 3, 1)
    np.testing.assert_array_equal(stored(picture.quantize()), colour)
    np.testing.assert_array_equal(stored(picture.convert("RGBA")), colour)
    np.testing.assert_array_equal(stored(picture, exif=exif), np.rot90(colour, -1))


def test_links_may_stay_within_root_and_not_leave_it(faces, tmp_path):
    inside = faces / "p2" / "twin.png"
    inside.symlink_to(faces / "p1" / "1.png")
    assert len(ImageFolder(str(faces)).records()) == 13

    secret = tmp_path / "secret.png"
    Image.new("L", (4, 4)).save(secret)
    (faces / "p2" / "out.png").symlink_to(secret)
    assert f"{str(faces / 'p2' / 'out.png')!r}: link that leaves root" in refusal(faces)
    (faces / "p2" / "out.png").unlink()

    (faces / "p2" / "gone.png").symlink_to(faces / "nothing.png")
    assert "gone.png': not a regular file, or a link to nothing" in refusal(faces)
    (faces / "p2" / "gone.png").unlink()

    (faces / "p3").symlink_to(faces / "p1")
    assert "p3': link to a folder" in refusal(faces)


def test_a_root_that_is_a_link_is_followed(faces, tmp_path):
    (tmp_path / "alias").symlink_to(faces)
    (faces / "p2" / "twin.png").symlink_to("../p1/1.png")
    assert len(ImageFolder(str(tmp_path / "alias")).records()) == 13


def test_a_pipe_is_refused_and_not_waited_for(faces):
    os.mkfifo(faces / "p1" / "pipe.png")
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(refusal(faces)), daemon=True)
    thread.start()
    thread.join(10)
    assert said and "pipe.png': not a regular file" in said[0]


def test_folders_that_hold_no_classes(tmp_path, faces):
    assert "is not a folder" in refusal(tmp_path / "absent")
    (tmp_path / "empty" / "class").mkdir(parents=True)
    assert "no image in" in refusal(tmp_path / "empty")
    Image.new("L", (4, 4)).save(faces / "stray.png")
    assert "stray.png': in no class folder" in refusal(faces)


def write_table(faces: Path, text: str) -> str:
    file = faces.parent / "table.csv"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_attributes_come_from_the_table(faces):
    paths = [record.path for record in ImageFolder(str(faces)).records()]
    rows = [f"{i},{path},{-i / 2}" for i, path in enumerate(paths)]
    table = write_table(faces, "\n".join(["\ufeffage,file,tall", *reversed(rows), "3,absent.png,0"]))
    for i, record in enumerate(ImageFolder(str(faces), attributes=table).records()):
        assert record.attributes == {"age": i, "tall": -i / 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,male\np1/1.png,1\n", "no row for 'p1/2.png'"),
        ("path,male\np1/1.png,1\n", "one called 'file'"),
        ("file,male,male\np1/1.png,1,1\n", "no name twice"),
        ("file,male\np1/1.png,1\np1/1.png,0\n", "line 3: a second row for 'p1/1.png'"),
        ("file,male\np1/1.png,yes\n", "line 2, male: 'yes'; allowed: a finite number"),
        ("file,male\np1/1.png,\n", "line 2, male: ''; allowed: a finite number"),
        ("file,male\np1/1.png,nan\n", "line 2, male: 'nan'; allowed: a finite number"),
        ("file,male\np1/1.png,1,2\n", "line 2: 3 cells; allowed: 2"),
        ("", "one called 'file'"),
    ],
)
def test_tables_that_do_not_fit_are_refused(faces, text, message):
    table = write_table(faces, text)
    said = refusal(faces, attributes=table)
    assert repr(table) in said and message in said


def test_a_missing_table_is_refused(faces):
    assert "not a readable CSV file" in refusal(faces, attributes=str(faces / "absent.csv"))


def test_pools_are_the_folders_right_below_root(faces: Path, tmp_path: Path) -> None:
    root = tmp_path / "pools"
    shutil.copytree(faces / "p1", root / "public" / "p1")
    shutil.copytree(faces / "p2", root / "private" / "p2")
    records = ImageFolder(str(root), pools=True).records()
    assert {(record.label, record.pool) for record in records} == {("p1", "public"), ("p2", "private")}
    shutil.copytree(faces / "p10", root / "secret" / "p10")
    with pytest.raises(InputError, match=r"allowed: root/public\|private/CLASS/IMAGE"):
        ImageFolder(str(root), pools=True).records()
