"""Hosts of their own for Ray nodes, as network namespaces of this machine; root and iproute2 make them."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

NET = "10.77.0"


def possible() -> str | None:
    """Why no hosts can be made here; None where they can."""
    if os.geteuid():
        return "only root makes network namespaces"
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    made = subprocess.run(["ip", "netns", "add", f"mp{os.getpid()}t"], capture_output=True, check=False)
    if made.returncode:
        return made.stderr.decode().strip()
    _ip("netns", "delete", f"mp{os.getpid()}t")
    return None


class Hosts:
    """Hosts numbered from 1 on one switch."""

    def __init__(self, count: int) -> None:
        self.names = [f"mp{os.getpid()}h{number}" for number in range(1, count + 1)]
        self.switch = f"mp{os.getpid()}s"

    def address(self, number: int) -> str:
        return f"{NET}.{number}"

    def inside(self, number: int, *command: object) -> list[str]:
        """A command line that runs on a host."""
        return ["ip", "netns", "exec", self.names[number - 1], *map(str, command)]

    def cut(self, number: int) -> None:
        """Take a host's cable out at the switch: nobody is told, and nothing is refused."""
        _ip("-n", self.switch, "link", "set", f"port{number}", "down")

    def _make(self) -> None:
        for name in (self.switch, *self.names):
            _ip("netns", "add", name)
        _ip("-n", self.switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self.switch, "link", "set", "bridge", "up")
        for number, name in enumerate(self.names, 1):
            port = f"port{number}"
            _ip("-n", self.switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("-n", self.switch, "link", "set", port, "master", "bridge", "up")
            _ip("-n", name, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                _ip("-n", name, "link", "set", link, "up")

    def _remove(self) -> None:
        for name in (*self.names, self.switch):
            found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
            for pid in found.stdout.split():
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(int(pid)).kill()
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@contextlib.contextmanager
def hosts(count: int) -> Iterator[Hosts]:
    """Make them; what runs on them is killed in the end."""
    made = Hosts(count)
    try:
        made._make()
        yield made
    finally:
        made._remove()


@contextlib.contextmanager
def node(there: Hosts, number: int, env: dict[str, str], cpus: int = 1) -> Iterator[Path]:
    """A Ray node on a host; that on the first is the head. Gives its log."""
    folder = Path(tempfile.mkdtemp(prefix="mipriv-host-", dir="/tmp"))
    role: Sequence[str] = [f"--address={there.address(1)}:6379"]
    if number == 1:
        role = ["--head", "--port=6379", "--include-dashboard=false"]
    words = [f"--node-ip-address={there.address(number)}", f"--num-cpus={cpus}", "--disable-usage-stats"]
    words += [f"--temp-dir={folder}", "--object-store-memory=80000000", "--block"]
    command = there.inside(number, sys.executable, "-m", "ray.scripts.scripts", "start", *role, *words)
    with (folder / "start.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield folder / "start.log"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
