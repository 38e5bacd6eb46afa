"""The common table: cells and files, one checkpoint a row, changes, words, pages in one, comparisons."""

import json
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest

from mipriv.errors import InputError
from mipriv.stats import Figure, paired_difference
from tasks import compare, invert, people, table
from tasks.inversions import Inversions
from tasks.joined import cells, checkpoints, threats
from tasks.joined.cells import COLUMNS, Cell, Row
from tasks.joined.changes import difference, twin
from tasks.leakage import Line, Table
from tasks.page import embedded, joint
from tasks.page.lookups import finding
from tasks.page.pictures import marked
from tasks.people import Values
from tests.pipeline.test_evaluate import victim


def figure(point: float, low: float, high: float) -> Figure:
    return Figure(point, low, high, 20, 2, "by hand")


def row(name: str, leak: Figure, floor: float, change: Figure | None = None) -> Row:
    found = {column.name: Cell(None, "not run at this scale: a toy") for column in COLUMNS}
    found["inversion"] = Cell(leak, floor=floor, by="ppa", change=change)
    found["attributes"] = Cell(None, "not applicable: no labels")
    return Row(name, "faces", f"finetune@{name}", {0: "ab" * 32}, found)


ROWS = [
    row("none", figure(0.5, 0.3, 0.7), 0.1),
    row("frozen", figure(0.2, 0.05, 0.3), 0.1, figure(-0.3, -0.5, -0.1)),
]


def test_a_row_is_one_line_and_comes_back_as_it_was(tmp_path: Path) -> None:
    cells.write(tmp_path / "one.csv", ROWS[:1])
    cells.write(tmp_path / "two.csv", ROWS)
    one, two = ((tmp_path / name).read_text().splitlines() for name in ("one.csv", "two.csv"))
    assert two[:2] == one and len(two) == 3
    back = cells.read((tmp_path / "two.csv").read_text())
    for found, made in zip(back, ROWS, strict=True):
        for column in COLUMNS:
            a, b = found.cells[column.name], made.cells[column.name]
            assert (a.spelt(column), a.floor, a.why, a.by) == (b.spelt(column), b.floor, b.why, b.by)
    change = back[1].cells["inversion"].change
    assert change is not None and (change.point, change.low, change.high) == (-0.3, -0.5, -0.1)
    cells.write(tmp_path / "none.csv", [])
    assert cells.read((tmp_path / "none.csv").read_text()) == []


def test_figures_of_another_checkpoint_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("finetune/none/seed-0")
    folder.mkdir(parents=True)
    (folder / "model").write_text("weights")
    own = checkpoints.Checkpoint({0: folder})
    events = Path("events/invert")
    events.mkdir(parents=True)

    def record(digest: str) -> None:
        used = {"event": "input", "name": "victim", "digest": digest, "path": folder.as_posix()}
        line = {"event": "cell", "name": "seed-0/ids-0", "events": [used]}
        (events / "ppa-none.jsonl").write_text(json.dumps(line) + "\n")

    record(own.digests()[0])
    own.refuse_other(checkpoints.used([events]))
    record("0" * 64)
    with pytest.raises(
        InputError, match=r"invert@ppa-none used sha256 000000000000.*allowed: one checkpoint"
    ):
        own.refuse_other(checkpoints.used([events]))


def test_changes_are_paired_over_the_seeds_that_both_have() -> None:
    random = np.random.default_rng(0)
    a, b = random.random((3, 7)), random.random((2, 7))
    found = difference(Values([4, 5, 6], a), Values([6, 4], b))
    assert found == paired_difference(a[[0, 2]], b[[1, 0]])
    assert difference(Values([1], a[:1]), Values([2], b[:1])) is None
    assert difference(Values([4], a[:1]), Values([4], b[:1, :5])) is None


def test_the_twin_is_undefended_and_of_the_same_network() -> None:
    victims = {
        "none": victim("a", "none"),
        "frozen": victim("a", "tl_dmi"),
        "other": victim("b", "none"),
        "split/cem": victim("b", "noise + cem"),
        "lonely": victim("c", "noise"),
    }
    twins = {name: twin(name, victims) for name in victims}
    assert twins == {"none": None, "frozen": "none", "other": None, "split/cem": "other", "lonely": None}


