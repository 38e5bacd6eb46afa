"""The one publisher beside a run: stages leave event files, and it alone pays for importing MLflow."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from flows.project import artifact, environment


class Publisher:
    """A child that publishes event files as they end.

    It ends by itself, after publishing the rest, when its standard input is closed: by `close`, or because
    this process is gone. There is none where MIPRIV_PUBLISH is off.

    Args:
        capture: keep what it says for `close`, instead of passing it on to standard error.
        more: environment variables beside those of this process.
    """

    def __init__(self, project: Path, capture: bool = False, more: Mapping[str, str] | None = None) -> None:
        self._child: subprocess.Popen[str] | None = None
        if os.environ.get("MIPRIV_PUBLISH") != "off":
            events = artifact(project, "events")
            self._child = subprocess.Popen(
                [sys.executable, "-m", "tasks.engine.publisher", "--follow", "--events", str(events)],
                cwd=project,
                env=environment(**(more or {})),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if capture else None,
                stderr=subprocess.STDOUT if capture else None,
                text=True,
                start_new_session=True,
            )

    @property
    def on(self) -> bool:
        """Whether it is at work."""
        return self._child is not None

    def close(self) -> list[str]:
        """Wait until all is published; the lines it said, if they were kept. Closing again does nothing."""
        child, self._child = self._child, None
        said = None if child is None else child.communicate()[0]
        return (said or "").splitlines()


@contextmanager
def following(project: Path) -> Iterator[None]:
    """A publisher for as long as the context lasts, and until it has published all."""
    publisher = Publisher(project)
    try:
        yield
    finally:
        publisher.close()
