"""``python -m flows.dvc ARGUMENTS``: DVC's command line, which records a stage at the cost of that stage.

To record one stage, DVC parses all of ``dvc.lock`` in pure Python, empties the file and writes it anew: two
seconds at 12,000 lines, for which all stages that run at once wait, and a run killed within them loses every
record. Here only the stage's own block is replaced, and the file at once. The block is DVC's, and the file
the same byte for byte; where a block names values twice (YAML's anchors), DVC writes as it always does.
`dvc.dvcfile.Lockfile` is no documented API; a test holds it against ``dvc repro``.
"""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvc.cli import main
from dvc.dvcfile import Lockfile
from dvc.stage import serialize
from dvc.utils.serialize import dumps_yaml

HEAD = "schema: '2.0'\nstages:\n"
ANCHOR = re.compile(r"[:-] [&*]id\d")
KEY = re.compile(r"^  \S", re.MULTILINE)  # a stage's name
OTHER = re.compile(r"^\S", re.MULTILINE)  # another key of the file

_by_dvc = Lockfile.dump_stages


def record(lockfile: Lockfile, stages: Sequence[Any], **kwargs: Any) -> None:
    """In place of `Lockfile.dump_stages`."""
    path = Path(lockfile.path)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    after: str | None = before
    for stage in stages:
        block = dumps_yaml({"schema": "2.0", "stages": serialize.to_lockfile(stage, **kwargs)})
        after = None if after is None else replaced(after, block)
    if after is None:
        _by_dvc(lockfile, stages, **kwargs)
    elif after != before:
        new = Path(lockfile.repo.tmp_dir, f"{path.name}.{os.getpid()}")
        with new.open("w", encoding="utf-8", newline="\n") as file:
            file.write(after)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        lockfile.repo.scm_context.track_file(lockfile.relpath)


def replaced(whole: str, single: str) -> str | None:
    """The text of a lock file with one stage's block in it; None where this is not so simple.

    Args:
        whole: the lock file.
        single: a lock file of this stage alone.
    """
    block, rest = single.removeprefix(HEAD), whole.removeprefix(HEAD)
    if block == single or rest == whole or not rest.endswith("\n") or OTHER.search(rest):
        return None
    first = block.partition("\n")[0]
    start = f"\n{rest}".find(f"\n{first}\n")
    if start < 0:
        start = end = len(rest)
    else:
        after = KEY.search(rest, start + 1)
        end = after.start() if after else len(rest)
    if ANCHOR.search(block) or ANCHOR.search(rest, start, end):
        return None
    return HEAD + rest[:start] + block + rest[end:]


if __name__ == "__main__":
    Lockfile.dump_stages = record
    raise SystemExit(main(sys.argv[1:]))
