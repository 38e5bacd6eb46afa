"""MkDocs hook: equations as MathML, made at build time, so that no page needs a script or a font for them.

`pymdownx.arithmatex` (generic) leaves TeX in elements of its class; browsers draw MathML by themselves.
"""

import html
import re
from typing import Any
from xml.etree import ElementTree

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

TEX = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL)
NORM = "<mo>&#x02016;"  # would grow to its exponent, and sink
PARTS = {"mfrac": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "msubsup": 3, "munderover": 3}


def drawn(tex: str, *, block: bool) -> str:
    """TeX as one MathML element.

    Raises:
        PluginError: a command that the converter does not know, or one that lacks a part: it would print the
            one as it stands, and the other with a hole.
    """
    try:
        found = convert(tex.strip(), display="block" if block else "inline")
    except Exception as error:
        raise PluginError(f"equation {tex!r}: {type(error).__name__} {error}") from error
    for element in ElementTree.fromstring(found).iter():
        name = element.tag.rpartition("}")[2]
        if len(element) != PARTS.get(name, len(element)):
            raise PluginError(f"equation {tex!r}: {name} has {len(element)} parts of {PARTS[name]}")
    if unknown := re.search(r">\\([A-Za-z]+)", found):
        raise PluginError(f"equation {tex!r}: \\{unknown[1]} is not known")
    return found.replace(NORM, NORM.replace("<mo>", '<mo stretchy="false">'))


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """See https://www.mkdocs.org/dev-guide/plugins/#events."""

    def replaced(match: re.Match[str]) -> str:
        block = match["tag"] == "div"
        element = drawn(html.unescape(match["tex"]), block=block)
        return f'<div class="equation">{element}</div>' if block else element

    try:
        return TEX.sub(replaced, content)
    except PluginError as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from error
