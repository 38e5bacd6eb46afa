"""A project with flows, engine and one stage of cells of its own, as a checkout of the real one would be."""

import shutil
import sys
from pathlib import Path
from typing import Any

from flow_project import ROOT, commit, run
from ruamel.yaml import YAML

TOY = ROOT / "tests" / "engine" / "project"
NEEDED = ("tasks/__init__.py", "mipriv/__init__.py", "mipriv/errors.py", "mipriv/plugin.py")
# Where a cell ran: a worker's parent is its node. Long enough that one node cannot have them all.
MARK = """
    with Path(os.environ["MIPRIV_MARKS"], f"{{kind}}-{{seed}}").open("a") as file:
        file.write(f"{{os.getppid()}}\\n")
    time.sleep({seconds})
"""


def make(project: Path, seeds: int, seconds: float) -> Path:
    """Two rows of `seeds` cells each, which take so long and leave a line in the folder MIPRIV_MARKS."""
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(TOY, project, ignore=skip)
    (project / "pipeline.yaml").rename(project / "dvc.yaml")
    for folder in ("flows", "tasks/engine"):
        shutil.copytree(ROOT / folder, project / folder, ignore=skip)
    for name in NEEDED:
        shutil.copy(ROOT / name, project / name)
    toy = project / "tasks/toy.py"
    text = toy.read_text()
    assert text.count("    plus = ") == 1
    toy.write_text(text.replace("    plus = ", f"{MARK.format(seconds=seconds)}    plus = "))
    with (project / "dvc.yaml").open("a") as file:
        file.write("artifacts: {events: {path: out/events}}\n")
    (project / ".gitignore").write_text("/out/\n.cells/\n.prefect/\n.services/\n__pycache__/\nmlflow.db*\n")
    edit(project / "params.yaml", lambda values: values["toy"].update(seeds=list(range(seeds))))
    run(project, "git", "init", "-q")
    run(project, sys.executable, "-m", "dvc", "init", "-q")
    commit(project)
    return project


def edit(file: Path, change: Any) -> None:
    """Change a YAML file in place."""
    yaml = YAML(typ="safe")
    values = yaml.load(file.read_text())
    change(values)
    with file.open("w") as opened:
        yaml.dump(values, opened)


def sums(project: Path) -> dict[str, str]:
    """The final table: what each cell's file says, by its place."""
    out = project / "out/toy"
    return {str(path.relative_to(out)): path.read_text() for path in sorted(out.glob("*/*/sum.txt"))}


def expected(seeds: int) -> dict[str, str]:
    """The same, from the definition of the toy."""
    plus = {"plain": 11.0, "other": 111.0}
    return {f"{row}/seed-{seed}/sum.txt": str(seed + plus[row]) for row in plus for seed in range(seeds)}


def computed(marks: Path) -> dict[str, list[int]]:
    """For each cell, the parent process of each time that it was begun."""
    return {file.name: [int(line) for line in file.read_text().split()] for file in marks.iterdir()}