def test_a_floor_is_cleared_by_the_whole_interval_alone() -> None:
    by = {column.name: column for column in COLUMNS}
    share, error = by["inversion"], by["reconstruction_mse"]
    assert joint.clears(Cell(figure(0.5, 0.11, 0.7), floor=0.1), share) is True
    assert joint.clears(Cell(figure(0.5, 0.1, 0.7), floor=0.1), share) is False
    assert joint.clears(Cell(figure(0.02, 0.01, 0.03), floor=0.04), error) is True
    assert joint.clears(Cell(figure(0.02, 0.01, 0.05), floor=0.04), error) is False
    assert joint.clears(Cell(None, "not applicable: no labels"), share) is None


def test_the_words_say_what_the_intervals_say() -> None:
    leaks, _, helps, _ = joint.findings(ROWS, ["none"])
    assert dict(leaks.rows)["inversion, top 1"] == (
        "clears its floor on “none”; not shown to clear its floor on “frozen”."
    )
    assert (
        helps.answer
        == "Shown to leak less than the undefended twin, under the same attack: “frozen” (inversion, top 1)."
    )
    assert "shown" not in dict(helps.rows)["frozen"]
    unclear = [ROWS[0], row("frozen", figure(0.2, 0.05, 0.3), 0.1, figure(-0.3, -0.5, 0.1))]
    assert joint.findings(unclear, ["none"])[2].answer == (
        "No defence is shown to lower any of these figures."
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (figure(-0.0003, -0.0004, -0.0001), False),  # printed as 0.000 [0.000, 0.000]
        (figure(-0.0010, -0.0016, -0.0004), False),  # printed as -0.001 [-0.002, 0.000]
        (figure(-0.0020, -0.0030, -0.0010), True),
    ],
)
def test_no_sentence_names_a_change_that_is_printed_as_none(change: Figure, said: bool) -> None:
    error = {column.name: column for column in COLUMNS}["reconstruction_mse"]
    own = row("frozen", figure(0.2, 0.05, 0.3), 0.1)
    cell = Cell(figure(0.01, 0.009, 0.011), floor=0.02, change=change)
    defended = Row(own.name, own.data, own.checkpoint, own.digests, {**own.cells, error.name: cell})
    helps = joint.findings([ROWS[0], defended], ["none"])[2]
    assert ("Shown to leak more: “frozen” (reconstruction, MSE)" in helps.answer) is said
    assert ("(no change shown)" in dict(helps.rows)["frozen"]) is not said
    assert "-0.000" not in joint.spelt_change(change, error)
    share = {column.name: column for column in COLUMNS}["inversion"]
    assert joint.told(figure(-0.0100, -0.02, -0.0004), share) == 0  # -1.0 [-2.0, 0.0] points
    assert joint.told(figure(-0.0100, -0.02, -0.0006), share) == -1


def test_membership_is_read_by_the_victims_name_and_refused_where_records_are_few() -> None:
    def line(
        attack: str, name: str, point: float, kind: str = "membership of a victim", against: str = ""
    ) -> Line:
        return Line("none", kind, name, attack, against, figure(point, point, point))

    tpr = "tpr at fpr 0.1"
    change = line("lira", tpr, -0.2, "membership difference", "plain")
    told = Table((line("lira", "auc", 0.7), line("lira", tpr, 0.4), line("loss", tpr, 0.5), change))
    cell = threats.membership(told, "none", 0.1, "plain")
    assert cell.value is not None and (cell.value.point, cell.floor) == (0.4, 0.1) and "lira" in cell.by
    assert cell.change is not None and cell.change.point == -0.2
    # A whole victim is no twin of a split one, whatever the stage compared it with.
    assert threats.membership(told, "none", 0.1, "another").change is None
    few = threats.membership(Table((line("lira", "auc", 0.6),)), "none", 0.1, None)
    assert few.why == (
        "not run at this scale: too few records of this victim to tell an FPR of 0.1; raise rate of table"
    )
    assert threats.membership(told, "one", 0.1, None).why == (
        "not run at this scale: no shadows of this victim; add a row to shadow_victims"
    )


