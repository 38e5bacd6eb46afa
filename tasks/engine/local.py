"""Work side by side in processes of this machine, without a cluster: one forked for each item.

A fork has what its parent has loaded, torch above all, which a process of its own would load for seconds. So
the parent imports first, and forks while no thread of it computes: of OpenMP's threads a fork has none, and
would wait for them. No fork outlives its parent, in whatever way that ends.
"""

import contextlib
import itertools
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

LOOK = 0.5  # seconds between two looks at what runs
GRACE = 5.0  # seconds that forks which are told to end get to clean up


class Ended(RuntimeError):
    """A process was ended before its work was done, from outside or for want of memory."""


class _There(Exception):
    """Where an error came from, in the words of its own process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass(frozen=True)
class _Fork(Generic[T]):
    item: T
    process: Any


def most(wanted: int, threads: int) -> int:
    """Processes of so many threads that this machine has processors for, at most as many as are wanted.

    1 where a GPU may be at work, whose state no fork can use, and where processes cannot be forked.
    """
    torch = sys.modules.get("torch")
    if "fork" not in multiprocessing.get_all_start_methods() or (torch and torch.cuda.is_available()):
        return 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(wanted, usable // threads))


def side_by_side(
    work: Callable[[T], R],
    items: Iterator[T],
    processes: int,
    look: Callable[[Collection[T]], None],
) -> Generator[tuple[T, R | Exception]]:
    """Items with what `work` returned for them, or raised, as they come; close it to end what still runs.

    Args:
        work: what a fork does; what it returns is pickled.
        items: each is taken when there is a process for it.
        processes: at once.
        look: called now and then with the items at work.

    Returns:
        In the place of a result: what was raised, or `Ended`.
    """
    given: dict[Connection, _Fork[T]] = {}
    try:
        while True:
            for item in itertools.islice(items, processes - len(given)):
                ours, process = _forked(work, item)
                given[ours] = _Fork(item, process)
            if not given:
                return
            for ready in wait(list(given), LOOK):
                assert isinstance(ready, Connection)
                fork = given.pop(ready)
                yield fork.item, _told(ready, fork.process)
            look([fork.item for fork in given.values()])
    finally:
        _end([fork.process for fork in given.values()])


def _forked(work: Callable[[T], R], item: T) -> tuple[Connection, Any]:
    """Our end of the pipe that the answer comes by, and the process."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(work, item, theirs))
    process.start()
    theirs.close()
    return ours, process


def _answer(work: Callable[[T], R], item: T, theirs: Connection) -> None:
    """In the fork. Only an `Exception` is an answer: who is told to end has none."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answer: tuple[R | None, Exception | None, str] = (work(item), None, "")
    except KeyboardInterrupt:
        os._exit(128 + signal.SIGINT)  # the parent, which was interrupted too, says so
    except Exception as error:
        answer = (None, _portable(error), traceback.format_exc())
    theirs.send(answer)


def _portable(error: Exception) -> Exception:
    """The error, or what it says where it does not come through a pipe as it is."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


def _told(ready: Connection, process: Any) -> Any:
    """What a process returned or raised."""
    try:
        result, error, where = ready.recv()
    except EOFError:
        process.join()
        return Ended(f"its process was ended ({_how(process.exitcode)}); started again, the stage goes on")
    finally:
        ready.close()
    process.join()
    if error is not None:
        error.__cause__ = _There(where)
        return error
    return result


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    more = ", as where memory runs out" if code == -signal.SIGKILL else ""
    return f"{signal.Signals(-code).name}{more}"


def _end(processes: Collection[Any]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(GRACE)
        if process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.join()
