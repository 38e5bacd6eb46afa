"""``python -m flows.dvc ARGUMENTS``: DVC's command line, a stage read and recorded at its own cost.

For one stage's record DVC parses all of ``dvc.lock`` in pure Python; here its block is parsed alone. To
record one, DVC parses the file again, empties it and writes it anew: ten seconds at 13,000 lines, for which
all stages that run at once wait, and a run killed within them loses every record. Here only the stage's own
block is replaced, and the file at once. The block is DVC's and the file the same byte for byte, but that a
value which DVC would write once and name again (YAML's anchors) is written twice. `dvc.dvcfile.Lockfile` is
no documented API; a test holds it against ``dvc repro``.
"""

import contextlib
import copy
import functools
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dvc.cli import main
from dvc.dependency import param
from dvc.dvcfile import Lockfile
from dvc.fs import LocalFileSystem, localfs
from dvc.stage import serialize
from dvc.utils.serialize import dumps_yaml, parse_yaml

HEAD = "schema: '2.0'\nstages:\n"
ANCHOR = re.compile(r"[:-] [&*]id\d")
ALIAS = re.compile(r"[:-] \*(id\d+)$", re.MULTILINE)
ALIASED = re.compile(r"[:-] &(id\d+)$", re.MULTILINE)
KEY = re.compile(r"^  \S", re.MULTILINE)  # a stage's name
OTHER = re.compile(r"^\S", re.MULTILINE)  # another key of the file

PLAIN = re.compile(r"  ([\w@.-]+):\n")  # a stage's name on a line of its own, as DVC writes most of them

_by_dvc = Lockfile.dump_stages
_all_by_dvc = Lockfile.load
_parameters_by_dvc = param.read_param_file


class Records(Mapping[str, Any]):
    """Stages of a lock file, each parsed when it is asked for.

    Args:
        rest: the file behind `HEAD`.

    Raises:
        ValueError: a file that is not so simple.
    """

    def __init__(self, rest: str) -> None:
        starts = [found.start() for found in KEY.finditer(rest)]
        if OTHER.search(rest) or starts[:1] != [0]:
            raise ValueError("not a name and its block behind the other")
        self._blocks: dict[str, str] = {}
        for start, end in zip(starts, [*starts[1:], len(rest)], strict=True):
            name = PLAIN.match(rest, start)
            if name is None or name[1] in self._blocks:
                raise ValueError(f"not a plain name: {rest[start : start + 80]!r}")
            block = self._blocks[name[1]] = rest[start:end]
            if set(ALIAS.findall(block)) - set(ALIASED.findall(block)):
                raise ValueError(f"{name[1]}: values that are written in another stage's block")

    def __getitem__(self, name: str) -> Any:
        """What DVC recorded of a stage.

        Raises:
            KeyError: it recorded nothing.
            dvc.utils.strictyaml.YAMLValidationError: not what DVC records of a stage.
        """
        single = parse_yaml(HEAD + self._blocks[name], "dvc.lock")
        return Lockfile.validate(single, "dvc.lock")["stages"][name]

    def __contains__(self, name: object) -> bool:
        return name in self._blocks

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocks)

    def __len__(self) -> int:
        return len(self._blocks)


def read(lockfile: Lockfile, **kwargs: Any) -> Any:
    """In place of `Lockfile.load`."""
    path = Path(lockfile.path)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if text.startswith(HEAD):
        with contextlib.suppress(ValueError):
            return {"schema": "2.0", "stages": Records(text.removeprefix(HEAD))}
    return _all_by_dvc(lockfile, **kwargs)


def record(lockfile: Lockfile, stages: Sequence[Any], **kwargs: Any) -> None:
    """In place of `Lockfile.dump_stages`."""
    path = Path(lockfile.path)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    after: str | None = before
    for stage in stages:
        block = dumps_yaml({"schema": "2.0", "stages": _apart(serialize.to_lockfile(stage, **kwargs))})
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


def _apart(value: Any) -> Any:
    """A copy in which no part is another part, too: YAML would write such a one once, and name it again."""
    if isinstance(value, Mapping):
        return {key: _apart(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_apart(part) for part in value]
    return value


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
    named_elsewhere = set(ALIAS.findall(rest[:start] + rest[end:]))
    if ANCHOR.search(block) or named_elsewhere & set(ALIASED.findall(rest, start, end)):
        return None
    return HEAD + rest[:start] + block + rest[end:]


@functools.cache
def _parsed(path: str, _: tuple[int, int]) -> Any:
    return param.load_path(path, localfs)


def parameters(fs: Any, path: str, key_paths: Any = None, flatten: bool = False, **kwargs: Any) -> Any:
    """In place of `dvc.dependency.param.read_param_file`.

    It parses params.yaml three times for one stage, and walks through all of it for each key.
    """
    if kwargs or not key_paths or not flatten or not isinstance(fs, LocalFileSystem):
        return _parameters_by_dvc(fs, path, key_paths, flatten, **kwargs)
    stat = os.stat(path)
    whole = _parsed(path, (stat.st_mtime_ns, stat.st_size))
    try:
        plain = {key: functools.reduce(_value, key.split("."), whole) for key in key_paths}
    except LookupError:  # a pattern, a place in a list, or nothing of that name
        return _parameters_by_dvc(fs, path, key_paths, flatten)
    return copy.deepcopy(plain)


def _value(block: Any, key: str) -> Any:
    if not isinstance(block, dict):
        raise LookupError(key)
    return block[key]


def replace() -> None:
    """Let this process's DVC read and record so."""
    Lockfile.load, Lockfile.dump_stages = read, record
    param.read_param_file = parameters


if __name__ == "__main__":
    replace()
    # It has to outlive its stage, to say what became of it. Not SIG_IGN, which the stage would inherit.
    signal.signal(signal.SIGTERM, lambda *_: None)
    raise SystemExit(main(sys.argv[1:]))
