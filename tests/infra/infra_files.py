"""Files of `infra/` as these tests read them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"


def documents(name: str) -> list[Any]:
    """The YAML documents of a file below `infra/`, with the merges of their anchors."""
    return list(yaml.safe_load_all((INFRA / name).read_text()))


def variables(name: str) -> dict[str, str]:
    """An environment file below `infra/`."""
    lines = (INFRA / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def tool(*words: object) -> tuple[int, str]:
    """Exit code and words of a program of this environment."""
    program, *rest = map(str, words)
    command = [str(Path(sys.executable).parent / program), *rest]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.returncode, done.stdout + done.stderr
