"""Wall time of each stage in the last run, as a table: `python -m flows.times`."""

import json
from collections import defaultdict
from pathlib import Path

from flows.project import artifact, root


def seconds(events: Path) -> dict[str, list[float]]:
    """Seconds of every row by stage, from the last line of each event file."""
    found: dict[str, list[float]] = defaultdict(list)
    for path in sorted(events.rglob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if lines[-1]["event"] == "end":
            found[lines[0]["stage"]].append(lines[-1]["seconds"])
    return dict(found)


def main() -> None:
    """Print the table; the order is that in which a stage's first row ended."""
    found = seconds(artifact(root(), "events"))
    print("| stage | rows | seconds |\n| --- | ---: | ---: |")
    for stage, values in sorted(found.items(), key=lambda item: item[0]):
        print(f"| `{stage}` | {len(values)} | {sum(values):.0f} |")
    print(f"| all | {sum(map(len, found.values()))} | {sum(map(sum, found.values())):.0f} |")


if __name__ == "__main__":
    main()
