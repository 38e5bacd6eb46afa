"""Stages that start with torch already loaded: a run's own parent process of them, forked for each.

A stage spends three processor-seconds on imports before its work, of which torch is most. While a run of
many stages lasts, ``python -m tasks.engine.warm SOCKET MODULE...`` holds what others wrote, the modules
named among it, and nothing of this project, whose code may be edited meanwhile. A stage's process that finds
the socket's path in MIPRIV_WARM hands its command line, environment and standard streams over, waits for the
fork that runs them in its place, passes signals on to it, and ends as it ends. Whichever of the two is
killed, the other ends too.

Standard library alone at the top, because what hands over has to be light.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import FrameType
from typing import NoReturn

VARIABLE = "MIPRIV_WARM"
OFF = "off"
# What stages import and others wrote. It must start no thread and read no setting of a stage.
LOADED = (
    "torch",
    "torchvision",  # it imports torch's compiler, too: as long again as torch
    "numpy",
    "scipy.special",
    "pydantic",
    "ruamel.yaml",
    "safetensors.torch",
    "tqdm",
    "PIL.Image",
)
STREAMS = (0, 1, 2)
LENGTH = struct.Struct("!I")
KILLED = 128 + signal.SIGKILL


@dataclass(frozen=True)
class Command:
    """A process as it would have run by itself: ``python -m MODULE ARGUMENTS``."""

    module: str
    arguments: list[str]
    folder: str
    environment: dict[str, str]


def hand_over(command: Sequence[str]) -> None:
    """Let the parent of this run's stages run this process's command line, and exit with its code.

    Returns where there is no such parent, the command is no stage's, or the parent does not answer.

    Args:
        command: ``sys.orig_argv``.
    """
    module = command[2] if len(command) > 2 and command[1] == "-m" else ""
    if module.startswith("tasks.") and module.count(".") == 1:
        # What a stage starts is not for a parent of stages.
        _hand(module, command[3:], {key: value for key, value in os.environ.items() if key != VARIABLE})


def run(module: str, arguments: Sequence[str]) -> int:
    """Run a module as a program, by the parent of this run's stages or, where there is none, here."""
    _hand(module, arguments, os.environ)
    sys.argv = [module, *arguments]
    return _code(module)


def _hand(module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    path = os.environ.get(VARIABLE, OFF)
    if path == OFF:
        return
    try:
        there = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        there.connect(path)
    except OSError as error:
        print(f"{VARIABLE}: {error.strerror}: {path}; starting without it", file=sys.stderr)
        return
    own = Command(module, list(arguments), os.getcwd(), dict(environment))
    _exit(_follow(there, own))


def _follow(there: socket.socket, own: Command) -> int:
    """Send a command, and return the exit code of the process that runs it."""
    told = json.dumps(asdict(own)).encode()
    socket.send_fds(there, [LENGTH.pack(len(told))], STREAMS)
    there.sendall(told)
    pid = _number(there)
    if pid is None:
        return KILLED

    def pass_on(number: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    code = _number(there)
    there.recv(1)  # the end of the process, behind the end of its work
    return KILLED if code is None else code


def _exit(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing of the stage was done here: there is nothing to finish


def _number(there: socket.socket) -> int | None:
    """The next number that the other side sends; None: it has ended."""
    try:
        raw = _exactly(there, LENGTH.size)
    except EOFError:
        return None
    return int(LENGTH.unpack(raw)[0])


def _exactly(there: socket.socket, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        more = there.recv(size - len(parts))
        if not more:
            raise EOFError
        parts += more
    return parts


def serve(path: str, more: Sequence[str]) -> NoReturn:
    """Fork a process for every stage that comes, until this one is ended.

    Args:
        path: of its socket.
        more: modules to load beside those of stages.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # its leash's handler would keep it
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(64)
    for name in (*more, *LOADED):
        importlib.import_module(name)
    gc.freeze()  # else every fork's collector walks, and copies, a million objects that stay
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended: they say so themselves
    while True:
        there, _ = listener.accept()
        if os.fork():
            there.close()
            continue
        listener.close()
        _run(there)


def _run(there: socket.socket) -> NoReturn:
    """In the fork: become the process that was handed over, run it, say how it ended, and end."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        own = _received(there)
    except EOFError:
        os._exit(KILLED)
    os.chdir(own.folder)
    os.environ.clear()
    os.environ.update(own.environment)
    sys.path.insert(0, own.folder)
    sys.argv = [own.module, *own.arguments]
    there.sendall(LENGTH.pack(os.getpid()))
    threading.Thread(target=_end_with, args=[there], daemon=True).start()
    _forget()
    code = _code(own.module)
    _finish()
    with contextlib.suppress(OSError):
        there.sendall(LENGTH.pack(code))
    os._exit(code)


def _finish() -> None:
    """What an interpreter does at its end, but for taking to pieces a million objects of torch and DVC.

    That takes longer than most of a stage's own work, 1.3 processor-seconds. As a fork of multiprocessing
    ends, too: threads are waited for, functions of `atexit` called, streams written out.
    """
    with contextlib.suppress(Exception):  # written to standard error by itself
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _received(there: socket.socket) -> Command:
    raw, descriptors, _, _ = socket.recv_fds(there, LENGTH.size, len(STREAMS))
    if len(raw) < LENGTH.size:
        raise EOFError
    for mine, theirs in zip(STREAMS, descriptors, strict=True):
        os.dup2(theirs, mine)
        os.close(theirs)
    return Command(**json.loads(_exactly(there, LENGTH.unpack(raw)[0])))


def _forget() -> None:
    """Leave this project's own modules unread: a stage reads what lies there when it starts."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "tasks"]:
        del sys.modules[name]


def _code(module: str) -> int:
    """Run a module as a program; its exit code, as the interpreter takes it."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end_with(there: socket.socket) -> None:
    """End this process and what it started when the one that handed over is gone."""
    with contextlib.suppress(OSError):
        there.recv(1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
