"""Stages as `dvc.yaml` has them, scales as their files say, targets as the Makefile says."""

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

from made_reference import cell, first
from ruamel.yaml import YAML

TARGET = re.compile(r"^([a-z]+):.*?##\s*(.*)$", re.MULTILINE)


def stages(root: Path) -> str:
    """A line a stage: its rows, what it does, what it leaves, where its code is."""
    lines = ["| stage | rows | what it does | leaves |", "| --- | --- | --- | --- |"]
    for name, stage in loaded(root / "dvc.yaml")["stages"].items():
        body = stage.get("do", stage)
        module = importlib.import_module(f"tasks.{name}")
        said = first(inspect.getdoc(module) or "").partition(": ")[2].rstrip(".")
        rows = f"`{name}.rows`" if "do" in stage else "one"
        outs = " ".join(f"`{path}`".replace("${key}", "ROW") for path in map(place, body["outs"]))
        lines.append(f"| `{name}` | {rows} | {cell(said)} | {outs} |")
    return "\n".join(lines)


def place(out: Any) -> str:
    """Of an output, which may have options."""
    return next(iter(out)) if isinstance(out, dict) else str(out)


def scales(root: Path) -> str:
    """Every file of `scales/`, with what it says of itself at its top."""
    parts = []
    for path in sorted((root / "scales").rglob("*.yaml")):
        name = path.relative_to(root / "scales").with_suffix("").as_posix()
        top = []
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                break
            top.append(line.removeprefix("#").strip())
        parts.append(
            f"## {name}\n\n```sh\npython -m flows.scale {name}\n```\n\n```text\n" + "\n".join(top) + "\n```"
        )
    return "\n\n".join(parts)


def guides(root: Path) -> str:
    """A row for each guide of `docs/howto` that its index does not name itself."""
    folder = root / "docs" / "howto"
    index = (folder / "index.md").read_text(encoding="utf-8")
    rows = []
    for path in sorted(folder.glob("*.md")):
        if path.stem != "index" and f"]({path.name})" not in index:
            title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
            rows.append(f"| {cell(title[:1].lower() + title[1:])} | [its guide]({path.name}) |")
    return "\n".join(rows)


def commands(root: Path) -> str:
    """Targets of the Makefile."""
    found = TARGET.findall((root / "Makefile").read_text(encoding="utf-8"))
    lines = ["| command | what it does |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| `make {name}` | {cell(said)} |" for name, said in found)])


def loaded(path: Path) -> Any:
    """YAML."""
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
