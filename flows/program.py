"""``python -m flows.program [--user NAME] PROGRAM ARGUMENTS``: a program that is no Python, on a leash.

A leash runs modules. This one runs a program in the leash's process group, so that both end together.
"""

import argparse
import subprocess
from typing import Any


def main() -> int:
    """Run it to its end; gives its exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows.program", allow_abbrev=False)
    parser.add_argument("--user", help="as whom; only root may change that")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    as_whom: dict[str, Any] = (
        {"user": given.user, "group": given.user, "extra_groups": []} if given.user else {}
    )
    return subprocess.run(given.command, stdin=subprocess.DEVNULL, check=False, **as_whom).returncode


if __name__ == "__main__":
    raise SystemExit(main())
