"""Brings objects into a mirror: in parallel, block by block, again where a stream breaks off."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

from mipriv.errors import InputError
from tasks.engine.mirror import Block, Mirror, Object

J = TypeVar("J")
Progress = Callable[[int, int], None]
# Gives a block's bytes, all of them or `Cut` in the end, and whether the object's ETag may be an md5.
Read = Callable[[Block], tuple[Iterator[bytes], bool]]

THREADS = 8
TRIES, PAUSE = 3, 0.5  # of one block; seconds before the second, and twice that before the third
LOOK = 0.2  # seconds between two reports of progress


class Cut(Exception):
    """A stream that broke off or is not what was sent; says how."""


class Transfer:
    """One transfer: the work on several threads, progress and failure on the one that asked.

    Args:
        progress: called with bytes that are there, and all.
    """

    def __init__(self, read: Read, mirror: Mirror, objects: list[Object], progress: Progress) -> None:
        self._read, self._mirror, self._objects, self._progress = read, mirror, objects, progress
        self._total, self._done = sum(one.size for one in objects), 0
        self._turn, self._stop = threading.Lock(), threading.Event()

    def run(self) -> None:
        """Bring every object that the mirror does not have.

        Raises:
            InputError: an object that comes truncated or damaged again and again, or whatever `read` refuses.
        """
        large: list[Object] = []
        pool = ThreadPoolExecutor(THREADS)
        try:
            self._each(pool, lambda one: self._object(one, large), self._objects)
            for one in large:
                self._blocks(pool, one)
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)

    def _each(self, pool: ThreadPoolExecutor, work: Callable[[J], None], jobs: Iterable[J]) -> None:
        """Do all jobs, few of them queued at a time; the first failure is raised at once."""
        left = iter(jobs)
        pending: set[Future[None]] = set()
        while True:
            pending |= {pool.submit(work, job) for job in islice(left, 2 * THREADS - len(pending))}
            if not pending:
                return
            done, pending = wait(pending, LOOK, FIRST_COMPLETED)
            for future in done:
                future.result()
            self._progress(self._done, max(self._total, 1))

    def _object(self, one: Object, large: list[Object]) -> None:
        """Bring an object of one block; put off a larger one, whose blocks then share the threads."""
        if self._mirror.has(one):
            self._count(one.size)
            return
        missing = self._mirror.missing(one)
        if len(missing) != 1 or not missing[0].whole:
            large.append(one)
            return
        for _ in range(2):
            if self._mirror.accept(one, self._block(missing[0])):
                return
            self._count(-one.size)
        raise _damaged(one)

    def _blocks(self, pool: ThreadPoolExecutor, one: Object) -> None:
        """Bring what earlier processes left of a large object; all of it anew if the sum is wrong."""
        proven: list[bool] = []

        def bring(block: Block) -> None:
            proven.append(self._block(block))
            self._mirror.mark(block)

        for _ in range(2):
            missing = self._mirror.missing(one)
            self._count(one.size - sum(block.length for block in missing))
            self._each(pool, bring, missing)
            if self._mirror.accept(one, all(proven)):
                return
            self._count(-one.size)
        raise _damaged(one)

    def _block(self, block: Block) -> bool:
        """Bring one block; whether the object's ETag may be an md5."""
        cut = Cut()
        for attempt in range(TRIES):
            if self._stop.wait(PAUSE * attempt):
                raise cut  # another object has failed: nobody reads this
            try:
                chunks, proven = self._read(block)
                self._mirror.write(block, self._unless_stopped(chunks))
            except Cut as error:
                cut = error
            else:
                self._count(block.length)
                return proven
        raise InputError(f"{block.object.uri!r}: {cut}, {TRIES} times; allowed: an object that is whole")

    def _unless_stopped(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if self._stop.is_set():
                raise Cut
            yield chunk

    def _count(self, size: int) -> None:
        with self._turn:
            self._done += size


def _damaged(one: Object) -> InputError:
    return InputError(f"{one.uri!r}: damaged on the way, twice: its md5 is not the one that is listed")
