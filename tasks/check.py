"""Stage `check`: every parameter against everything else, before any work.

DVC removes a stage's outputs before it runs the stage, so a mistake that a stage finds by itself has
already cost its last result. Every stage depends on this one, whose output never changes: it fails
first, and nothing else is touched. Its second output holds each block of the parameters in a file of its own,
for stages that read whole blocks: DVC would write every value of them down with the stage. Its others name
the rows of a block, in the folder of their results: stages that read all of it find it without a row too.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mipriv.errors import InputError
from tasks.checks import attributes, audits, inversion, membership, plausible, splits, table
from tasks.checks.parameters import Parameters
from tasks.engine import params
from tasks.prepare import FACES


def check(values: Mapping[str, Any]) -> None:
    """Refuse the first mistake in the parameters.

    Raises:
        InputError: one line that names the key, what it was and what is allowed.
    """
    wanted = Parameters(values)
    plausible.check(values, wanted.cost.largest)
    _data(wanted)
    inversion.check(wanted)
    splits.check(wanted)
    membership.check(wanted)
    audits.check(wanted)
    attributes.check(wanted)
    table.check(wanted)


def _data(wanted: Parameters) -> None:
    """The row that other stages read is there, and every row has the people and images that it asks for."""
    stages = ("pretrain", "finetune", "prior", "judge", "invert", "fisher")
    readers = [f"{stage}.rows.{row}" for stage in stages for row in getattr(wanted, stage).rows]
    if readers and FACES not in wanted.prepare.rows:
        where = f"{params.FILE}: prepare.rows.{FACES}"
        raise InputError(f"{where}: is missing; allowed: a row of this name, {readers[0]} reads it")
    for row in wanted.prepare.rows:
        wanted.people(row)


def _leave(values: Mapping[str, Any], folder: Path) -> None:
    """Each block as ``NAME.json``, but `cost`, which changes no result."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, block in values.items():
        if name != "cost":
            text = json.dumps(block, indent=1, sort_keys=True)
            (folder / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


def _rows(values: Mapping[str, Any], path: Path) -> None:
    """Rows of the block that the file's folder is named after."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(sorted(values[path.parent.name]["rows"])) + "\n", encoding="utf-8")


def main() -> int:
    """Check `params.yaml`; leave a file that says so, and what was checked."""
    parser = argparse.ArgumentParser(prog="python -m tasks.check", allow_abbrev=False)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--parameters", required=True, type=Path)
    parser.add_argument(
        "--rows", nargs="*", default=[], type=Path, help="a file in a folder called as a block"
    )
    given = parser.parse_args()
    out: Path = given.out
    try:
        values = params.load()
        check(values)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text('{"parameters": "consistent"}\n', encoding="utf-8")
    _leave(values, given.parameters)
    for path in given.rows:
        _rows(values, path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
