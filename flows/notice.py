"""Tells somebody that a run failed: in its log always, and by MIPRIV_NOTICE where that is set.

MIPRIV_NOTICE is a command, which gets one JSON object on its standard input, or an address (http:// or
https://), to which the object is posted: ``{"flow", "run", "state", "message", "page"}``. A run that was
cancelled has not failed. A notice that does not get through is one warning, and changes nothing.
"""

import json
import os
import shlex
import subprocess
import urllib.request
from typing import Any

from prefect.logging import get_logger

from flows.project import environment

VARIABLE = "MIPRIV_NOTICE"
PATIENCE = 30.0  # seconds


def failed(flow: Any, flow_run: Any, state: Any) -> None:
    """A hook of Prefect's: the flow ended as failed, or crashed."""
    log = get_logger("notice")
    log.error("run %s of %s: %s: %s", flow_run.name, flow.name, state.name, state.message)
    wanted = os.environ.get(VARIABLE, "")
    if not wanted:
        return
    notice = {"flow": flow.name, "run": flow_run.name, "state": state.name, "message": state.message}
    try:
        _send(wanted, json.dumps({**notice, "page": _page(flow_run)}).encode())
    except (
        Exception
    ) as error:  # a broken notice must not hide what it is about; the address may hold a secret
        log.warning("%s: no notice sent (%s)", VARIABLE, type(error).__name__)


def _send(wanted: str, body: bytes) -> None:
    if wanted.startswith(("http://", "https://")):
        request = urllib.request.Request(wanted, data=body, headers={"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=PATIENCE).close()
    else:
        subprocess.run(shlex.split(wanted), input=body, timeout=PATIENCE, check=True, env=environment())


def _page(run: Any) -> str:
    """Where the browser shows the run."""
    api = os.environ.get("PREFECT_API_URL", "").removesuffix("/api")
    return f"{api}/runs/flow-run/{run.id}"
