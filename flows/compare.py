"""`make compare A=rev B=rev`: the common tables of two revisions side by side, with paired intervals.

Files come out of DVC's cache, by what each revision's `dvc.lock` says; `workspace` is the working tree.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from ruamel.yaml import YAML

from flows.project import artifact, dvc, environment, fail, root

FILES = ("table", "people", "digests", "scores")
LATER = ("scores",)  # what tables of earlier versions do not have
WORKSPACE = "workspace"


def bring(project: Path, revision: str, folder: Path) -> None:
    """Put a revision's table, figures by person and digests into a folder.

    Raises:
        Mistake: no such revision, it has no table, or the cache does not hold its files.
    """
    folder.mkdir(parents=True)
    for name in FILES:
        path = artifact(project, name)
        target = folder / path.name
        if revision == WORKSPACE:
            if name in LATER and not path.is_file():
                continue
            if not path.is_file():
                fail(f"{path.relative_to(project)} is not there; run the pipeline first")
            target.write_bytes(path.read_bytes())
            continue
        relative = path.relative_to(project).as_posix()
        _known(project, revision)
        made = _recorded(project, revision)
        if name in LATER and relative not in made:
            continue
        if relative not in made:
            fail(
                f"revision {revision!r} has no table: its dvc.lock names no {relative}; "
                f"allowed: a revision committed after `make run`, or {WORKSPACE}"
            )
        command = dvc("get", ".", relative, "--rev", revision, "--out", str(target), "--quiet")
        done = subprocess.run(
            command, cwd=project, env=environment(), capture_output=True, text=True, check=False
        )
        if done.returncode or not target.is_file():
            fail(
                f"{relative} of revision {revision!r} is not in DVC's cache; `dvc pull` brings it from a "
                f"remote, `dvc repro table` at that revision computes it"
            )


def _known(project: Path, revision: str) -> None:
    command = ["git", "rev-parse", "--quiet", "--verify", "--end-of-options", f"{revision}^{{commit}}"]
    if subprocess.run(command, cwd=project, capture_output=True, check=False).returncode:
        fail(f"revision {revision!r} does not exist; allowed: what git knows, or {WORKSPACE}")


def _recorded(project: Path, revision: str) -> set[str]:
    """Files that a revision's `dvc.lock`, as committed, knows."""
    command = ["git", "show", f"{revision}:./dvc.lock"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    stages = (YAML(typ="safe").load(done.stdout) or {}).get("stages") or {} if not done.returncode else {}
    return {out["path"] for stage in stages.values() for out in stage.get("outs", ())}


def main() -> int:
    """Command line: two revisions."""
    parser = argparse.ArgumentParser(prog="python -m flows.compare", description=__doc__, allow_abbrev=False)
    parser.add_argument("a", help="a revision, as git names it, or: workspace")
    parser.add_argument("b", help="another one; differences are B minus A")
    given, project = parser.parse_args(), root()
    with tempfile.TemporaryDirectory() as folder:
        for name, revision in (("a", given.a), ("b", given.b)):
            bring(project, revision, Path(folder) / name)
        command = [sys.executable, "-m", "tasks.compare", f"{folder}/a", f"{folder}/b"]
        command += ["--names", given.a, given.b]
        return subprocess.run(command, cwd=project, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
