"""`make run`: every stale stage through DVC, one publisher beside it, and the leakage table at the end."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from flows.project import artifact, dvc, environment, root


def run(project: Path, targets: Sequence[str] = ()) -> int:
    """Reproduce the project, or only the targets and what they need; returns DVC's exit code.

    Stages do not publish by themselves: one process beside them pays for importing MLflow once.
    """
    events = artifact(project, "events")
    publisher = subprocess.Popen(
        [sys.executable, "-m", "tasks.engine.publisher", "--follow", "--events", str(events)],
        cwd=project,
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    command = dvc("--wait-for-lock", "repro", *targets)
    # A group of their own: DVC does not end the stage that it runs when it is ended itself.
    stages = subprocess.Popen(
        command, cwd=project, env=environment(MIPRIV_PUBLISH="off"), start_new_session=True
    )
    try:
        code = stages.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(stages.pid, signal.SIGTERM)
        stages.wait()
        assert publisher.stdin is not None
        publisher.stdin.close()
        publisher.wait()
    if code == 0 and not targets:
        leakage, report = artifact(project, "leakage"), artifact(project, "report")
        subprocess.run(
            [sys.executable, "-m", "tasks.show", leakage, "--report", report], cwd=project, check=False
        )
    return code


def main() -> int:
    """Command line: optional stages."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parser = argparse.ArgumentParser(prog="python -m flows.whole", description=__doc__, allow_abbrev=False)
    parser.add_argument("stages", nargs="*", help="DVC stages; none: all")
    return run(root(), parser.parse_args().stages)


if __name__ == "__main__":
    raise SystemExit(main())
