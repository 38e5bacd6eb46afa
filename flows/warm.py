"""The parent process of a run's stages and of their DVCs, which has torch and DVC loaded already.

See `tasks.engine.warm`.
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from flows import children
from flows.project import environment

VARIABLE, OFF = "MIPRIV_WARM", "off"
# What DVC imports when it brings a stage up to date, a third of its time: the roots of it.
LOADED = (
    "dvc.cli.parser",
    "dvc.dvcfile",
    "dvc.repo.reproduce",
    "dvc.stage.run",
    "dvc.stage.cache",
    "dvc.data_cloud",
    "dvc.lock",
    "dvc.scm",
    "dvc_render",
)
PATIENCE = 30.0  # seconds until it takes calls; what it loads comes after


@contextmanager
def parent(project: Path) -> Iterator[Mapping[str, str]]:
    """Inside, a process from which stages can be forked; gives the variables that tell them of it.

    There is none where MIPRIV_WARM is off, or where a process with libraries loaded is not safe to fork.
    """
    if os.environ.get(VARIABLE) == OFF or sys.platform != "linux":
        yield {}
        return
    # Not in the project: a socket's path may have 107 characters.
    with TemporaryDirectory(prefix="mipriv-") as folder:
        path = Path(folder) / "stages"
        env = environment(PYTHONPATH=str(project))  # which a leash leaves out
        child = children.start("tasks.engine.warm", str(path), *LOADED, cwd=project, env=env)
        try:
            until = time.monotonic() + PATIENCE
            while not path.exists() and child.poll() is None and time.monotonic() < until:
                time.sleep(0.02)
            if not path.exists():
                print(f"{VARIABLE}: no parent of stages came up; each starts by itself", file=sys.stderr)
            yield {VARIABLE: str(path)} if path.exists() else {}
        finally:
            children.end(child)
