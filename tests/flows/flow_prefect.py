"""What a Prefect server knows, asked over HTTP: these tests import no Prefect."""

import json
import sqlite3
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any


class Server:
    """A server by the address of its API and the folder of its state."""

    def __init__(self, api: str, home: Path) -> None:
        self.api, self.home = api, home

    def ask(self, path: str, body: object | None = None) -> Any:
        """GET, or POST where there is a body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.api}/{path}", data=data, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def runs(self, **only: Any) -> list[Any]:
        """Flow runs, newest first, those whose fields are equal to `only`."""
        found = self.ask("flow_runs/filter", {"sort": "START_TIME_DESC"})
        return [run for run in found if all(run[key] == value for key, value in only.items())]

    def ended(self) -> list[Any]:
        """Flow runs that have ended, oldest first. The server names 200 at a time; those to come are more."""
        states = {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}
        wanted = {"sort": "START_TIME_ASC", "flow_runs": {"state": states}}
        found: list[Any] = self.ask("flow_runs/filter", wanted)
        return found

    def tasks(self, run: str) -> dict[str, Any]:
        """Task runs of a flow run, by name."""
        found = self.ask("task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        return {task["name"]: task for task in found}

    def logs(self, run: str) -> list[str]:
        """Messages of a flow run and of its tasks, in order."""
        wanted = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"}
        return [line["message"] for line in self.ask("logs/filter", wanted)]

    def artifacts(self, run: str) -> dict[str, Any]:
        """Artifacts of a flow run and of its tasks, by key."""
        found = self.ask("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
        return {artifact["key"]: artifact for artifact in found}

    def cancel(self, run: str) -> None:
        """As the browser's Cancel button."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        self.ask(f"flow_runs/{run}/set_state", {"state": state, "force": False})

    def deployments(self) -> dict[str, Any]:
        """All deployments, by name."""
        return {deployment["name"]: deployment for deployment in self.ask("deployments/filter", {})}


def own_server(project: Path, server: Server) -> None:
    """A database for the project's own server; to make a new one takes 10 seconds, to copy one, none."""
    home = project / ".prefect"
    home.mkdir()
    with (
        closing(sqlite3.connect(server.home / "prefect.db")) as there,
        closing(sqlite3.connect(home / "prefect.db")) as here,
    ):
        there.backup(here)
