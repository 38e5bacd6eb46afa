"""Threads and determinism of a process, set before its work."""

import contextlib
import ctypes
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")
R = TypeVar("R")

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# By glibc's numbers in malloc.h, bytes: free memory at its top that is kept, what is asked for beyond a need,
# and from what size on a block is mapped by itself.
KEPT = {-1: 512 * 2**20, -2: 16 * 2**20, -3: 32 * 2**20}


def settle(threads: int) -> None:
    """Fix the number of threads and ask for deterministic algorithms, in torch if it is loaded.

    Variables reach only libraries that are loaded later, hence the calls; torch itself is not loaded for
    stages that do without it. NumPy's matrix products would have a thread on every processor, waiting in a
    loop between two: beside another stage that took as long again.
    """
    _keep_memory()
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    for variable in VARIABLES:
        os.environ[variable] = str(threads)
    threadpool_limits(threads)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
        # As use_deterministic_algorithms(True), which imports the compiler too: seconds that a stage whose
        # cells are elsewhere need not pay.
        torch.set_deterministic_debug_mode("error")
        # It guards against code that reads fresh memory unwritten; it made training 1.1 to 7 times slower.
        torch.utils.deterministic.fill_uninitialized_memory = False
        _spare_compiler(torch)


def _keep_memory() -> None:
    """Let a process keep the memory of tensors that are gone, for the next ones.

    Every step of training frees what it made. glibc gives that back to the system, which clears thousands of
    pages a step for the next: a tenth of the time of small networks. Other C libraries are left as they are.
    """
    with contextlib.suppress(OSError, AttributeError):
        for parameter, value in KEPT.items():
            ctypes.CDLL("libc.so.6").mallopt(parameter, value)


def side_by_side(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Results of work on every item, as many at once as torch has threads, each on a thread of its own.

    Operations too small to share gain nothing from a second thread; several of them at once do. `work` keeps
    to what is its own: seeding, tracing and threads are torch's whole process's.
    """
    import torch  # stages that have no such work do without it

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(threads)


def _spare_compiler(torch: ModuleType) -> None:
    """Take torch.compile's wrappers off the optimisers that stages use.

    The first optimiser of a process imports the compiler for them: 1.3 processor-seconds, a seventh of a
    short cell. What they wrap is the same arithmetic.
    """
    optimizer = torch.optim.Optimizer
    for name in ("add_param_group", "zero_grad"):
        setattr(optimizer, name, inspect.unwrap(getattr(optimizer, name)))
    for kind in (torch.optim.Adam, torch.optim.SGD):
        bare = inspect.unwrap(kind.step)
        if bare is not kind.step:
            kind.step = torch.no_grad()(bare)


def check(where: str) -> None:
    """Fail if torch came after `settle`, or something undid it.

    Raises:
        RuntimeError: naming `where`; such work may not repeat byte for byte.
    """
    torch = sys.modules.get("torch")
    if torch is not None and not torch.are_deterministic_algorithms_enabled():
        raise RuntimeError(
            f"{where}: torch is not deterministic; import it at the top of the module, not in a function"
        )
