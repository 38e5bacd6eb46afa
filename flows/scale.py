"""The same project at another scale: a copy below `.scales/NAME` with some parameters overridden.

The copy has its own outputs and records, and shares DVC's cache: the working tree's `params.yaml`,
`dvc.lock` and results stay what they are.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from flows import project, whole

SCALES = Path("scales")
KEPT = {".dvc", ".git", "out", ".cells", ".prefect", "mlflow.db", "mlartifacts", "dvc.lock"}


def override(values: dict[str, Any], changes: dict[str, Any], where: str) -> None:
    """Replace values by dotted keys, in place.

    A key must be there already, so that a misspelt one is no silent addition; a mapping replaces a mapping
    whole, so that rows can be left out.
    """
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        block: Any = values
        for name in parents:
            block = block.get(name) if isinstance(block, dict) else None
        if not isinstance(block, dict) or last not in block:
            project.fail(f"{where}: {dotted!r} is no key of params.yaml")
        block[last] = value


def copy(source: Path, target: Path) -> None:
    """Bring the target's sources up to the source's, leaving its results, records and lock alone."""
    target.mkdir(parents=True, exist_ok=True)
    for path in target.iterdir():
        if path.name not in KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in project.files(source):
        if name == "dvc.lock" and (target / name).exists():
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, target / name)
    if not (target / ".git").exists():
        subprocess.run(["git", "init", "--quiet"], cwd=target, check=True)
    cache = os.path.relpath(source / ".dvc" / "cache", target)  # DVC reads it from the working directory
    subprocess.run(project.dvc("config", "--local", "cache.dir", cache), cwd=target, check=True)


def prepare(source: Path, name: str, target: Path) -> None:
    """A copy of the project at the scale `scales/NAME.yaml`; a name may have a folder, as `papers/kedmi`."""
    scales = source / SCALES
    known = sorted(path.relative_to(scales).with_suffix("").as_posix() for path in scales.rglob("*.yaml"))
    if name not in known:
        project.fail(f"scale {name!r} does not exist; allowed: {', '.join(known)}")
    copy(source, target)
    yaml = YAML(typ="safe")
    values = yaml.load((source / "params.yaml").read_text(encoding="utf-8"))
    override(
        values,
        yaml.load((scales / f"{name}.yaml").read_text(encoding="utf-8")),
        f"{SCALES / name}.yaml",
    )
    with (target / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(values, file)


def overridden(source: Path, changes: dict[str, Any]) -> Path:
    """A copy of the project with other parameters, named by their hash, with the results that stay valid.

    Returns:
        The copy, below `.scales`; the same for the same changes, with what it computed before.
    """
    yaml = YAML(typ="safe")
    values = yaml.load((source / "params.yaml").read_text(encoding="utf-8"))
    override(values, changes, "overrides")
    digest = hashlib.sha256(json.dumps(changes, sort_keys=True).encode()).hexdigest()
    target = source / ".scales" / f"flow-{digest[:8]}"
    copy(source, target)
    with (target / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(values, file)
    # One process takes what is known from the cache, instead of one a stage.
    restore = project.dvc("checkout", "--quiet", "--force", "--allow-missing")
    subprocess.run(restore, cwd=target, stderr=subprocess.DEVNULL, check=False)
    return target


def main() -> int:
    """Command line: the scale, optionally stages of it, and where its copy goes."""
    parser = argparse.ArgumentParser(prog="python -m flows.scale", allow_abbrev=False)
    parser.add_argument("name", help="a file below scales/, without its ending: grid, papers/kedmi")
    parser.add_argument("stages", nargs="*", help="stages, rows of them, or rows alone; none: all")
    parser.add_argument("--to", type=Path, help="folder of the copy; default: .scales/NAME")
    given = parser.parse_args()
    source = project.root()
    target = (given.to or source / ".scales" / given.name).absolute()
    prepare(source, given.name, target)
    # A cell is known by its content, so what one scale has computed serves the others.
    os.environ.setdefault("MIPRIV_CELLS", str(source / ".cells"))
    os.chdir(target)
    return whole.run(target, given.stages)


if __name__ == "__main__":
    raise SystemExit(main())
