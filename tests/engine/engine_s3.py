"""What the tests of the store share: small objects, and ways in which an answer goes wrong."""

import hashlib
from pathlib import Path

import pytest

from mipriv.errors import InputError
from tasks.engine import store
from tests.bucket import HOST, KEY, SECRET, Answer

SMALL = {
    "p1/1.png": b"one",
    "p1/deep/2.png": b"two" * 999,
    "p2/a b+%41 ü'\".png": b"odd",
    "p2/empty.png": b"",
}


def held(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def refusal(uri: str, to: Path) -> str:
    with pytest.raises(InputError) as refused:
        store.fetch(uri, to)
    message = str(refused.value)
    assert "\n" not in message and SECRET not in message and KEY not in message and HOST not in message
    return message


def spoil(body: bytes) -> bytes:
    return bytes([body[0] ^ 1]) + body[1:]


def apply(answer: Answer, change: str) -> None:
    if change == "cut":
        answer.sent = 100
    elif change == "flip":
        answer.body = spoil(answer.body)
    elif change == "short":
        answer.body = answer.body[:100]


def retag(answer: Answer, content: bytes, etag: str, **headers: str) -> None:
    md5 = hashlib.md5(content).hexdigest()
    answer.body = answer.body.replace(md5.encode(), etag.encode()) if answer.listing else answer.body
    answer.headers = {name: value.replace(md5, etag) for name, value in answer.headers.items()}
    if not answer.listing:
        answer.headers |= headers
