"""Addresses of servers, which may hold a password and may not answer."""

import urllib.error
import urllib.request
from urllib.parse import urlsplit

PATIENCE = 5.0  # seconds for a server to answer at all


def remote(uri: str) -> bool:
    """Whether a server stands behind it, rather than a file or a database."""
    return urlsplit(uri).scheme in ("http", "https")


def probe(uri: str) -> None:
    """Fail soon where nothing answers; any HTTP answer will do.

    Raises:
        ConnectionError: one line, without a password.
    """
    try:
        urllib.request.urlopen(f"{shown(uri).rstrip('/')}/health", timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        return
    except OSError as error:
        raise ConnectionError(f"no answer from {shown(uri)} ({brief(error)})") from error


def shown(uri: str) -> str:
    """An address without user and password."""
    parts = urlsplit(uri)
    return (
        uri if "@" not in parts.netloc else f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    )


def brief(error: BaseException) -> str:
    """The first line of a message, unless an address with a password may be in it."""
    text = str(error).strip().partition("\n")[0][:200]
    return "message withheld" if "@" in text else text
