"""Whoever wants to know of a failed run is told, by a command or an address; a cancelled one is none."""

import json
import shlex
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flow_prefect import Server
from flow_project import flow, turn

RUN = SimpleNamespace(name="brave-fox", id="1234")
STATE = SimpleNamespace(name="Failed", message="failed: alone")
TOLD = {
    "flow": "mipriv",
    "run": "brave-fox",
    "state": "Failed",
    "message": "failed: alone",
    "page": "http://127.0.0.1:4200/runs/flow-run/1234",
}


@pytest.fixture
def posts() -> Iterator[tuple[str, list[Any]]]:
    """An address on loopback, and what was posted there."""
    got: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/hook", got
    server.shutdown()
    thread.join()
    server.server_close()


def command(file: Path) -> str:
    program = f"import sys; open({str(file)!r}, 'w').write(sys.stdin.read())"
    return shlex.join([sys.executable, "-c", program])


def test_an_address_gets_it_as_json(posts: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import notice

    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    monkeypatch.setenv(notice.VARIABLE, posts[0])
    notice.failed(SimpleNamespace(name="mipriv"), RUN, STATE)
    assert posts[1] == [TOLD]


@pytest.mark.parametrize("wanted", ["/no/such/program", "false", "http://127.0.0.1:1/hook?token=secret"])
def test_a_notice_that_does_not_get_through_is_a_warning_without_the_address(
    wanted: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from flows import notice

    monkeypatch.setenv(notice.VARIABLE, wanted)
    said: list[str] = []
    log = SimpleNamespace(
        error=lambda text, *words: said.append(text % words),
        warning=lambda text, *words: said.append(text % words),
    )
    monkeypatch.setattr(notice, "get_logger", lambda name: log)
    notice.failed(SimpleNamespace(name="mipriv"), RUN, STATE)
    assert len(said) == 2 and "no notice sent" in said[1] and "secret" not in said[1]


def test_a_run_that_fails_is_told_once(done: Path, server: Server, tmp_path: Path) -> None:
    turn(done, alone="fails")
    told = tmp_path / "told"
    flow(done, "alone", code=1, PREFECT_API_URL=server.api, MIPRIV_NOTICE=command(told))
    notice = json.loads(told.read_text())
    run = server.runs()[0]
    assert notice == {
        "flow": "mipriv", "run": run["name"], "state": "Failed", "message": "failed: alone",
        "page": f"{server.api.removesuffix('/api')}/runs/flow-run/{run['id']}",
    }  # fmt: skip
