"""Files made to do harm: what each does if it is believed is looked for afterwards."""

import os
from pathlib import Path

import pytest


class Payload:
    """Pickled, it makes a folder when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What is there afterwards if anything was executed."""
    return tmp_path / "executed"
