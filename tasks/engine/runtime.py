"""Threads and determinism of a process, set before its work."""

import os
import sys

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def settle(threads: int) -> None:
    """Fix the number of threads and ask for deterministic algorithms, in torch if it is loaded.

    Variables reach only libraries that are loaded later, hence the calls; torch itself is not loaded for
    stages that do without it.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    for variable in VARIABLES:
        os.environ[variable] = str(threads)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
        # As use_deterministic_algorithms(True), which imports the compiler too: seconds that a stage whose
        # cells are elsewhere need not pay.
        torch.set_deterministic_debug_mode("error")
        # It guards against code that reads fresh memory unwritten; it made training 1.1 to 7 times slower.
        torch.utils.deterministic.fill_uninitialized_memory = False


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
