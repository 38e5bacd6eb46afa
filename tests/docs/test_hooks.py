"""What the site is made with: each hook by itself, on right and wrong input."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import generated
import made_claims
import made_project
import made_reference
import mathml
import navigation
import pytest
from leaving import target
from mkdocs.exceptions import PluginError

from tasks.tables import write_csv
from tests.report.leakage_lines import table

ROOT = Path(__file__).parents[2]
PAGE = SimpleNamespace(file=SimpleNamespace(src_uri="some/page.md"))


def test_equations_become_mathml() -> None:
    inline, block = r"\(a &lt; b\)", "\\[\n\\frac{1}{2}\n\\]"
    found = mathml.on_page_content(
        f'<p><span class="arithmatex">{inline}</span></p><div class="arithmatex">{block}</div>', PAGE
    )
    assert "arithmatex" not in found and found.count("<math") == 2
    assert "<mfrac>" in found and 'display="block"' in found and "&#x0003C;" in found


@pytest.mark.parametrize("tex", [r"\arg x", r"\nosuch{x}", r"\frac{1}", r"\left( x"])
def test_an_equation_that_cannot_be_drawn_ends_the_build(tex: str) -> None:
    with pytest.raises(PluginError, match=r"page\.md: equation"):
        mathml.on_page_content(f'<span class="arithmatex">\\({tex}\\)</span>', PAGE)


def test_a_star_stands_for_the_pages_that_nothing_names(tmp_path: Path) -> None:
    (tmp_path / "howto").mkdir()
    for name in ("a", "b", "early", "howto/c", "howto/d"):
        (tmp_path / f"{name}.md").write_text("# x")
    nav = [{"A": "a.md"}, {"How": [{"C": "howto/c.md"}, "howto/*", "e*"]}, "*"]
    found = navigation.expanded(nav, tmp_path, set(navigation.named(nav)))
    assert found == [{"A": "a.md"}, {"How": [{"C": "howto/c.md"}, "howto/d.md", "early.md"]}, "b.md"]


def test_only_files_of_the_project_outside_docs_are_carried() -> None:
    config = SimpleNamespace(docs_dir=str(ROOT / "docs"), config_file_path=str(ROOT / "mkdocs.yml"))
    assert target("results.md", "../scales/grid.yaml", config) == Path("scales/grid.yaml")
    assert target("howto/scale.md", "../../params.yaml", config) == Path("params.yaml")
    assert target("howto/scale.md", "../split.md", config) is None
    assert target("results.md", "../nothing.yaml", config) is None
    assert target("results.md", "../../../../../../../etc/passwd", config) is None


def test_an_unknown_mark_ends_the_build() -> None:
    with pytest.raises(PluginError, match="allowed: claims, commands"):
        generated.on_page_markdown("<!-- made: nothing -->", PAGE)
    assert "`make run`" in generated.on_page_markdown("x\n\n<!-- made: commands -->\n\ny", PAGE)


def test_a_family_without_a_page_is_found_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "docs" / "reference").mkdir(parents=True)
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        shutil.copy(page, tmp_path / "docs" / "reference")
    before = made_reference.others(tmp_path)
    assert "## membership" not in before
    (tmp_path / "docs" / "reference" / "membership.md").unlink()
    after = made_reference.others(tmp_path)
    assert (
        "## membership" in after and "| `lira` |" in after and "::: mipriv.attacks.membership.lira" in after
    )


def test_parameters_have_what_the_models_allow() -> None:
    page = generated.on_page_markdown("<!-- made: parameters -->", PAGE)
    assert "| `seed` | integer >= 0 | `0` |" in page
    assert "| `rows.NAME.arms.NAME.cem` |" in page
    assert "| `device` | auto, cpu, cuda or cuda:N | `auto` |" in page
    assert "| `rows.NAME.split.train` | integer: images a private person. | `5` |" in page
    assert "None" not in page


def test_a_stage_of_rows_says_where_its_rows_are() -> None:
    page = made_project.stages(ROOT)
    assert "| `invert` | `invert.rows` | model inversion of victims" in page and "`out/invert/ROW`" in page
    assert "| `evaluate` | one |" in page


def test_a_guide_that_the_index_does_not_name_is_listed(tmp_path: Path) -> None:
    folder = tmp_path / "docs" / "howto"
    folder.mkdir(parents=True)
    (folder / "index.md").write_text("[x](old.md)")
    for name in ("old", "new"):
        (folder / f"{name}.md").write_text(f"# Audit {name}\n\ntext")
    assert made_project.guides(tmp_path) == "| audit new | [its guide](new.md) |"


def test_claims_without_a_run_say_so_and_with_one_have_a_verdict(tmp_path: Path) -> None:
    for name in ("claims", "dvc.yaml"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    page = made_claims.published(tmp_path)
    assert made_claims.NO_RUN in page and "**held**" not in page
    names = tmp_path / "claims" / "rows.json"
    names.write_text(names.read_text().replace("tl_dmi-last", "frozen"))
    found = table(plain="ppa-none", guarded="ppa-frozen")
    write_csv(tmp_path / "out" / "evaluate" / "leakage.csv", [line.flat() for line in found.lines])
    page = made_claims.published(tmp_path)
    assert made_claims.NO_RUN not in page
    assert "**held**: accuracy@1 of `ppa-frozen`" in page and "**not run**" in page
