"""A whole run that starts a head, keeps one of its workers busy, and ends or is ended."""

import os
import subprocess
import sys
from pathlib import Path

from engine_processes import HERE, ROOT

from flows.cluster import local_head


def main(root: Path) -> None:
    with local_head(ROOT, cpus=1) as environment:
        (root / "token").write_text(environment["RAY_AUTH_TOKEN"])
        stage = [sys.executable, HERE / "engine_remote.py", "waits", root, "1"]
        path = {"PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}"}
        done = subprocess.run(stage, env={**os.environ, **environment, **path}, check=False)
        (root / "ended").write_text(str(done.returncode))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
