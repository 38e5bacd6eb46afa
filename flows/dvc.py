"""``python -m flows.dvc ARGUMENTS``: DVC's command line, which reads ``dvc.lock`` faster.

To record a stage, DVC reads the whole of dvc.lock in the way that would keep its comments, in pure Python, and
writes it again: two seconds at 12,000 lines, and under the lock for which all stages that run at once wait.
There are no comments in it. Here libyaml reads it; what is written, DVC writes, the same byte for byte.
`dvc.utils.serialize` is no documented API; a test holds it against ``dvc repro``.
"""

import sys
from pathlib import PurePath
from typing import Any

from dvc.cli import main
from dvc.utils.serialize import _yaml

LOCK = "dvc.lock"
_kept = _yaml.parse_yaml_for_update


def read(text: str, path: Any) -> Any:
    """A YAML file that is to be changed, as DVC wants it: dvc.lock plain, any other with its comments."""
    return _yaml.parse_yaml(text, path) if PurePath(path).name == LOCK else _kept(text, path)


if __name__ == "__main__":
    _yaml.parse_yaml_for_update = read
    raise SystemExit(main(sys.argv[1:]))
