"""Objects from a real S3 server: all of them, once, and whole."""

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from engine_processes import Launch
from engine_s3 import SMALL, apply, held, refusal, retag, spoil

from tasks.engine import mirror, store
from tests.bucket import Answer, Proxy

FETCH = "import sys; from pathlib import Path; from tasks.engine import mirror, store; mirror.BLOCK = 2**16; \
print(store.fetch(sys.argv[1], Path(sys.argv[2])))"


def test_all_below_a_prefix_comes_and_nothing_else(faces: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    folder = store.fetch(faces, tmp_path / "to", lambda done, total: seen.append((done, total)))
    assert held(folder) == SMALL
    total = sum(map(len, SMALL.values()))
    assert seen[-1] == (total, total) and all(0 <= done <= total for done, _ in seen)
    assert held(store.fetch(f"{faces}/", tmp_path / "again")) == SMALL
    bucket = faces.rpartition("/")[0]
    assert held(store.fetch(bucket, tmp_path / "bucket")).keys() == {
        *(f"faces/{name}" for name in SMALL),
        "faces2/x.png",
    }


def test_a_single_object_is_a_file(faces: str, tmp_path: Path) -> None:
    file = store.fetch(f"{faces}/p1/1.png", tmp_path / "to")
    assert file.name == "1.png" and file.read_bytes() == b"one"


def test_objects_that_stand_for_folders_are_passed_over(faces: str, proxy: Proxy, tmp_path: Path) -> None:
    def alter(answer: Answer) -> None:
        answer.body = answer.body.replace(b"faces/p2/empty.png", b"faces/p9/")  # what a browser makes

    proxy.alter = alter
    assert held(store.fetch(faces, tmp_path)).keys() == SMALL.keys() - {"p2/empty.png"}


def test_listing_reads_no_object(faces: str, proxy: Proxy) -> None:
    assert {one.name: one.size for one in store.listing(faces)} == {name: len(b) for name, b in SMALL.items()}
    assert proxy.asked == []


def test_more_keys_than_a_page_holds(bucket: Path) -> None:
    for i in range(1100):
        (bucket / f"{i}").touch()
    assert {one.name for one in store.listing(f"s3://{bucket.name}")} == {f"{i}" for i in range(1100)}


def test_what_is_there_is_kept_and_the_rest_follows_the_bucket(
    faces: str, bucket: Path, proxy: Proxy, tmp_path: Path
) -> None:
    folder = store.fetch(faces, tmp_path)
    proxy.asked.clear()
    assert held(store.fetch(faces, tmp_path)) == SMALL and proxy.asked == []

    (folder / "p1/deep/2.png").write_bytes(
        spoil(SMALL["p1/deep/2.png"])
    )  # a bit has flipped, the size is right
    (folder / "p1/stray.png").write_bytes(b"nobody listed me")
    (bucket / "faces/p1/1.png").write_bytes(b"new")
    (bucket / "faces/p2/empty.png").unlink()
    (bucket / "faces/p2/more").mkdir()
    (bucket / "faces/p2/more/3.png").write_bytes(b"three")
    expected = {**SMALL, "p1/1.png": b"new", "p2/more/3.png": b"three"}
    del expected["p2/empty.png"]
    assert held(store.fetch(faces, tmp_path)) == expected
    names = {"p1/deep/2.png", "p1/1.png", "p2/more/3.png"}
    assert sorted(proxy.asked) == sorted(f"{bucket.name}/faces/{name}" for name in names)


def test_a_folder_may_become_an_object_and_back(bucket: Path, tmp_path: Path) -> None:
    uri, key = f"s3://{bucket.name}", bucket / "a"
    for content in ({"a": b"object"}, {"a/b": b"folder"}, {"a": b"object"}):
        for name, data in content.items():
            (bucket / name).parent.mkdir(exist_ok=True)
            (bucket / name).write_bytes(data)
        assert held(store.fetch(uri, tmp_path)) == content
        (key / "b").unlink() if key.is_dir() else key.unlink()
        if key.exists():
            key.rmdir()


@pytest.mark.parametrize("opaque", [False, True], ids=["md5", "opaque"])
def test_large_objects_come_in_blocks(
    bucket: Path, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opaque: bool
) -> None:
    monkeypatch.setattr(mirror, "BLOCK", 2**16)
    content = os.urandom(2**18 + 5)
    (bucket / "x.npz").write_bytes(content)
    if opaque:
        proxy.alter = lambda answer: retag(answer, content, "0" * 32 + "-5")
    file = store.fetch(f"s3://{bucket.name}/x.npz", tmp_path)
    assert file.read_bytes() == content
    assert sorted(proxy.asked) == sorted(
        f"{bucket.name}/x.npz bytes={i}-{min(i + 2**16, len(content)) - 1}"
        for i in range(0, len(content), 2**16)
    )
    proxy.asked.clear()
    file.write_bytes(spoil(content))
    assert store.fetch(f"s3://{bucket.name}/x.npz", tmp_path).read_bytes() == content
    assert len(proxy.asked) == 5


def test_an_etag_that_is_no_md5_by_encryption_is_not_held_against_the_object(
    bucket: Path, proxy: Proxy, tmp_path: Path
) -> None:
    (bucket / "x").write_bytes(b"content")
    uri = f"s3://{bucket.name}/x"
    proxy.alter = lambda answer: retag(answer, b"content", "0" * 32)
    assert (
        refusal(uri, tmp_path) == f"{uri!r}: damaged on the way, twice: its md5 is not the one that is listed"
    )
    proxy.alter = lambda answer: retag(
        answer, b"content", "0" * 32, **{"x-amz-server-side-encryption": "aws:kms"}
    )
    assert store.fetch(uri, tmp_path).read_bytes() == b"content"


@pytest.mark.parametrize("change", ["cut", "flip", "short"])
@pytest.mark.parametrize("block", [2**25, 2**10], ids=["whole", "blocks"])
def test_what_comes_spoilt_once_is_asked_for_again(
    faces: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, block: int
) -> None:
    monkeypatch.setattr(mirror, "BLOCK", block)
    changed: list[str] = []

    def alter(answer: Answer) -> None:
        if answer.key.endswith("2.png") and not changed:
            changed.append(answer.key)
            apply(answer, change)

    proxy.alter = alter
    assert held(store.fetch(faces, tmp_path)) == SMALL
    assert len(changed) == 1
    blocks = -(-len(SMALL["p1/deep/2.png"]) // block)
    again = blocks if change == "flip" else 1
    assert sum("2.png" in asked for asked in proxy.asked) == blocks + again


def goes_on(marks: Path) -> bool:
    """Whether a block after an object's first is there; marks of small objects are gone a moment later."""
    with contextlib.suppress(FileNotFoundError):
        return re.search(rb'"first": [1-9]', marks.read_bytes()) is not None
    return False


def test_a_killed_fetch_goes_on_where_it_was(
    faces: str, bucket: Path, proxy: Proxy, tmp_path: Path, start: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(20 * 2**16)
    (bucket / "faces/x.npz").write_bytes(content)
    arrived, gate = threading.Event(), threading.Event()

    def alter(answer: Answer) -> None:
        if len(proxy.asked) > 10:  # the small ones, and a few blocks of the large one
            arrived.set()
            gate.wait(60)

    proxy.alter = alter
    process = start("-c", FETCH, faces, tmp_path)
    assert arrived.wait(60)
    until = time.monotonic() + 30
    marks = tmp_path / "parts"
    while not any(map(goes_on, marks.glob("*.blocks"))):
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    gate.set()
    before = Counter(proxy.asked)
    proxy.alter = lambda answer: None
    proxy.asked.clear()

    monkeypatch.setattr(mirror, "BLOCK", 2**16)
    assert held(store.fetch(faces, tmp_path)) == {**SMALL, "x.npz": content}
    # The proxy may still come to what the killed process asked it for: hence each block once.
    again = set(proxy.asked) & set(before)
    assert all("x.npz" in asked for asked in proxy.asked) and len(set(proxy.asked)) < 20
    assert len(again) <= 8  # at most what was under way on each thread
    assert set(before) | set(proxy.asked) >= {
        f"{bucket.name}/faces/x.npz bytes={i << 16}-{((i + 1) << 16) - 1}" for i in range(20)
    }


def test_two_at_once_bring_each_object_once(faces: str, proxy: Proxy, tmp_path: Path, start: Launch) -> None:
    both = threading.Barrier(2)

    def alter(answer: Answer) -> None:
        if answer.listing:
            both.wait(60)

    proxy.alter = alter
    processes = [start("-c", FETCH, faces, tmp_path) for _ in range(2)]
    for process in processes:
        said, wrong = process.communicate(timeout=60)
        assert (process.returncode, said.strip()) == (0, str(tmp_path / "files")), wrong
    assert len(proxy.asked) == len(SMALL) and held(tmp_path / "files") == SMALL


def test_the_modules_of_a_stage_come_without_boto3(start: Launch) -> None:
    code = "import sys, tasks.prepare; assert not {'boto3', 'botocore'} & set(sys.modules)"
    process: subprocess.Popen[str] = start("-c", code)
    assert process.wait(120) == 0
