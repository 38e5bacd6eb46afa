"""A JSON schema in words, for the "allowed: ..." of an error line."""

import reprlib
from collections.abc import Sequence
from typing import Any

Step = int | str
WORDS = {"boolean": "true or false", "array": "list", "object": "mapping"}
BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60


def short(value: object) -> str:
    """`repr` of a value, cut to a length that fits an error line."""
    return _short.repr(value)


def locate(loc: Sequence[Step], value: object) -> tuple[list[Step], object, bool]:
    """Follow pydantic's error location through the value that was given.

    Pydantic mixes the names of union branches into a location; a step that is no key of the value is one.

    Returns:
        The path that exists in the value, what lies there, and whether a union branch was stepped over last.
    """
    path: list[Step] = []
    stepped_over = False
    for step in loc:
        stepped_over = not _is_in(step, value)
        if not stepped_over:
            path.append(step)
            value = value[step]  # type: ignore[index]
    return path, value, stepped_over


def _is_in(step: Step, value: object) -> bool:
    if isinstance(value, list):
        return isinstance(step, int) and step < len(value)
    return isinstance(value, dict) and step in value


def at(schema: dict[str, Any], path: Sequence[Step]) -> dict[str, Any]:
    """The schema of what lies at `path`; empty where the schema says nothing of it."""
    definitions = schema.get("$defs", {})
    node = _resolved(schema, definitions)
    for step in path:
        children = (_child(branch, step, definitions) for branch in _branches(node, definitions))
        node = next((child for child in children if child is not None), {})
    return node | {"$defs": definitions}


def _child(node: dict[str, Any], step: Step, definitions: dict[str, Any]) -> dict[str, Any] | None:
    if isinstance(step, int):
        fixed = node.get("prefixItems", [])
        child = fixed[step] if step < len(fixed) else node.get("items")
    else:
        child = node.get("properties", {}).get(step, node.get("additionalProperties"))
    return _resolved(child, definitions) if isinstance(child, dict) else None


def _resolved(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = definitions[node["$ref"].rpartition("/")[2]]
    return node


def _branches(node: dict[str, Any], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    options = node.get("anyOf", node.get("oneOf", [node]))
    return [_resolved(option, definitions) for option in options]


def describe(schema: dict[str, Any]) -> str:
    """What a schema allows, e.g. ``integer > 0``; a field's own words (``allowed`` in its extras) win."""
    definitions = schema.get("$defs", {})
    return " or ".join(
        filter(None, (_describe(branch, definitions) for branch in _branches(schema, definitions)))
    )


def keys(schema: dict[str, Any]) -> list[str]:
    """Keys that a mapping may have, in any branch of a union; a dataclass's own state is none."""
    branches = _branches(schema, schema.get("$defs", {}))
    return [key for branch in branches for key in branch.get("properties", {}) if not key.startswith("_")]


def _describe(node: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "allowed" in node:
        return str(node["allowed"])
    if "enum" in node or "const" in node:
        return ", ".join(str(value) for value in node.get("enum", [node.get("const")]))
    if "properties" in node:
        return f"mapping of {', '.join(keys(node))}"
    kind = node.get("type", "")
    words = [WORDS.get(kind, kind), *(f"{sign} {node[key]}" for key, sign in BOUNDS.items() if key in node)]
    if "pattern" in node:
        words.append(f"like {node['pattern']}")
    if kind == "array":
        words.append(_items(node, definitions))
    return " ".join(filter(None, words))


def _items(node: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "prefixItems" in node:
        items = [_inner(item, definitions) for item in node["prefixItems"]]
        return f"of {len(items)}: {', '.join(items)}"
    low, high = node.get("minItems", 0), node.get("maxItems")
    size = f"{low} or more " if low and high is None else f"{low} to {high} " if high is not None else ""
    return f"of {size}{_inner(node.get('items', {}), definitions)}".rstrip().removesuffix("of")


def _inner(node: dict[str, Any], definitions: dict[str, Any]) -> str:
    return describe(node | {"$defs": definitions})
