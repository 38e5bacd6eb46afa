"""A page and its pictures, from a template: one offline file that needs nothing beside it."""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.engine.stage import Stage

TEMPLATES = Path(__file__).parent / "templates"


def html(template: str, page: Mapping[str, Any]) -> str:
    """The page; what the template asks for and `page` lacks is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["minus"] = lambda text: re.sub(r"(?<![\w.-])-(?=\d)", "\N{MINUS SIGN}", text)
    environment.filters["json"] = json.dumps
    return environment.get_template(f"{template}.html.jinja").render(page)


def uri(picture: bytes) -> str:
    """A PNG as part of a page."""
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def leave(stage: Stage[Any], texts: Mapping[str, str], shown: Mapping[str, bytes]) -> None:
    """Write texts by file name and pictures by name, and record all of them."""
    stage.out.mkdir(parents=True, exist_ok=True)
    for name, picture in shown.items():
        path = stage.out / f"{name}.png"
        path.write_bytes(picture)
        stage.events.artifact(path, "image")
    for name, text in texts.items():
        path = stage.out / name
        path.write_text(text, encoding="utf-8")
        stage.events.artifact(path)


def parameters(block: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Parameters by dotted name; a list stays one value."""
    for key, value in block.items():
        if isinstance(value, Mapping) and value:
            yield from parameters(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
