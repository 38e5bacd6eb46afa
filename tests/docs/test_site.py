"""The built site: complete by the folders that it documents, and loaded from nowhere else."""

import html
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mipriv import plugin

ROOT = Path(__file__).parents[2]
FAMILIES = {
    "inversion": "inversion",
    "reconstruction": "reconstruction",
    "membership": "membership",
    "defense": "defenses",
    "source": "sources",
    "classifier": "models",
    "prior": "models",
    "embedder": "models",
}
# What a browser fetches by itself: of elements, of styles, of scripts.
LOADS = (
    re.compile(r'<(?:script|img|iframe|audio|video|source|embed|object)\b[^>]*?\b(?:src|data)="([^"]+)"'),
    re.compile(
        r'<link\b(?=[^>]*rel="(?:stylesheet|icon|preload|preconnect|dns-prefetch|manifest)")[^>]*href="([^"]+)"'
    ),
    re.compile(r"url\(\s*[\"']?([^)\"']+)"),
    re.compile(r"@import\s+[\"']([^\"']+)"),
)
# The theme's script would fetch these for browsers without ResizeObserver, and for diagrams: there are none.
KNOWN_OF_THEME = {
    "https://unpkg.com/resize-observer-polyfill",
    "https://unpkg.com/mermaid@11/dist/mermaid.min.js",
}


def text(site: Path, page: str) -> str:
    """A page's words, without its elements."""
    raw = (site / f"{page}.html").read_text(encoding="utf-8")
    return html.unescape(re.sub(r"<[^>]+>", "", raw))


def outside(address: str) -> bool:
    """Whether a browser would ask another machine for it."""
    return bool(re.match(r"(https?:)?//", address))


@pytest.mark.parametrize(
    "fragment",
    [
        '<script src="https://example.org/a.js">',
        '<link href="//example.org/a.css" rel="stylesheet">',
        '<link rel="preconnect" href="https://example.org">',
        "@font-face{src:url(https://example.org/a.woff)}",
        '@import "https://example.org/a.css";',
        '<img alt="a" src="https://example.org/a.png">',
    ],
)
def test_what_a_browser_fetches_is_found(fragment: str) -> None:
    assert [found for pattern in LOADS for found in pattern.findall(fragment) if outside(found)]


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        raw = path.read_text(encoding="utf-8")
        found = [address for pattern in LOADS for address in pattern.findall(raw) if outside(address)]
        assert not found, (path, found)
    for path in site.rglob("*.js"):
        fetched = set(
            re.findall(r"https?://unpkg[^\"'`]+|https?://[^\"'`\s]*(?:cdn|fonts)[^\"'`\s]*", path.read_text())
        )
        assert fetched <= KNOWN_OF_THEME, (path, fetched)
    assert not [
        path for path in site.rglob("*.html") if 'class="mermaid"' in path.read_text(encoding="utf-8")
    ]


def test_equations_are_drawn(site: Path) -> None:
    pages = list((site / "explanation").glob("*.html"))
    assert len(pages) == 7
    for path in pages:
        raw = path.read_text(encoding="utf-8")
        assert 'class="arithmatex"' not in raw, path
        assert (
            path.stem == "index"
            or raw.count('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block"') >= 2
        )
    for path in site.rglob("*.html"):
        assert not re.search(
            r"\$\$|\\(frac|mathrm|lVert)", text(site, path.relative_to(site).with_suffix("").as_posix())
        ), path


def test_every_plug_in_has_its_line_and_its_place(site: Path) -> None:
    for family in plugin.FAMILIES:
        page = FAMILIES.get(family, "library")
        raw = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
        for name in plugin.names(family):
            assert f'id="{plugin.FAMILIES[family]}.{name}"' in raw, (family, name)
            assert f"<td><code>{name}</code></td>" in raw, (family, name)


def test_every_public_module_of_the_library_has_its_place(site: Path) -> None:
    known = {
        name
        for path in site.rglob("*.html")
        for name in re.findall(r'id="(mipriv[\w.]*)"', path.read_text(encoding="utf-8"))
    }
    for path in (ROOT / "mipriv").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if not any(part.startswith("_") for part in parts):
            assert ".".join(parts) in known, path


def test_every_stage_block_scale_and_target_is_named(site: Path) -> None:
    stages, parameters = (
        text(site, "reference/stages"),
        (site / "reference" / "parameters.html").read_text(encoding="utf-8"),
    )
    load = YAML(typ="safe").load
    for name in load((ROOT / "dvc.yaml").read_text())["stages"]:
        assert re.search(rf"^{name}$", stages, re.MULTILINE), name
    for name in load((ROOT / "params.yaml").read_text()):
        assert f'<h2 id="{name}">' in parameters, name
    scales = text(site, "reference/scales")
    for path in (ROOT / "scales").rglob("*.yaml"):
        assert f"flows.scale {path.relative_to(ROOT / 'scales').with_suffix('').as_posix()}\n" in scales, path
    commands = text(site, "reference/commands")
    for target in re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE):
        assert f"make {target}\n" in commands, target


def test_shapes_units_errors_and_sources_are_shown(site: Path) -> None:
    raw, words = (
        (site / "reference" / "stats.html").read_text(encoding="utf-8"),
        text(site, "reference/stats"),
    )
    assert "[S, I], a figure a training seed and identity." in words
    assert "Raises:" in words and "InputError" in words
    assert "Source code in" in words and "def paired_difference" in text(site, "reference/stats")
    assert raw.count('class="mkdocstrings-source"') >= 5


def test_every_claim_is_shown_with_its_source(site: Path) -> None:
    from tasks.page import claims

    words = re.sub(r"\s+", " ", text(site, "published"))
    for study in claims.read(ROOT / "claims").studies:
        for claim in study.claims:
            assert re.sub(r"\s+", " ", claim.says) in words, claim.id
            assert claim.source.split()[0] in words and (claim.not_run or "") in words


def test_links_of_the_readme_lead_somewhere() -> None:
    for page in ("README.md", "CONTRIBUTING.md"):
        for link in re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text(encoding="utf-8")):
            assert link.startswith("http") or (ROOT / link).exists(), (page, link)
