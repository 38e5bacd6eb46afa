"""The block `cost` of ``params.yaml``, as far as it says what to run at once."""

import os
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from flows.project import fail


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(project: Path) -> list[int]:
    """Threads of one cell: `cost.threads`, then those of single stages."""
    block = _block(project)
    found = {"cost.threads": block.get("threads")}
    for name, stage in _stages(block).items():
        if "threads" in stage:
            found[f"cost.stages.{name}.threads"] = stage["threads"]
    for key, value in found.items():
        if not isinstance(value, int) or value < 1:
            fail(f"params.yaml: {key}: {value!r} is not allowed; allowed: a whole number above 0")
    return [value for value in found.values() if isinstance(value, int)]


def at_once(project: Path) -> int:
    """How many stages this machine computes at once: its processors, divided by `cost.threads`."""
    return max(1, processors() // threads(project)[0])


def minutes(project: Path, address: str) -> float:
    """Expected minutes of one stage; 0.1 where nobody has said."""
    stage = _stages(_block(project)).get(address.partition("@")[0], {})
    said = stage.get("minutes")
    return float(said) if isinstance(said, int | float) and said > 0 else 0.1


def _block(project: Path) -> dict[str, Any]:
    cost = YAML(typ="safe").load((project / "params.yaml").read_text(encoding="utf-8")).get("cost")
    return cost if isinstance(cost, dict) else {}


def _stages(block: dict[str, Any]) -> dict[str, dict[str, Any]]:
    stages = block.get("stages")
    return {k: v for k, v in stages.items() if isinstance(v, dict)} if isinstance(stages, dict) else {}
