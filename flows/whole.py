"""`make run`: every stale stage through DVC on a local Ray head, and the leakage table at the end."""

import argparse
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from flows import children
from flows.cluster import local_head
from flows.project import artifact, environment, root
from flows.publisher import following


def run(project: Path, targets: Sequence[str] = ()) -> int:
    """Reproduce the project, or only the targets and what they need; returns DVC's exit code.

    Stages do not publish by themselves: one process beside them pays for importing MLflow once.
    """
    with local_head(project) as cluster, following(project):
        env = environment(MIPRIV_PUBLISH="off", **cluster)
        stages = children.start("dvc", "--wait-for-lock", "repro", *targets, cwd=project, env=env)
        try:
            code = stages.wait()
        finally:
            children.end(stages)
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
