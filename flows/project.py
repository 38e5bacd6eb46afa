"""The project as a folder: where it is, and the paths that `dvc.yaml` gives names to."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from ruamel.yaml import YAML


class Mistake(SystemExit):
    """A user's mistake, printed already; where nobody catches it, it ends the process with exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(2)
        self.message = message

    def __str__(self) -> str:
        return self.message


def fail(message: str) -> NoReturn:
    """Print one line on standard error, and raise `Mistake`."""
    print(f"error: {message}", file=sys.stderr)
    raise Mistake(message)


def root() -> Path:
    """The current folder, which must be a project."""
    here = Path.cwd()
    if not (here / "dvc.yaml").is_file():
        fail(f"{here} holds no dvc.yaml; run from the project's top folder")
    return here


def environment(**more: str) -> dict[str, str]:
    """Environment of children: this interpreter's programs first, so that stages run where flows do."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        **more,
    }


def dvc(*arguments: str) -> list[str]:
    """A DVC command line, by this interpreter."""
    return [sys.executable, "-m", "dvc", *arguments]


def artifact(project: Path, name: str) -> Path:
    """The path under `artifacts` in `dvc.yaml`: no other file spells an output's path."""
    described = YAML(typ="safe").load((project / "dvc.yaml").read_text(encoding="utf-8"))
    spelt: str = described["artifacts"][name]["path"]
    return project / spelt


def events(project: Path) -> Path:
    """Folder of the stages' event files, relative to the project."""
    return artifact(project, "events").relative_to(project)


def files(project: Path) -> list[str]:
    """Tracked files and new ones that git does not ignore, as they lie in the working tree.

    Outside of a git checkout there is nothing to tell sources from results, so that ends the process.
    """
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    if listed.returncode:
        fail(f"{project} is no git checkout: {listed.stderr.strip()}")
    return sorted(name for name in set(listed.stdout.split("\0")) if name and (project / name).is_file())
