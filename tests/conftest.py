"""Settings that must precede the import of torch, and how tests share two processes."""

import signal
from typing import Any

import pytest

import tasks  # noqa: F401  (its threads spin but shortly)

# A shell starts what runs in the background with SIGINT ignored, and every child would inherit that: tests
# that send one would wait in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)

SLOWEST_FIRST = ["pipeline", "flows", "engine"]


def _folder(nodeid: str) -> str:
    """Folder below tests, or the file that lies in none."""
    return nodeid.partition("::")[0].split("/")[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The folders that take longest come first."""
    rank = {name: place for place, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: rank.get(_folder(item.nodeid), len(rank)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests of a folder share a process, with what takes long to make: its servers, its finished project.

    The option ``--dist loadgroup`` has no effect with this pytest: it renames tests too late.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFolder(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _folder(nodeid)

    return ByFolder(config, log) if config.getoption("dist") == "loadscope" else None
