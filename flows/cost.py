"""The block `cost` of ``params.yaml``, as far as it says what to run at once."""

import os
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from flows.project import fail

RAY = ("auto", "always", "never")
FEW = 4  # processors


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


def wants_ray(project: Path) -> bool:
    """Whether a run starts a Ray head of its own, as `cost.ray` says.

    `auto`: where cells keep GPUs, or the machine has more than `FEW` processors. Each stage that comes to Ray
    costs some ten seconds of a processor, its worker imports torch once more; on few processors the stages
    that run at once fill them without it.
    """
    block = _block(project)
    asked = block.get("ray", "auto")
    if asked not in RAY:
        fail(f"params.yaml: cost.ray: {asked!r} is not allowed; allowed: {', '.join(RAY)}")
    return asked == "always" or (asked == "auto" and (processors() > FEW or bool(block.get("gpus"))))


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
