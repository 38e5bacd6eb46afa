"""Whose checkpoint a figure is of: what stages recorded of their victims against what lies there now."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mipriv.errors import InputError
from mipriv.stats import Figure
from tasks.engine import events, sealed

Seen = Mapping[str, Mapping[str, str]]  # folder of a checkpoint: digest by the stage that used it


@dataclass(frozen=True)
class Checkpoint:
    """A victim of a row of the table.

    Attributes:
        folder: of each training seed.
    """

    folder: Mapping[int, Path]

    def digests(self) -> dict[int, str]:
        """Of each training seed, as it lies there."""
        return {seed: sealed.digest(path) for seed, path in self.folder.items()}

    def refuse_other(self, seen: Seen) -> None:
        """Every stage that used this victim used these very bytes.

        Raises:
            InputError: one used others: their figures are not of one checkpoint.
        """
        for seed, own in self.digests().items():
            path = self.folder[seed].as_posix()
            for stage, digest in seen.get(path, {}).items():
                if digest != own:
                    said = f"{stage} used sha256 {digest[:12]}..., there lies {own[:12]}..."
                    raise InputError(f"table: {path}: {said}; allowed: one checkpoint in a row, run it again")


def used(folders: list[Path]) -> Seen:
    """Digests of victims that stages recorded in their event files, by folder of the victim."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for folder in folders:
        for path in sorted(folder.glob("*.jsonl")):
            for line in _inputs(path):
                if line["name"] == "victim" and line["path"]:
                    found[line["path"]][f"{folder.name}@{path.stem}"] = line["digest"]
    return found


def _inputs(path: Path) -> Iterator[dict[str, Any]]:
    for cell in events.read(path):
        if cell["event"] == "cell":
            yield from (line for line in cell["events"] if line["event"] == "input")


def seconds(path: Path, cells: list[str]) -> Figure | None:
    """Training seconds of one victim: mean and range over some cells of a stage; None where no file says."""
    if not path.exists():
        return None
    spent = [
        float(line["seconds"])
        for cell in events.read(path)
        if cell["event"] == "cell" and cell["name"] in cells
        for line in cell["events"]
        if line["event"] == "end"
    ]
    if not spent:
        return None
    mean = sum(spent) / len(spent)
    return Figure(mean, min(spent), max(spent), len(spent), len(spent), "range over seeds")
