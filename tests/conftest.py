"""Settings that must precede the import of torch, and how tests share two processes."""

import signal
from pathlib import Path

import pytest

import tasks  # noqa: F401  (its threads spin but shortly)

# A shell starts what runs in the background with SIGINT ignored, and every child would inherit that: tests
# that send one would wait in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)

SLOWEST_FIRST = ["pipeline", "flows", "engine"]
HERE = Path(__file__).parent


def _group(item: pytest.Item) -> str:
    """The folder: its tests share what takes long to make, hence a process."""
    return item.path.relative_to(HERE).parts[0]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tests of a folder run in one process. Said here, since xdist looks for groups before the next hook."""
    item.add_marker(pytest.mark.xdist_group(_group(item)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The folders that take longest come first."""
    rank = {name: place for place, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: rank.get(_group(item), len(rank)))
