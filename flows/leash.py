"""``python -P flows/leash.py MODULE ARGUMENTS``: ``python -m MODULE ARGUMENTS``, ended with its parent.

It is started in a session of its own, with a pipe as standard input. When the pipe's other end closes,
because the parent wants so or was killed in whatever way, the whole process group gets SIGTERM and, `GRACE`
seconds later, SIGKILL. The module sees an empty standard input. Standard library only, to cost nothing.
"""

import contextlib
import os
import runpy
import signal
import sys
import threading

GRACE = 10.0  # seconds; Prefect gives a flow that is cancelled 30

_ending = threading.Event()


def _watch(parent: int) -> None:
    while os.read(parent, 4096):
        pass
    _ending.set()
    os.killpg(0, signal.SIGTERM)
    threading.Event().wait(GRACE)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Run the module; what it leaves behind in its group ends with it."""
    if os.getpgrp() != os.getpid():
        raise SystemExit("error: flows/leash.py leads no process group; start it in a new session")
    # A handler, and not SIG_IGN, which the module's children would inherit. DVC has to outlive its stage, to
    # say what became of it and to give its locks back.
    signal.signal(signal.SIGTERM, lambda *_: None)
    parent = os.dup(0)  # not inheritable: only this process holds the pipe
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=_watch, args=[parent], daemon=True).start()
    module = sys.argv[1]
    del sys.argv[0]
    # The project's own modules, which -P leaves out; last, so that they hide nobody's.
    sys.path.append(os.path.dirname(os.path.dirname(__file__)))
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        if _ending.is_set():
            os.killpg(0, signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    main()
