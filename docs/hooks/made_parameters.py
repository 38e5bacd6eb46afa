"""Keys of `params.yaml`, block by block, from the models that refuse wrong ones."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from made_reference import cell
from pydantic import TypeAdapter

from tasks.checks.parameters import Parameters
from tasks.engine import params, schematext

DEEP = 4  # keys further down belong to plug-ins
ANY = "NAME"


def blocks(root: Path) -> str:
    """A heading a block, and a line a key: what is allowed there, and what the desk scale says."""
    values = params.load(root / params.FILE)
    typed = {name: block for name, block in vars(Parameters(values)).items() if name in values}
    return "\n\n".join(block(name, typed[name], values[name]) for name in values)


def block(name: str, typed: params.Block, value: Any) -> str:
    """One block."""
    schema = TypeAdapter(type(typed)).json_schema()
    lines = ["| key | allowed | for example |", "| --- | --- | --- |"]
    for path, needed in keys(schema, []):
        if said := told(schema, path):
            example = next(iter(found(value, path)), None)
            shown = "" if example is None else f"`{example}`"
            optional = "" if needed else " (may be left out)"
            lines.append(f"| `{'.'.join(path)}` | {cell(said)}{optional} | {cell(shown)} |")
    said = " ".join((inspect.getdoc(type(typed)) or "").split())
    return "\n".join([f"## {name}", "", said, "", *lines])


def told(schema: dict[str, Any], path: list[str]) -> str:
    """What a key holds: a block in its own words, else what is allowed; empty of a mere mapping."""
    node = schematext.at(schema, path)
    if "properties" in node and "description" in node:
        return " ".join(node["description"].partition("\n\nAttributes:")[0].split())
    allowed = schematext.describe(node)
    if allowed == "mapping" and isinstance(node.get("additionalProperties"), dict):
        return ""
    said = field(schematext.at(schema, path[:-1]).get("description", ""), path[-1])
    return f"{allowed}: {said}" if said else allowed


def field(docstring: str, name: str) -> str:
    """What the section `Attributes` of a docstring says of a field, in one line."""
    _, _, attributes = docstring.partition("\nAttributes:\n")
    match = re.search(rf"^    {name}: (.*(?:\n {{5,}}.*)*)", attributes, re.MULTILINE)
    return re.sub(r"\bNone\b", "null", " ".join(match[1].split())) if match else ""


def keys(schema: dict[str, Any], path: list[str]) -> Iterator[tuple[list[str], bool]]:
    """Paths of keys, and whether each must be there; ``NAME`` stands for names that a person chooses."""
    node = schematext.at(schema, path)
    branches = node.get("anyOf", [node])
    for branch in (schematext.at({**branch, "$defs": node["$defs"]}, []) for branch in branches):
        for key in branch.get("properties", {}):
            yield [*path, key], key in branch.get("required", [])
            if len(path) + 1 < DEEP:
                yield from keys(schema, [*path, key])
        if isinstance(branch.get("additionalProperties"), dict) and len(path) < DEEP:
            yield [*path, ANY], True
            yield from keys(schema, [*path, ANY])


def found(value: Any, path: list[str]) -> Iterator[str]:
    """What stands at a path, where that is one short value, of every name that has it."""
    if not path:
        if not isinstance(value, dict):
            yield schematext.short(value).replace("None", "null").replace("'", "")
        return
    step, rest = path[0], path[1:]
    if isinstance(value, dict):
        for inside in value.values() if step == ANY else [value[step]] if step in value else []:
            yield from found(inside, rest)
