"""MkDocs hook: an entry ``FOLDER/*`` of the navigation stands for the pages there that no other entry names.

So a new page is found by its file's name, titled by its own first heading.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any


def named(nav: Any) -> Iterator[str]:
    """Every page that a navigation names."""
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from named(entry)


def expanded(nav: Any, docs: Path, known: set[str]) -> Any:
    """The same navigation with stars written out; `known` gains what each of them took."""
    if isinstance(nav, dict):
        return {title: expanded(entry, docs, known) for title, entry in nav.items()}
    if not isinstance(nav, list):
        return nav
    found: list[Any] = []
    for entry in nav:
        if isinstance(entry, str) and entry.endswith("*"):
            pages = (path.relative_to(docs).as_posix() for path in sorted(docs.glob(f"{entry}.md")))
            taken = [page for page in pages if page not in known]
            known |= set(taken)
            found += taken
        else:
            found.append(expanded(entry, docs, known))
    return found


def on_config(config: Any, **_: Any) -> Any:
    """Before any page is read."""
    config.nav = expanded(config.nav, Path(config.docs_dir), set(named(config.nav)))
    return config
