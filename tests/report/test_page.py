"""The report, made by its real stage from a small evaluation of six toy people."""

import base64
import csv
import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tasks import leakage
from tasks.engine import events
from tasks.page import pictures, tradeoff
from tests.report.conftest import MINUS, SIDE, Make, Page, shade
from tests.report.leakage_lines import NOTHING, table


def test_what_an_embedding_refuses_is_counted_and_shown(make: Make) -> None:
    page = Page(make(table(embedding="stranger")) / "report.html")
    assert "Accepted, refused by stranger" in page.text and "stranger knows no label" in page.text
    # Two judges accept 75% and 76% of `plain`, and each accepts 12.5% that are refused: 25 of 151.
    assert "plain of what the judges accept, 17% is refused" in page.text
    without = Page(make(table(), out="without") / "report.html")
    assert "refused by" not in without.text and "knows no label" not in without.text


def test_the_cost_of_an_attack_and_how_fragile_a_victim_is_stand_there(make: Make) -> None:
    page = Page(make(table()) / "report.html")
    assert "asked about: 1,200 an identity." in page.text
    assert "asked about: 1,200 an identity after a study of 40." in page.text
    assert "KID 31.25 [25.00, 37.50] thousandths in features of first" in page.text
    assert "tl_dmi: ppa 95% 62.5 [50.0, 75.0]" in page.text
    start = page.text.index("Victims Percent")
    victims = page.text[start : page.text.index("At equal natural")]
    assert victims.count("50.0 [40.0, 60.0]") == 2 and victims.count("25.0 [20.0, 30.0]") == 4


def test_every_row_stands_there_with_its_figures_and_intervals(make: Make) -> None:
    second = {"second": (0.4, 0.2, 0.6)}
    page = Page(make(table(reached=second, change={"second": NOTHING})) / "report.html")
    start = page.text.index("Leakage table Percent")
    whole = page.text[start : page.text.index("How to read it")]
    plain, guarded = whole[: whole.index("guarded ppa")], whole[whole.index("guarded ppa") :]
    assert "natural accuracy 97.5 [90.0, 100.0]" in plain and "4 people, 3 training seeds" in plain
    for figure in ("75.0 [60.0, 90.0]", "76.0 [60.0, 90.0]", "100.0 [90.0, 100.0]", "120.2 [100.0, 140.0]"):
        assert figure in plain, figure
    assert "defence tl_dmi (cut trunk.b), backbone public, natural accuracy 87.5 [80.0, 92.5]" in guarded
    shown = [
        "first 50.0 [30.0, 70.0]",
        f"{MINUS}25.0 [{MINUS}40.0, {MINUS}10.0] leaks less +30.0 [+15.0, +45.0] above its start",
        "second 40.0 [20.0, 60.0]",
        f"{MINUS}5.0 [{MINUS}20.0, +10.0] no effect shown +30.0 [+15.0, +45.0] above its start",
        "mean 25.0 [24.0, 26.0]",
        "guarded, selected only 20.0 [10.0, 30.0]",
        "real 96.0 [95.0, 97.0]",
    ]
    places = [guarded.index(text) for text in shown]
    assert places == sorted(places)


def test_the_page_says_how_it_was_made(make: Make) -> None:
    text = Page(make(table()) / "report.html").text
    assert "arrays, 8 x 8 pixels, grey" in text and "2 public, 4 private" in text and "private/test 4" in text
    assert "none: 3, 1; frozen: 3, 1" in text and "Seed of the attacker 17" in text
    assert "torch 9.9, cpu, abacus" in text and "first 95.0% [90.0, 100.0]" in text
    assert "rows.frozen.knobs.cut" in text and '"trunk.b"' in text
    assert "none 0 1,042 a.0" in text and "frozen 42 1,000 head" in text


def test_the_wall_shows_the_best_pictures_of_the_same_people_in_every_row(make: Make) -> None:
    page = Page(make(table()) / "report.html")
    person = 2 * SIDE + pictures.NEAR + pictures.FAR
    for row, name in enumerate(("plain", "guarded")):
        pixels = page.picture(name)
        assert pixels.shape == (SIDE, 3 * person - pictures.FAR, 3)
        for who in range(3):
            for rank in range(2):
                left = who * person + rank * (SIDE + pictures.NEAR)
                tile = pixels[:, left : left + SIDE]
                assert (tile == round(255 * shade(row, who, rank))).all(), (name, who, rank)
    begun = page.picture("start of plain")
    assert abs(int(begun[0, person, 0]) - 255 * shade(0, 1, 0) / 2) <= 1
    real = page.picture("real, private")
    levels = [int(real[0, who * person, 0]) for who in range(3)]
    folder = Path("data")
    labels, names = np.load(folder / "labels.npy"), json.loads((folder / "names.json").read_text())["labels"]
    train = json.loads((folder / "manifest.json").read_text())["splits"]["private/train"]["indices"]
    people = sorted({names[labels[i]] for i in train})[:3]
    for level, name in zip(levels, people, strict=True):
        own = [i for i in train if names[labels[i]] == name]
        assert round(level * 24 / 255) == own[0]
    assert all(f"<span>{name}</span>" in page.source for name in people)


