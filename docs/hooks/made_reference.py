"""Plug-ins of a family, by the names of their files, and modules of a package, as mkdocstrings reads them."""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path

from mipriv import plugin

PLUGINS = re.compile(r"^<!-- made: plugins (\w+) -->$", re.MULTILINE)


def plugins(family: str) -> str:
    """The package that says what the family is handed, then every plug-in of it."""
    package = plugin.FAMILIES[family]
    return "\n\n".join([whole(package), *(whole(f"{package}.{name}") for name in plugin.names(family))])


def others(root: Path) -> str:
    """Families that no page has of its own, so that a new one is found here at once."""
    pages = (path.read_text(encoding="utf-8") for path in sorted((root / "docs" / "reference").glob("*.md")))
    named = {family for page in pages for family in PLUGINS.findall(page)}
    left = [family for family in plugin.FAMILIES if family not in named]
    return "\n\n".join(part for family in left for part in (f"## {family}", table(family), plugins(family)))


def modules(root: Path, package: str) -> str:
    """A package, or one module alone; then its public modules, by name."""
    folder = root / package.replace(".", "/")
    found = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    return "\n\n".join([whole(package), *(whole(f"{package}.{name}") for name in found)])


def whole(module: str) -> str:
    """Everything public of a module, under its dotted name without the project's."""
    heading, label = module.removeprefix("mipriv."), module.rpartition(".")[2]
    return f"::: {module}\n    options: {{heading: '{heading}', toc_label: '{label}'}}"


def table(family: str) -> str:
    """Plug-ins of a family in a line each: what one is, and its knobs with their defaults."""
    lines = ["| name | what it is | knobs and defaults |", "| --- | --- | --- |"]
    for name in plugin.names(family):
        cls = plugin.find(family, name)
        module = importlib.import_module(f"{plugin.FAMILIES[family]}.{name}")
        said = first(inspect.getdoc(module) or "")
        lines.append(f"| `{name}` | {cell(said)} | {cell(', '.join(map(knob, dataclasses.fields(cls))))} |")
    return "\n".join(lines)


def knob(field: "dataclasses.Field[object]") -> str:
    """A knob as it stands in `params.yaml`; one without a default by its name."""
    if not field.init or field.name.startswith("_"):
        return ""
    if field.default is not dataclasses.MISSING:
        return f"`{field.name}: {field.default!r}`"
    return f"`{field.name}`" + (" (own)" if field.default_factory is not dataclasses.MISSING else "")


def first(text: str) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join(text.partition("\n\n")[0].split())


def cell(text: str) -> str:
    """Text that a table's cell can hold."""
    return text.replace("|", "\\|")
