"""The block `cost` of ``params.yaml``, as far as it says what to run at once."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml import YAML

from flows.project import fail

RAY = ("auto", "always", "never")
FEW = 4  # processors
T = TypeVar("T")


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(project: Path) -> list[int]:
    """Threads of one cell: `cost.threads`, then those of single stages."""
    block = _block(project)
    own = _numbers(block, "threads")
    return [_number("cost.threads", block.get("threads")), *own.values()]


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


def filled(project: Path, shared: bool) -> Callable[[str], int]:
    """How many places of a run the stage of an address fills: the processes that share its cells.

    Args:
        shared: cells go to a Ray cluster, which keeps count itself: one.
    """
    stages = _stages(_block(project))
    several = {name: _workers(name, own) for name, own in stages.items()}
    return lambda address: 1 if shared else _of(several, address, 1)


def minutes(project: Path) -> Callable[[str], float]:
    """Expected minutes of the stage of an address; 0.1 where nobody has said."""
    stages = _stages(_block(project))

    def of(address: str) -> float:
        said = _of(stages, address, {}).get("minutes")
        return float(said) if isinstance(said, int | float) and said > 0 else 0.1

    return of


def _of(said: Mapping[str, T], address: str, default: T) -> T:
    """What is said of a row by its address, else of its stage by its name."""
    return said.get(address, said.get(address.partition("@")[0], default))


def _workers(name: str, own: Mapping[str, Any]) -> int:
    """Processes that share the cells of a stage."""
    return _number(f"cost.stages.{name}.workers", own.get("workers", 1))


def _numbers(block: dict[str, Any], key: str) -> dict[str, int]:
    """What stages have under a key, by name."""
    stages = _stages(block).items()
    return {name: _number(f"cost.stages.{name}.{key}", own[key]) for name, own in stages if key in own}


def _number(key: str, value: object) -> int:
    if not isinstance(value, int) or value < 1:
        fail(f"params.yaml: {key}: {value!r} is not allowed; allowed: a whole number above 0")
    return value


def _block(project: Path) -> dict[str, Any]:
    cost = YAML(typ="safe").load((project / "params.yaml").read_text(encoding="utf-8")).get("cost")
    return cost if isinstance(cost, dict) else {}


def _stages(block: dict[str, Any]) -> dict[str, dict[str, Any]]:
    stages = block.get("stages")
    return {k: v for k, v in stages.items() if isinstance(v, dict)} if isinstance(stages, dict) else {}
