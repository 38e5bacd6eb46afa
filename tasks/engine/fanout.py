"""Runs the cells of a stage: on the Ray cluster that ``RAY_ADDRESS`` names; without one in this process, or
in as many forks of it as the stage has workers.

The project and its store of cells have to be at the same path on all machines of a cluster: a cell's files,
its resume and its progress all pass through the store, and only small values through Ray.
"""

import contextlib
import importlib
import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mipriv.errors import InputError
from tasks.engine import cluster, local, runtime
from tasks.engine.cells import Cell, Place, Result, compute, key, stored
from tasks.engine.progress import Progress, noted, noting

QUEUED = 4  # cells handed to Ray at once, for each CPU that it has
LOOK = 0.5  # seconds between two looks at what runs
GRACE = 5.0  # seconds that cancelled cells get to clean up

Computed = Callable[[deque[Cell], Mapping[str, str], Place, Progress], Generator[Result]]


def run(cells: Sequence[Cell], place: Place) -> dict[str, Result]:
    """Compute the cells that are not there, and say how far it is on stderr.

    A cell that fails ends the run: those that are at work are stopped, those that are done are kept.

    Returns:
        Results by cell name, in the order of `cells`.

    Raises:
        InputError: as the cell raised it; or the cluster does not answer, or has no room for a cell.
        Exception: whatever else the cell raised, with a note that names the cell.
    """
    keys = _keys(cells, place)
    with Progress(place.address, len(cells)) as progress:
        if os.environ.get("RAY_ADDRESS"):
            results = _elsewhere(cells, keys, place, progress, _on_cluster)
        elif place.workers > 1:
            results = _elsewhere(cells, keys, place, progress, _in_forks)
        else:
            results = _here(cells, place, progress)
    return {cell.name: results[cell.name] for cell in cells}


def _here(cells: Sequence[Cell], place: Place, progress: Progress) -> dict[str, Result]:
    results: dict[str, Result] = {}
    for cell in cells:
        try:
            results[cell.name] = result = compute(cell, place, progress.part(cell.name))
        except InputError:
            raise
        except Exception as error:
            _name(error, cell, place)
            raise
        progress.end(cell.name, result.resumed, result.seconds)
    return results


def _elsewhere(
    cells: Sequence[Cell], keys: Mapping[str, str], place: Place, progress: Progress, computed: Computed
) -> dict[str, Result]:
    """As `_here`; what is stored already is found out here, so that a finished stage needs no cluster."""
    results: dict[str, Result] = {}
    waiting: deque[Cell] = deque()
    for cell in cells:
        result = stored(cell, keys[cell.name], place)
        if result is None:
            waiting.append(cell)
        else:
            results[cell.name] = result
            progress.end(cell.name, True, result.seconds)
    if waiting:
        with contextlib.closing(computed(waiting, keys, place, progress)) as found:
            for result in found:
                results[result.name] = result
                progress.end(result.name, result.resumed, result.seconds)
    return results


def _in_forks(
    waiting: deque[Cell], keys: Mapping[str, str], place: Place, progress: Progress
) -> Generator[Result]:
    """Results as they come, of forks of this process."""
    notes = _notes(waiting, keys, place)
    for module in {cell.function.partition(":")[0] for cell in waiting}:
        importlib.import_module(module)  # once, for all forks
    runtime.settle(place.threads)

    def taken() -> Iterator[Cell]:
        for cell in waiting:
            progress.part(cell.name)
            yield cell

    def work(cell: Cell) -> Result:
        return _noted(cell, place, notes[cell.name])

    def look(at_work: Collection[Cell]) -> None:
        _look([cell.name for cell in at_work], notes, progress)

    with contextlib.closing(local.side_by_side(work, taken(), place.workers, look)) as answers:
        for cell, answer in answers:
            if isinstance(answer, Exception):
                if not isinstance(answer, InputError):
                    _name(answer, cell, place)
                raise answer
            yield answer


def _on_cluster(
    waiting: deque[Cell], keys: Mapping[str, str], place: Place, progress: Progress
) -> Generator[Result]:
    """Results as they come, of workers of the cluster."""
    with (
        _cluster(place) as ray,
        contextlib.closing(_computed(ray, waiting, keys, place, progress)) as found,
    ):
        yield from found