def test_attributes_are_those_that_ought_to_be_hidden_over_the_best_floor() -> None:
    def line(subject: str, kind: str, judge: str, of: str, point: float) -> Line:
        return Line(subject, kind, "balanced accuracy", judge, of, figure(point, point, point))

    chosen = "chosen on validation"
    told = Table(
        (
            line("asked/plain", "attribute floor", "majority", "male", 0.5),
            line("asked/plain", "attribute floor", "main label alone", "male", 0.6),
            line("asked/plain", "attribute floor", "majority", "identity", 0.1),
            line("asked/plain", "attribute", "maximum on test", "male", 0.95),
            line("asked/plain", "attribute", chosen, "male, 10% of the labels", 0.7),
            line("asked/plain", "attribute", chosen, "identity", 0.99),
            line("asked/plain", "attribute", chosen, "male", 0.9),
        )
    )
    audits = {"asked": ("faces", "male")}
    cell = threats.attributes(told, ["male"], "faces/plain", True, audits)
    assert cell.value is not None and (cell.value.point, cell.floor) == (0.9, 0.6) and "male" in cell.by
    other = threats.attributes(told, ["male"], "faces/cem", True, audits)
    assert other.why == ("not run at this scale: no audit of this victim's features; add a row to attributes")
    whole = threats.attributes(told, ["male"], "none", False, audits)
    assert whole.why == "not applicable: whole, sends no features to anybody"
    assert threats.attributes(told, [], "faces/plain", True, audits).why.startswith(
        "not applicable: no labels of attributes"
    )


def test_a_reason_names_the_block_that_a_row_is_wanted_in() -> None:
    nothing = invert.Invert(identities=None, identities_a_cell=1, seed=0, attacks={}, rows={})
    every = Inversions(nothing, {}, frozenset())
    for block in ("invert", "invert_split"):
        cell = threats.inversion(Table(()), every, "none", asked_in=block)
        assert cell.why == f"not run at this scale: no inversion of this victim; add a row to {block}"


def test_pages_in_one_share_no_anchor(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text('<main>\n<a href="#made">x</a><h2 id="made">y</h2></main>')
    part = embedded.part(page, "first")
    assert 'href="#first-made"' in part and 'id="first-made"' in part
    page.write_text("nothing")
    with pytest.raises(InputError, match="holds no <main>"):
        embedded.part(page, "first")


def test_a_link_holds_its_search_and_no_quote_that_ends_it() -> None:
    address = finding("http://127.0.0.1:5000/", "faces/plain")
    assert address.startswith("http://127.0.0.1:5000/#/experiments/") and "faces%2Fplain" in address
    assert not set("\"'<> ") & set(address)
    asked = parse_qs(address.partition("?")[2])
    assert "tags.victim = 'faces/plain'" in asked["searchFilter"][0]
    assert "tags.`mipriv.stage` = 'evaluate'" in asked["searchFilter"][0]  # and not what fisher finds of it
    assert asked["orderByKey"] == ["metrics.`accuracy_at_1`"]  # else children are folded away


def side(folder: Path, rows: list[Row], reached: np.ndarray) -> Path:
    cells.write(folder / table.FILE, rows)
    people.write(folder / people.FILE, {("none", "inversion", ""): Values([0, 1], reached)})
    known = {"data": {"faces": "d"}, "victims": {own.name: dict(own.digests) for own in rows}}
    (folder / table.DIGESTS).write_text(json.dumps(known))
    return folder


def test_two_tables_are_compared_by_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = np.arange(8.0).reshape(2, 4) / 16
    a = side(tmp_path / "a", ROWS[:1], base)
    b = side(tmp_path / "b", ROWS, base + 0.25)
    assert compare.main([str(a), str(b), "--names", "old", "new"]) == 0
    said = capsys.readouterr().out
    assert "+25.0 [+25.0, +25.0] higher" in said and "frozen: not a row of old" in said
    assert "none: the same checkpoint" in said
    (b / people.FILE).unlink()
    assert compare.main([str(a), str(b)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_no_two_names_share_a_mark_and_all_colours_are_okabe_and_itos() -> None:
    names = [f"defence {i}" for i in range(30)]
    found = marked(names)
    assert len(set(found.values())) == len(names) and list(found) == names
    told_apart = {"#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#000000"}
    assert {color for color, _ in found.values()} <= told_apart
