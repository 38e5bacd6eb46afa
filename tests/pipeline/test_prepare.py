"""Rows of `prepare`: each its own stage, several at once."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from flows import scale
from mipriv.data.dataset import Dataset
from tests.pipeline.conftest import ROOT, edit, environment, ran, run

# Two rows that read one after the other would wait in vain.
MEETING = '''"""Twelve grey images of three people, shown to two who meet."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mipriv.data.sources import Record
from mipriv.errors import InputError


@dataclass(frozen=True)
class Meeting:
    """Images are read once two files lie in `folder`, one for each `name`; image i is `first` + i."""

    folder: str
    name: str
    first: int

    def records(self):
        """See `Source`."""
        return [Record(f"{i}", f"p{i // 4}", {}) for i in range(12)]

    def read(self, record):
        """See `Source`."""
        folder, until = Path(self.folder), time.monotonic() + 120
        (folder / self.name).touch()
        while len(list(folder.iterdir())) < 2:
            if time.monotonic() > until:
                raise InputError(f"{self.name} waited alone")
            time.sleep(0.05)
        return np.full((8, 8, 1), self.first + int(record.path), np.uint8)

    def digest(self, record):
        """See `Source`."""
        return hashlib.sha256(self.read(record).tobytes()).hexdigest()
'''
SPLIT = {"public": 1, "private": 2, "train": 2, "validation": 1, "test": 1, "public_validation": 1, "seed": 0}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project with two more rows of `prepare`, as if they were checked."""
    project, met = tmp_path / "project", tmp_path / "met"
    met.mkdir()
    scale.prepare(ROOT, "smoke", project)
    (project / "mipriv/data/sources/meeting.py").write_text(MEETING)

    def two(values: dict[str, dict[str, dict[str, object]]]) -> None:
        for name, first, size, channels in (("one", 0, [8, 8], 1), ("two", 100, [4, 6], 3)):
            values["prepare"]["rows"][name] = {
                "source": "meeting",
                "knobs": {"folder": str(met), "name": name, "first": first},
                "transform": {"size": size, "crop": None, "channels": channels},
                "split": SPLIT,
            }

    edit(project, two)  # type: ignore[arg-type]
    (project / ".dvc/config.local").unlink()  # it shares a cache
    (project / "out").mkdir()
    (project / "out/check.json").write_text('{"parameters": "consistent"}\n')
    return project


def test_two_rows_are_prepared_side_by_side_and_each_again_by_itself(project: Path) -> None:
    env = {**environment(), "MIPRIV_PUBLISH": "off"}
    children = [
        subprocess.Popen(
            ["dvc", "--wait-for-lock", "repro", "--single-item", f"prepare@{row}"],
            cwd=project,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for row in ("one", "two")
    ]
    for child in children:
        said, _ = child.communicate(timeout=240)
        assert child.returncode == 0, said
    for row, first, shape in (("one", 0, (1, 8, 8)), ("two", 100, (3, 4, 6))):
        data = Dataset.open(project / "out/prepare" / row)
        assert data.image_shape == shape and data.manifest.knobs["name"] == row
        levels = {float(image.unique()) for name in data.manifest.splits for image in data.split(name)[0]}
        np.testing.assert_allclose(sorted(levels), [(first + i) / 255 for i in range(12)], atol=1e-6)
        lines = (project / f"out/events/prepare/{row}.jsonl").read_text().splitlines()
        start, end = json.loads(lines[0]), json.loads(lines[-1])
        assert (start["stage"], start["row"], end["status"]) == ("prepare", row, "finished")

    def wider(values: dict[str, dict[str, dict[str, dict[str, dict[str, object]]]]]) -> None:
        values["prepare"]["rows"]["two"]["transform"]["size"] = [4, 8]

    edit(project, wider)  # type: ignore[arg-type]
    before = (project / "out/prepare/one/manifest.json").stat().st_mtime_ns
    again = run(project, "dvc", "repro", "prepare@one", "prepare@two", MIPRIV_PUBLISH="off")
    assert ran(again) == {"check", "prepare@two"}
    assert Dataset.open(project / "out/prepare/two").image_shape == (3, 4, 8)
    assert (project / "out/prepare/one/manifest.json").stat().st_mtime_ns == before