def _computed(
    ray: Any, waiting: deque[Cell], keys: Mapping[str, str], place: Place, progress: Progress
) -> Generator[Result]:
    """Results as they come; never more than `QUEUED` cells for each CPU are in the cluster's hands."""
    task = ray.remote(_on_node)
    needs = {"num_cpus": place.threads, "num_gpus": place.gpus}
    room = QUEUED * max(1, int(ray.cluster_resources().get("CPU", 1)))
    given: dict[Any, Cell] = {}
    notes = _notes(waiting, keys, place)
    try:
        while waiting or given:
            while waiting and len(given) < room:
                cell = waiting.popleft()
                name = f"{place.address} {cell.name}"
                ref = task.options(name=name, max_retries=place.retries, retry_exceptions=False, **needs)
                given[ref.remote(cell, place, notes[cell.name])] = cell
                progress.part(cell.name)
            ready, _ = ray.wait(list(given), num_returns=len(given), timeout=LOOK)
            for ref in ready:
                yield _taken(ray, ref, given.pop(ref), place)
            _look([cell.name for cell in given.values()], notes, progress)
    finally:
        _cancel(ray, list(given))


def _notes(cells: Iterable[Cell], keys: Mapping[str, str], place: Place) -> dict[str, Path]:
    """Where each cell notes its progress; what one that was killed has left there is gone."""
    notes = {cell.name: place.store / f"{keys[cell.name]}.progress" for cell in cells}
    for note in notes.values():
        note.unlink(missing_ok=True)
    return notes


def _look(at_work: Iterable[str], notes: Mapping[str, Path], progress: Progress) -> None:
    """Say, if that is due, how far the cells at work are."""
    if progress.due:
        seen = {name: noted(notes[name]) for name in at_work}
        progress.look({name: fraction for name, fraction in seen.items() if fraction is not None})


def _on_node(cell: Cell, place: Place, note: Path) -> Result:
    """In a worker of the cluster."""
    import ray

    cluster.started_alike(ray.util.get_node_ip_address())
    return _noted(cell, place, note)


def _noted(cell: Cell, place: Place, note: Path) -> Result:
    """In a worker: the cell, computed as it would be in the stage's own process."""
    os.chdir(place.root)
    with noting(note) as progress:
        return compute(cell, place, progress)


def _taken(ray: Any, ref: Any, cell: Cell, place: Place) -> Result:
    """The result behind a reference, or the error as the cell raised it."""
    try:
        result: Result = ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise error.cause from None
        _name(error.cause, cell, place)
        raise error.cause from error
    except ray.exceptions.RayError as error:
        _name(error, cell, place)
        raise
    return result


def _cancel(ray: Any, refs: list[Any]) -> None:
    for ref in refs:
        ray.cancel(ref)
    if refs:
        ray.wait(refs, num_returns=len(refs), timeout=GRACE)


def _name(error: BaseException, cell: Cell, place: Place) -> None:
    error.add_note(f"in cell {cell.name} of {place.address}")


@contextlib.contextmanager
def _cluster(place: Place) -> Iterator[Any]:
    """The module ray, connected to the cluster; its import is left to the stages that compute something."""
    address = os.environ["RAY_ADDRESS"]
    cluster.reach(address)
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")  # else 12 minutes for a port where no Ray listens
    os.environ.setdefault("RAY_task_oom_retries", str(place.retries))  # else for ever
    for name, value in cluster.PATIENCE.items():
        os.environ.setdefault(name, value)
    import ray
    import ray.exceptions

    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, namespace="mipriv", log_to_driver=False, logging_level=logging.ERROR,
                 runtime_env={"env_vars": cluster.environment(place)})  # fmt: skip
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        said = " ".join(str(error).split())
        raise InputError(
            f"RAY_ADDRESS: {address!r} does not take this driver ({said}); allowed: a cluster of the same "
            "Ray and Python, with its RAY_AUTH_MODE and RAY_AUTH_TOKEN"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray puts one of its own there
    try:
        cluster.fits(ray.nodes(), place)
        yield ray
    finally:
        ray.shutdown()


def _keys(cells: Sequence[Cell], place: Place) -> dict[str, str]:
    """Keys by name; refuses two cells of one name, or of one key: a seed nobody passed on looks like that."""
    keys: dict[str, str] = {}
    twins: dict[str, str] = {}
    for cell in cells:
        path = PurePosixPath(cell.name)
        if (
            path.is_absolute()
            or not path.parts
            or ".." in path.parts
            or str(path) != cell.name
            or cell.name in keys
        ):
            raise ValueError(
                f"cell {cell.name!r}: a name is a relative path that no other has, e.g. seed-0/ids-000"
            )
        keys[cell.name] = key(cell, place)
        twin = twins.setdefault(keys[cell.name], cell.name)
        if twin != cell.name:
            raise ValueError(
                f"cells {twin} and {cell.name} are the same work; what sets them apart is not in kwargs"
            )
    return keys
