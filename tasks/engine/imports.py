"""DVC does not see Python imports: what a stage imports is held against what its ``deps`` name."""

import ast
import functools
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from mipriv.errors import InputError

PACKAGES = ("mipriv", "tasks", "flows")


def named_by_dvc(address: str, root: Path) -> tuple[Path, ...]:
    """Project sources (files or folders, relative to `root`) among the deps of a stage, templates expanded by
    DVC.

    Costs about 0.5 s, most of it the import of DVC. What dvc.lock remembers of earlier runs is not read: of
    many stages that would cost a second more, and another DVC may be writing it.

    Raises:
        InputError: `root` is no DVC project or not the one that this code is in, or dvc.yaml has no such
            stage.
    """
    from dvc.dvcfile import load_file
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    if not Path(__file__).resolve().is_relative_to(root.resolve()):
        raise InputError(
            f"{root}: not the project that holds tasks/engine; stages run in the project's own folder"
        )
    try:
        with Repo(str(root)) as repo:
            file = load_file(repo, os.path.relpath(root / "dvc.yaml"))
            deps = file.LOADER(file, file.contents, {})[address].deps
            paths = [Path(dep.fs_path) for dep in deps if dep.protocol == "local"]
    except DvcException as error:
        raise InputError(f"dvc.yaml: {address}: {' '.join(str(error).split())}") from error
    inside = (path.relative_to(root.resolve()) for path in paths if path.is_relative_to(root.resolve()))
    return tuple(sorted({path for path in inside if path.parts[0] in PACKAGES}))


def files(sources: Iterable[Path], root: Path) -> list[Path]:
    """Files behind `sources`, folders expanded, relative to `root` and sorted; no bytecode."""
    found: set[Path] = set()
    for source in sources:
        below = (root / source).rglob("*") if (root / source).is_dir() else [root / source]
        found |= {
            path.relative_to(root) for path in below if path.is_file() and path.parent.name != "__pycache__"
        }
    return sorted(found)


def check(address: str, sources: tuple[Path, ...], root: Path) -> None:
    """Refuse a process that has imported a project file which `sources` do not cover.

    Raises:
        InputError: naming the stage and the files.
    """
    missing = [
        path for path in _imported(root) if not {path, *path.parents} & set(sources) and _says(root / path)
    ]
    if missing:
        names = ", ".join(path.as_posix() for path in missing)
        raise InputError(f"dvc.yaml: {address}: imports {names}, which its deps do not name; add them there")


def _imported(root: Path) -> list[Path]:
    here = root.resolve()
    origins = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    paths = {_resolve(origin) for origin in origins if origin}
    inside = (path.relative_to(here) for path in paths if path.is_relative_to(here))
    return sorted(path for path in inside if path.parts[0] in PACKAGES)


@functools.cache
def _resolve(origin: str) -> Path:
    return Path(origin).resolve()


def _says(path: Path) -> bool:
    """Whether a source holds any statement but a docstring."""
    if path.suffix != ".py":
        return True
    body = ast.parse(path.read_bytes()).body
    return not all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)
