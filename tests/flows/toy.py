"""What the stages of the tests' tiny project do: wait, leave a mark that they ran, write output and events.

``python toy.py NAME SECONDS OUT EVENTS [INPUT ...]``; the text of `SECONDS` is a number, or one of the words
that stand for trouble.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main(name: str, seconds: str, out: Path, events: Path, inputs: list[Path]) -> None:
    begun = time.time()
    mark = Path("marks", f"{name}-{os.getpid()}")
    mark.parent.mkdir(exist_ok=True)
    mark.touch()
    behave(name, seconds)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Whole seconds only: a stage that takes a little longer leaves what it left before.
    whole = int(float(seconds)) if seconds[0].isdigit() else seconds
    out.write_text(f"{whole} after {[path.read_text()[:1] for path in inputs]}")
    write(events, name, time.time() - begun)
    mark.write_text(f"{name} {begun} {time.time()}")
    mark.rename(mark.with_name(f"{mark.name}.done"))


def behave(name: str, seconds: str) -> None:
    if seconds == "fails":
        print("error: toy.yaml: colour: 'blue' is not allowed", file=sys.stderr)
        raise SystemExit(2)
    if seconds == "pretends":
        print("'some/file' is busy, it is being blocked by nobody; Unable to acquire lock")
        raise SystemExit(1)
    if seconds == "hangs":
        # A grandchild that ignores SIGTERM, in the same group: only the group's SIGKILL ends it.
        deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", deaf])
        Path("marks", f"{name}.pids").write_text(f"{os.getpid()} {child.pid} {os.getppid()}")
        time.sleep(600)
    if seconds == "meets":
        return meet()
    time.sleep(float(seconds))


def meet() -> None:
    """Go on only while both rows are at work."""
    until = time.monotonic() + 60
    while {mark.name.partition("-")[0] for mark in Path("marks").glob("row@*")} != {
        "row@left",
        "row@right",
    }:
        if time.monotonic() > until:
            raise SystemExit("the other row does not come")
        time.sleep(0.01)


def write(events: Path, name: str, seconds: float) -> None:
    stage, _, row = name.partition("@")
    start = {"stage": stage, "row": row or None, "cell": None, "git": {"commit": None, "dirty": None}}
    versions: dict[str, object] = {"versions": {"python": "3"}}
    metric: dict[str, object] = {"event": "metric", "step": 1}
    inside = [
        {"event": "start", **start, "cell": "seed-0", **versions},
        {**metric, "values": {"loss": 1.5}},
        {"event": "end", "status": "finished", "seconds": 0.1, **versions},
    ]
    lines = [
        {"event": "start", **start, **versions},
        {**metric, "values": {"accuracy": 0.25, "gap": 0.1}},
        {**metric, "values": {"accuracy": 0.5}},
        {
            "event": "cell",
            "name": "seed-0",
            "key": "k" * 64,
            "resumed": False,
            "folder": "out",
            "events": [stamped(line) for line in inside],
        },
        {"event": "end", "status": "finished", "seconds": round(seconds, 3), **versions},
    ]
    events.parent.mkdir(parents=True, exist_ok=True)
    events.write_text("".join(json.dumps(stamped(line)) + "\n" for line in lines))


def stamped(line: dict[str, object]) -> dict[str, object]:
    return {**line, "time": "2020-01-01T00:00:00.000+00:00"}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), [Path(p) for p in sys.argv[5:]])
