"""The stages as DVC knows them: what depends on what, and what is stale.

`dvc.repo.Repo.index` is no documented API; a test holds it against ``dvc dag``.
"""

import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from flows.project import fail

LOCKED = re.compile(r"ERROR: .*(Unable to acquire lock|is busy, it is being blocked by)")
_one = threading.Lock()  # DVC's objects are not made for threads


class Busy(Exception):
    """Another DVC holds a lock; trying again later helps."""


def busy(said: Iterable[str]) -> bool:
    """Whether DVC's own lines, not its stage's, say that it failed for a lock."""
    return any(LOCKED.match(line) for line in said)


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        address: as DVC calls it, e.g. ``invert@ppa-none``.
        needs: addresses of the stages whose outputs it reads.
        outs: its outputs, relative to the project.
    """

    address: str
    needs: frozenset[str]
    outs: tuple[Path, ...]


Graph = Mapping[str, Stage]


def read(project: Path) -> dict[str, Stage]:
    """Every stage by address, dependencies first.

    Raises:
        Mistake: DVC cannot read the project.
    """
    with _opened(project) as repo:
        return _read(repo, project)


def changed(project: Path, addresses: Collection[str]) -> set[str]:
    """Those of the stages that ``dvc repro --single-item`` would not skip; frozen ones are never among them.

    Raises:
        Busy: another process writes what they read.
        Mistake: DVC cannot read the project.
    """
    with _opened(project) as repo:
        return _changed(_stages(repo, project, addresses))


def look(project: Path, names: Sequence[str]) -> tuple[dict[str, Stage], set[str], set[str]]:
    """Every stage as of `read`, those that `select` finds, and those of these that have `changed`.

    Raises:
        Busy, Mistake: as these do.
    """
    with _opened(project) as repo:
        stages = _read(repo, project)
        selected = select(stages, names)
        own = {_address(stage, project): stage for stage in repo.index.stages}
        return stages, selected, _changed({name: own[name] for name in selected})


def _read(repo: Any, project: Path) -> dict[str, Stage]:
    index = repo.index.graph  # an edge leads from a stage to one that it needs
    stages = {
        _address(stage, project): Stage(
            _address(stage, project),
            frozenset(_address(other, project) for other in index.successors(stage)),
            tuple(Path(out.fs_path).relative_to(project) for out in stage.outs if out.is_in_repo),
        )
        for stage in index
    }
    order = TopologicalSorter({address: sorted(stages[address].needs) for address in sorted(stages)})
    return {address: stages[address] for address in order.static_order()}


def _stages(repo: Any, project: Path, addresses: Collection[str]) -> dict[str, Any]:
    """Stages by address, without those that nobody asks for: DVC takes a second to make all."""
    from dvc.dvcfile import load_file

    files: dict[str, Any] = {}
    found = {}
    for address in addresses:
        named, _, name = address.rpartition(":")
        path = named or (address if address.endswith(".dvc") else "dvc.yaml")
        if path not in files:
            files[path] = load_file(repo, str(project / path))
        file = files[path]
        found[address] = file.stage if address.endswith(".dvc") else file.stages[name or address]
    return found


def _changed(stages: Mapping[str, Any]) -> set[str]:
    return {name for name, stage in stages.items() if not stage.frozen and stage.status()}


def select(graph: Graph, names: Sequence[str]) -> set[str]:
    """Addresses of the named stages and of all that they need; no names: of every stage.

    Args:
        names: a stage (``evaluate``), one of its rows (``invert@ppa-none``), a stage for all of its rows
            (``invert``) or a row (``ppa-none``).

    Raises:
        Mistake: a name is none of these.
    """
    wanted: set[str] = set()
    for name in names:
        found = {address for address in graph if name == address or name in address.split("@", 1)}
        if not found:
            known = sorted({part for address in graph for part in (address, *address.split("@", 1))})
            fail(f"stages: {name!r} is neither a stage nor a row; allowed: {', '.join(known)}")
        wanted |= found
    return _closure({address: graph[address].needs for address in graph}, wanted) if names else set(graph)


def chains(graph: Graph, minutes: Callable[[str], float]) -> dict[str, float]:
    """Minutes from the start of each stage to the end of the longest chain of those that wait for it.

    Args:
        graph: dependencies first.
        minutes: that a stage is expected to take.
    """
    found: dict[str, float] = {}
    for name in reversed(list(graph)):
        after = (minutes_after for other, minutes_after in found.items() if name in graph[other].needs)
        found[name] = minutes(name) + max(after, default=0.0)
    return found


def stale(graph: Graph, selected: Collection[str], changes: Collection[str]) -> set[str]:
    """Selected stages that have changed, and those among their descendants: what has to be looked at."""
    children = {address: {other for other in graph if address in graph[other].needs} for address in graph}
    return _closure(children, set(changes)) & set(selected)


def _closure(edges: Mapping[str, Collection[str]], start: set[str]) -> set[str]:
    reached, new = set(start), set(start)
    while new:
        new = {there for here in new for there in edges[here]} - reached
        reached |= new
    return reached


@contextmanager
def _opened(project: Path) -> Iterator[Any]:
    """The repository under its lock, waited for, so that nobody is writing dvc.lock meanwhile."""
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo, lock_repo

    from flows import dvc as cheaper

    cheaper.replace()
    try:
        with _one, Repo(str(project), _wait_for_lock=True) as repo, lock_repo(repo):
            yield repo
    except LockError as error:
        raise Busy(str(error).partition(",")[0]) from error  # "'PATH' is busy, it is being blocked by: ..."
    except DvcException as error:
        fail(f"{project}: {' '.join(str(error).split())}")


def _address(stage: Any, project: Path) -> str:
    """DVC's own `addressing` is relative to the current folder, which may be another than the project."""
    file = Path(stage.path).relative_to(project)
    name = getattr(stage, "name", None)
    if name is None:
        return file.as_posix()
    return str(name) if file == Path("dvc.yaml") else f"{file.as_posix()}:{name}"
