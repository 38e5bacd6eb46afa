"""Whatever is wrong with a bucket, its server or the way there is one line, and nothing half is kept."""

import os
import re
import resource
import socketserver
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from engine_s3 import SMALL, apply, held, refusal

from tasks.engine import store
from tasks.engine.mirror import Object, refuse_names
from tests.bucket import HOST, KEY, SECRET, Answer, Proxy


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("cut", "truncated, 100 of 2997 bytes came, 3 times; allowed: an object that is whole"),
        ("short", "truncated, 100 of 2997 bytes came, 3 times; allowed: an object that is whole"),
        ("flip", "damaged on the way, twice: its md5 is not the one that is listed"),
    ],
)
def test_what_comes_spoilt_always_is_refused_and_never_kept(
    faces: str, proxy: Proxy, tmp_path: Path, change: str, said: str
) -> None:
    def alter(answer: Answer) -> None:
        if answer.key.endswith("2.png"):
            apply(answer, change)

    proxy.alter = alter
    assert refusal(faces, tmp_path) == f"'{faces}/p1/deep/2.png': {said}"
    assert "p1/deep/2.png" not in held(tmp_path / "files")
    proxy.alter = lambda answer: None
    assert held(store.fetch(faces, tmp_path)) == SMALL


def test_an_object_truncated_after_it_was_listed_is_refused(
    faces: str, bucket: Path, proxy: Proxy, tmp_path: Path
) -> None:
    def alter(answer: Answer) -> None:
        if answer.listing:
            os.truncate(bucket / "faces/p1/deep/2.png", 100)

    proxy.alter = alter
    assert refusal(faces, tmp_path).startswith(f"'{faces}/p1/deep/2.png': was changed while it was read")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "AWS_SECRET_ACCESS_KEY",
            "wrong",
            r"refused by the server \(SignatureDoesNotMatch\); allowed: AWS_ACCESS",
        ),
        (
            "AWS_ACCESS_KEY_ID",
            "WRONG",
            r"refused by the server \(InvalidAccessKeyId\); allowed: AWS_ACCESS_KEY_ID",
        ),
        ("AWS_ACCESS_KEY_ID", None, r"no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        (
            "AWS_ENDPOINT_URL_S3",
            "nonsense",
            r"AWS_ENDPOINT_URL_S3: is no address; allowed: http\(s\)://HOST:PORT",
        ),
        (
            "AWS_ENDPOINT_URL_S3",
            f"http://me:word@{HOST}:1",
            r"no answer from the server \(.*AWS_END",
        ),
        ("AWS_PROFILE", "nobody", r"cannot be read \(ProfileNotFound\)"),
    ],
)
def test_a_wrong_environment_is_one_line(
    faces: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str | None, said: str
) -> None:
    if value is None:
        monkeypatch.delenv(name)
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    else:
        monkeypatch.setenv(name, value)
    message = refusal(faces, tmp_path)
    assert re.search(said, message), message
    assert value is None or len(value) < 8 or value not in message


@pytest.mark.parametrize(
    ("status", "what"), [(200, "answers 500"), (404, "answers 404"), (301, "redirects without end")]
)
def test_a_server_that_is_no_s3_server_is_one_line(
    faces: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, what: str
) -> None:
    class Web(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            head = b"HTTP/1.1 %d Well\r\nContent-Length: 9\r\nConnection: close\r\n\r\n" % status
            self.wfile.write(head + b"<p>hello\n")

    with socketserver.ThreadingTCPServer((HOST, 0), Web) as web:
        threading.Thread(target=web.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{HOST}:{web.server_address[1]}")
        assert refusal(faces, tmp_path).endswith(f"the server {what}; is AWS_ENDPOINT_URL_S3 right?")
        web.shutdown()


def test_what_is_not_there_is_one_line(faces: str, tmp_path: Path) -> None:
    said = refusal("s3://no-such-bucket/faces", tmp_path)
    assert said.startswith("'s3://no-such-bucket/faces': bucket does not exist; allowed: one of the server")
    for uri in (f"{faces}/p3", f"{faces}/p1/1", f"{faces}/p1/1.png/"):
        said = refusal(uri, tmp_path)
        assert said == f"{uri!r}: holds no object; allowed: the key of an object, or what keys begin with"


@pytest.mark.parametrize(
    "uri",
    ["s3://", "s3:///x", "s3://a", "s3://a b/c", f"s3://{KEY}:{SECRET}@bucket/faces"],
    ids=["nothing", "no-bucket", "short", "space", "key"],
)
def test_an_address_that_is_none_is_refused_and_not_repeated(uri: str, tmp_path: Path) -> None:
    said = refusal(uri, tmp_path)
    assert (
        said.startswith("an address that is no s3:// one; allowed: s3://BUCKET/PREFIX")
        and "bucket/f" not in said
    )


@pytest.mark.parametrize(
    "name",
    [
        *("../up.png", "p1/../../up.png", "/etc/up.png", "p1//up.png", "./up.png", ".."),
        *("p1\\..\\up.png", "a\0.png", f"p1/{'ü' * 128}", "p1"),
    ],
)
def test_keys_that_climb_or_fit_no_folder_are_refused_before_any_is_read(
    faces: str, proxy: Proxy, tmp_path: Path, name: str
) -> None:
    def alter(answer: Answer) -> None:
        if answer.listing:
            answer.body = answer.body.replace(b"faces/p1/1.png", b"faces/" + quote(name).encode())

    proxy.alter = alter
    assert re.search(
        r"': key (leaves its folder|is too long|is both an object and a folder)",
        refusal(faces, tmp_path / "to"),
    )
    assert proxy.asked == [] and not held(tmp_path)


def test_names_that_are_fine_pass() -> None:
    names = ["a", "b/...", "c/..d", "e/" + "x" * 255, "日本/new line"]
    refuse_names([Object(f"s3://b/{name}", name, name, 1, "") for name in names])


def test_a_full_disk_is_one_line(bucket: Path, tmp_path: Path) -> None:
    (bucket / "x").write_bytes(bytes(2**20))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, before[1]))
    try:
        said = refusal(f"s3://{bucket.name}/x", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert said.startswith(f"'s3://{bucket.name}/x': cannot be kept in {str(tmp_path)!r} (File too large)")
