"""``python -m flows.run [STAGE ...]``: the Prefect flow from a shell.

It uses the server of PREFECT_API_URL, else the one that ``make ui`` runs, else one that ends with it.
"""

import argparse
import sys
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.project import fail, root
from flows.server import attach


def overrides(settings: list[str]) -> dict[str, Any]:
    """``key.of.params=value`` as a mapping; values are read as YAML."""
    changes: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not key or not equals:
            fail(f"--set {setting!r}: allowed: key=value, e.g. evaluate.floor_samples=60")
        try:
            changes[key] = YAML(typ="safe").load(text)
        except YAMLError:
            fail(f"--set {setting!r}: its value is no YAML")
    return changes


def main() -> int:
    """Exit code 0 if all is up to date at the end, 1 if not, 2 for a wrong command line, 130 if stopped."""
    parser = argparse.ArgumentParser(prog="python -m flows.run", description=__doc__, allow_abbrev=False)
    parser.add_argument("stages", nargs="*", help="stages, rows of them, or rows alone; none: all")
    parser.add_argument(
        "-S", "--set", action="append", default=[], metavar="KEY=VALUE", help="in a copy below .scales"
    )
    parser.add_argument("--retries", type=int, help="while another DVC holds a stage's files; default: 6")
    parser.add_argument("--parallel", type=int, help="stages at once; default: processors / cost.threads")
    given = parser.parse_args()
    asked = {"retries": given.retries, "parallel": given.parallel, "overrides": overrides(given.set) or None}
    attach(root())
    from prefect.exceptions import TerminationSignal  # Prefect reads the server's address when it is imported

    from flows.pipeline import pipeline

    chosen = {name: value for name, value in asked.items() if value is not None}
    try:
        state = pipeline(given.stages, **chosen, return_state=True)
    except (KeyboardInterrupt, TerminationSignal):
        return 130
    print(f"{state.name}: {state.message}", file=sys.stderr)
    return 0 if state.is_completed() else 1


if __name__ == "__main__":
    raise SystemExit(main())
