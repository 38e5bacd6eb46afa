"""DVC does not see Python imports: what a stage imports is held against what its ``deps`` name."""

import ast
import contextlib
import functools
import hashlib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from mipriv.errors import InputError
from tasks.engine import sealed

PACKAGES = ("mipriv", "tasks", "flows")


def named_by_dvc(address: str, root: Path) -> tuple[Path, ...]:
    """Project sources (files or folders, relative to `root`) among the deps of a stage, templates expanded by
    DVC.

    DVC is asked once, about all stages: its import costs more than half a second. What it said is kept in its
    own folder of temporary files, for as long as dvc.yaml and params.yaml stay as they are. What dvc.lock
    remembers of earlier runs is not read: of many stages that would cost a second more, and another DVC may
    be writing it.

    Raises:
        InputError: `root` is no DVC project or not the one that this code is in, or dvc.yaml has no such
            stage.
    """
    if not Path(__file__).resolve().is_relative_to(root.resolve()):
        raise InputError(
            f"{root}: not the project that holds tasks/engine; stages run in the project's own folder"
        )
    kept = _kept(root)
    sources = _remembered(kept, address) if kept else None
    if sources is None:
        named = _ask(address, root)
        sources = named[address]
        if kept:
            with contextlib.suppress(OSError):  # it is there to save time
                part = kept.with_name(f"{kept.name}.{os.getpid()}")
                part.write_text(json.dumps(named), encoding="utf-8")
                part.replace(kept)
    return tuple(Path(source) for source in sources)


def _kept(root: Path) -> Path | None:
    """Where DVC's answer is kept; None where it depends on further files, or there are none to name it by."""
    try:
        texts = [(root / name).read_bytes() for name in ("dvc.yaml", "params.yaml")]
    except OSError:
        return None
    if b"vars:" in texts[0] or not (root / ".dvc" / "tmp").is_dir():
        return None
    digest = hashlib.sha256(b"\0".join(texts)).hexdigest()
    return root / ".dvc" / "tmp" / f"sources-{digest[:32]}.json"


def _remembered(kept: Path, address: str) -> list[str] | None:
    """What is kept of a stage, if it is of use."""
    try:
        named = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    sources = named.get(address) if isinstance(named, dict) else None
    return sources if isinstance(sources, list) else None


def _ask(address: str, root: Path) -> dict[str, list[str]]:
    """Sources of every stage, by address."""
    from dvc.dvcfile import load_file
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    here = root.resolve()
    try:
        with Repo(str(root)) as repo:
            file = load_file(repo, os.path.relpath(root / "dvc.yaml"))
            stages = file.LOADER(file, file.contents, {})
            deps = {name: stages[name].deps for name in {address, *stages}}
            paths = {
                name: [Path(dep.fs_path) for dep in own if dep.protocol == "local"]
                for name, own in deps.items()
            }
    except DvcException as error:
        raise InputError(f"dvc.yaml: {address}: {' '.join(str(error).split())}") from error
    return {name: _sources(own, here) for name, own in paths.items()}


def _sources(paths: Iterable[Path], here: Path) -> list[str]:
    inside = {path.relative_to(here) for path in paths if path.is_relative_to(here)}
    return [path.as_posix() for path in sorted(inside) if path.parts[0] in PACKAGES]


def files(sources: Iterable[Path], root: Path) -> list[Path]:
    """Files behind `sources`, folders expanded, relative to `root` and sorted; no bytecode."""
    found: set[Path] = set()
    for source in sources:
        if (root / source).is_dir():
            below = (Path(source, name) for name in sealed.walk(root / source))
            found |= {path for path in below if path.parent.name != "__pycache__"}
        elif (root / source).is_file():
            found.add(Path(source))
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
    # Not by getattr, which asks modules that load something then.
    origins = (getattr(module, "__dict__", {}).get("__file__") for module in list(sys.modules.values()))
    return sorted({path for origin in origins if origin and (path := _inside(origin, here))})


@functools.cache  # of thousands of modules, at the end of every cell
def _inside(origin: str, root: Path) -> Path | None:
    """The project's own file behind a module, relative to the project; None: it is none."""
    path = Path(origin).resolve()
    if not path.is_relative_to(root):
        return None
    relative = path.relative_to(root)
    return relative if relative.parts[0] in PACKAGES else None


def _says(path: Path) -> bool:
    """Whether a source holds any statement but a docstring."""
    if path.suffix != ".py":
        return True
    body = ast.parse(path.read_bytes()).body
    return not all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)
