"""Objects behind ``s3://`` addresses: listed, and brought to a local folder.

Server and credentials come from the environment alone, in Amazon's own words (``AWS_ENDPOINT_URL_S3``,
``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ...), which DVC and MLflow read as well; nothing here
repeats one of them in a message, nor any text that the server chose.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from mipriv.errors import InputError
from tasks.engine.mirror import Block, Mirror, Object, refuse_names
from tasks.engine.transfer import THREADS, TRIES, Cut, Progress, Transfer

SCHEME = "s3://"
ADDRESS = re.compile(r"s3://([\w.-]{3,255})(?:/(.*))?", re.ASCII | re.DOTALL)
CHUNK = 2**20  # bytes of one read

DENIED = {
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "Forbidden", "401", "403"),
    *("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "RequestTimeTooSkewed", "AccountProblem"),
}
MOVED = "was changed while it was read; allowed: once more, when nobody writes to it"
CHANGED = frozenset({"NoSuchKey", "PreconditionFailed", "InvalidRange", "404", "412", "416"})


def is_remote(text: object) -> bool:
    """Whether a value is an address that this module brings."""
    return isinstance(text, str) and text.startswith(SCHEME)


def listing(uri: str) -> list[Object]:
    """Objects below ``s3://BUCKET/PREFIX``, or the single one of exactly that key; no content is read.

    Empty objects whose key ends with a slash, which browsers make for folders, are left out.

    Raises:
        InputError: one line; a malformed address, no bucket or object there, no permission, no server, or
            keys that no folder can hold.
    """
    bucket, prefix = _address(uri)
    return _list(_client(uri), bucket, prefix)


def fetch(uri: str, to: Path, progress: Progress | None = None) -> Path:
    """Bring what `listing` gives into `to`, which holds nothing else; what is there is checked and kept.

    Objects come in parallel, large ones in blocks, each written beside, synced and renamed. A killed fetch
    goes on where it was. Copies are held against the ETag where that is an md5, and against their own sha256
    from then on; copies of what is gone from the bucket are removed. Whoever reads them while others may
    fetch into `to` needs `fetched`.

    Args:
        progress: called with bytes that are there, and all.

    Returns:
        The folder of copies, named as keys are below `uri`; for a single object, its copy.

    Raises:
        InputError: as `listing` says; an object that comes truncated or damaged again and again, or was
            changed meanwhile; a disk that is full.
    """
    with fetched(uri, to, progress) as path:
        return path


@contextmanager
def fetched(uri: str, to: Path, progress: Progress | None = None) -> Iterator[Path]:
    """What `fetch` brings and returns, as it is: whoever else fetches into `to` waits for the context to end.

    A thread that asks twice for one folder waits for itself.

    Raises:
        InputError: as `fetch` does, on entering.
    """
    bucket, prefix = _address(uri)
    client = _client(uri)
    objects = _list(client, bucket, prefix)
    with ExitStack() as held:
        try:
            to.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(to / "lock"))
            mirror = Mirror(to)
            mirror.prune(objects)
            Transfer(_Reader(client), mirror, objects, progress or (lambda done, total: None)).run()
            mirror.clear()
        except OSError as error:
            raise InputError(f"{uri!r}: cannot be kept in {str(to)!r} ({error.strerror})") from error
        single = [one for one in objects if one.uri == uri]
        yield mirror.files / single[0].name if single else mirror.files


def _address(uri: str) -> tuple[str, str]:
    """Bucket and prefix."""
    match = ADDRESS.fullmatch(uri)
    if match is None:  # not repeated: somebody may have put a key into it
        raise InputError(
            "an address that is no s3:// one; allowed: s3://BUCKET/PREFIX, credentials in the environment"
        )
    return match[1], match[2] or ""


def _client(uri: str) -> Any:
    """A client of the server that the environment names; it may be shared by threads."""
    import boto3
    from botocore.config import Config

    retries = {"mode": "standard", "total_max_attempts": TRIES}
    config = Config(connect_timeout=10, read_timeout=30, max_pool_connections=THREADS, retries=retries)
    with _refusals(uri):
        try:
            return boto3.session.Session().client("s3", config=config)
        except ValueError as error:  # botocore's own word for a malformed address, which it repeats
            raise InputError("AWS_ENDPOINT_URL_S3: is no address; allowed: http(s)://HOST:PORT") from error


def _list(client: Any, bucket: str, prefix: str) -> list[Object]:
    uri, folder = f"{SCHEME}{bucket}/{prefix}", prefix.rstrip("/") + "/" if prefix else ""
    with _refusals(uri):
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=folder)
        found = [item for page in pages for item in page.get("Contents", ())]
        if not found and prefix != folder:  # no folder; the first key of this beginning is the key itself
            first = client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1).get("Contents", ())
            found = [item for item in first if item["Key"] == prefix]
            folder = prefix[: prefix.rfind("/") + 1]
    objects = [
        Object(f"{SCHEME}{bucket}/{key}", key, key[len(folder) :], item["Size"], _bare(item["ETag"]))
        for key, item in ((item["Key"], item) for item in found)
        if item["Size"] or not key.endswith("/")
    ]
    if not objects:
        raise InputError(f"{uri!r}: holds no object; allowed: the key of an object, or what keys begin with")
    refuse_names(objects)
    return objects


class _Reader:
    """Reads blocks of objects of one bucket; may be called from several threads."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __call__(self, block: Block) -> tuple[Iterator[bytes], bool]:
        one = block.object
        span = {} if block.whole else {"Range": f"bytes={block.first}-{block.first + block.length - 1}"}
        bucket = one.uri.removeprefix(SCHEME).partition("/")[0]
        with _refusals(one.uri, CHANGED):
            answer = self._client.get_object(Bucket=bucket, Key=one.key, IfMatch=f'"{one.etag}"', **span)
        if _bare(answer["ETag"]) != one.etag:  # some servers pass over IfMatch
            answer["Body"].close()
            raise InputError(f"{one.uri!r}: {MOVED}")
        encrypted = answer.get("ServerSideEncryption", "").startswith("aws:kms")
        return _chunks(answer["Body"], block), not (encrypted or "SSECustomerAlgorithm" in answer)