def test_more_faces_than_there_are_show_those_there_are(make: Make) -> None:
    page = Page(make(table(), report={"faces": 99, "images_a_face": 99}) / "report.html")
    wide = 3 * SIDE + 2 * pictures.NEAR
    assert page.picture("plain").shape[1] == 4 * (wide + pictures.FAR) - pictures.FAR
    assert (page.picture("real, private")[:, 2 * SIDE + pictures.NEAR : wide] == 255).all()


def test_nothing_is_loaded_from_elsewhere_and_every_picture_is_described(make: Make) -> None:
    page = Page(make(table()) / "report.html")
    assert "http:" not in page.source and "https:" not in page.source
    assert "url(" not in page.source and "@import" not in page.source
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    policy = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 7
    for attributes in images:
        assert len(attributes["alt"] or "") > 20
        kind, _, data = (attributes["src"] or "").partition(",")
        assert kind == "data:image/png;base64"
        Image.open(io.BytesIO(base64.b64decode(data))).verify()
    anchors = {a["href"] for tag, a in page.tags if tag == "a"}
    assert anchors == {f"#{a['id']}" for tag, a in page.tags if "id" in a and tag == "h2"}


def test_names_are_text_and_nothing_else(make: Make) -> None:
    name = "<i class=x>|$y_{$ & co"
    out = make(table(guarded=name))
    page = Page(out / "report.html")
    assert "<i class=x>" not in page.source and name in page.text
    rows = (out / "leakage.md").read_text().splitlines()
    (row,) = [line for line in rows if line.startswith("| &lt;i class=x>\\|$y_{$ & co |")]
    assert row.replace("\\|", "").count("|") == rows[0].count("|")


def test_a_second_run_gives_the_same_bytes(make: Make) -> None:
    first, second = make(table(), "one"), make(table(), "two")
    names = sorted(path.name for path in first.iterdir())
    assert names == ["account.png", "attacks.png", "faces.png", "leakage.md", "report.html", "tradeoff.png"]
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_pictures_and_page_are_recorded(make: Make) -> None:
    lines = events.read(make(table()).with_suffix(".jsonl"))
    kinds = {line["name"]: line["kind"] for line in lines if line["event"] == "artifact"}
    assert kinds == {
        "faces.png": "image",
        "attacks.png": "image",
        "tradeoff.png": "image",
        "account.png": "image",
        "report.html": "file",
        "leakage.md": "file",
    }


def test_the_markdown_table_has_every_attack_and_floor(make: Make) -> None:
    lines = (make(table()) / "leakage.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {len(row) for row in rows} == {7}
    expected = ["guarded", "frozen", "87.5 [80.0, 92.5]", "50.0 [30.0, 70.0]", "-25.0 [-40.0, -10.0]"]
    assert rows[3][:5] == expected
    assert [row[0] for row in rows[2:]] == [
        "plain", "guarded", "floor: mean", "floor: plain, selected only", "floor: guarded, selected only",
        "ceiling: real",
    ]  # fmt: skip


def test_sentences_reach_the_page(make: Make) -> None:
    page = Page(make(table(change=dict.fromkeys(("first", "second"), NOTHING))) / "report.html")
    assert "No effect could be shown: guarded." in page.text
    assert f"{MINUS}5.0 [{MINUS}20.0, +10.0] points (first)" in page.text
    assert "leaks less" not in page.text and "Leaks less" not in page.text


def test_large_faces_are_made_small_and_colours_stay() -> None:
    images = torch.zeros(2, 1, 3, 300, 200)
    images[:, :, 0] = 1.0
    pixels = pictures.strip(images, width=2)
    side = round(200 * pictures.TILE / 300)
    assert pixels.shape == (pictures.TILE, 2 * (2 * side + pictures.NEAR) + pictures.FAR, 3)
    assert (pixels[:, :side] == (255, 0, 0)).all() and (pixels[:, side : 2 * side] == 255).all()


def test_a_crowd_of_equal_points_can_be_drawn() -> None:
    value = table().lines[0].value
    point = tradeoff.Point(value, value)
    curves = {f"defence {i}": [point] * 4 for i in range(9)}
    panel = tradeoff.Panel("an attack", "judge", point, curves, 0.1, 1.0)
    drawn = Image.open(io.BytesIO(tradeoff.tradeoff([panel])))
    assert drawn.size[0] > 500 and "Software" not in drawn.info
    reached = {f"row {i}": {"judge": tradeoff.Reached(value, value)} for i in range(40)}
    assert Image.open(io.BytesIO(tradeoff.attacks(reached, 0.1))).size[1] > 2000


def test_the_csv_that_evaluate_writes_is_what_is_read(make: Make) -> None:
    make(table())
    with Path("evaluate", leakage.FILE).open(newline="") as file:
        header = next(csv.reader(file))
    assert header == [
        "subject", "kind", "figure", "judge", "against", "point", "low", "high", "n", "seeds", "method",
    ]  # fmt: skip
