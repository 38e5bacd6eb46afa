"""``python -m tasks.engine.forked MODULE ARGUMENTS``: any module as a program, by `tasks.engine.warm`.

A module of its own, because `tasks` imports that one, which would then be run a second time.
"""

import sys

from tasks.engine import warm

if __name__ == "__main__":
    raise SystemExit(warm.run(sys.argv[1], sys.argv[2:]))