def _chunks(body: Any, block: Block) -> Iterator[bytes]:
    from botocore.exceptions import BotoCoreError, FlexibleChecksumError

    came = 0
    try:
        with body:
            for chunk in body.iter_chunks(CHUNK):
                came += len(chunk)
                yield chunk
    except FlexibleChecksumError as error:  # the server's own, where it has one
        raise Cut("damaged on the way") from error
    except BotoCoreError as error:
        raise Cut(f"truncated, {came} of {block.length} bytes came") from error
    if came != block.length:
        raise Cut(f"truncated, {came} of {block.length} bytes came")


@contextmanager
def _refusals(uri: str, changed: frozenset[str] = frozenset()) -> Iterator[None]:
    """What the server or botocore refuses, as one line that repeats neither.

    Args:
        changed: codes that mean that an object is no longer what was listed.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as error:
        code = re.sub(r"\W", "", str(error.response.get("Error", {}).get("Code")))[:40]
        raise InputError(f"{uri!r}: {MOVED if code in changed else _said(code)}") from error
    except RecursionError as error:  # botocore asks where the bucket is, is redirected, asks again, ...
        raise InputError(
            f"{uri!r}: the server redirects without end; is AWS_ENDPOINT_URL_S3 right?"
        ) from error
    except (BotoCoreError, ResponseParserError) as error:
        raise InputError(f"{uri!r}: {_unsaid(type(error).__name__)}") from error


def _bare(etag: str) -> str:
    return etag.strip('"')


def _said(code: str) -> str:
    if code == "NoSuchBucket":
        return "bucket does not exist; allowed: one of the server at AWS_ENDPOINT_URL_S3 (unset: Amazon)"
    if code in DENIED:
        who = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of somebody who may list and read it"
        return f"refused by the server ({code}); allowed: {who}"
    return f"the server answers {code}; is AWS_ENDPOINT_URL_S3 right?"


def _unsaid(kind: str) -> str:
    if "Credential" in kind:
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if "Connect" in kind or "Timeout" in kind or "ProxyConnection" in kind:
        return f"no answer from the server ({kind}); is AWS_ENDPOINT_URL_S3 right?"
    return f"cannot be read ({kind})"
