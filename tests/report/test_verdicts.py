"""What the tests of claims read from made-up tables, and how the page shows it."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.engine.params import validate
from tasks.information import Third
from tasks.leakage import NATURAL, TOP1, Line, Table
from tasks.page import claims
from tasks.page.claims import Claims, Rows
from tasks.page.render import TEMPLATES
from tasks.page.verdicts import (
    APART,
    HELD,
    NOT_RUN,
    NOT_SHOWN,
    OUTCOMES,
    REVERSED,
    UNMATCHED,
    Verdict,
    verdicts,
)
from tests.report.claim_parts import (
    BACK,
    DEEP,
    DIFFERS,
    EVEN,
    FOLDER,
    FRONT,
    NAMES,
    NATURALLY,
    ORDERED,
    attacked,
    claim,
    of,
    ran,
    thirds,
)
from tests.report.leakage_lines import JUDGES, LESS, MORE, NOTHING, Interval, figure

MINUS = "\N{MINUS SIGN}"


def outcome(test: Any, content: Table, found: list[Third] | None = None) -> Verdict:
    (verdict,) = verdicts(of(claim(test)), content, found or [])
    return verdict


@pytest.mark.parametrize(
    ("change", "held"),
    [
        ({"first": LESS, "second": LESS}, HELD),
        ({"first": NOTHING, "second": NOTHING}, NOT_SHOWN),
        ({"first": LESS, "second": NOTHING}, NOT_SHOWN),
        ({"first": LESS, "second": MORE}, NOT_SHOWN),
        ({"first": MORE, "second": NOTHING}, NOT_SHOWN),
        ({"first": MORE, "second": MORE}, REVERSED),
        ({"first": (-0.2, -0.4, 0.0), "second": LESS}, NOT_SHOWN),  # it ends at zero
    ],
)
def test_a_difference_is_judged_by_every_judges_interval(change: dict[str, Interval], held: str) -> None:
    content = ran(change=change)
    assert outcome(DIFFERS, content).outcome == held
    other_way = {HELD: REVERSED, REVERSED: HELD, NOT_SHOWN: NOT_SHOWN}
    assert outcome({**DIFFERS, "expected": 1}, content).outcome == other_way[held]


def test_what_was_run_stands_with_its_intervals_and_n() -> None:
    found = outcome(DIFFERS, ran(change={"second": NOTHING})).found
    assert found is not None and found.figure == TOP1
    assert found.rows == tuple((row, "4 people, 3 training seeds") for row in ("ppa-frozen", "ppa-none"))
    assert [seen.judge for seen in found.seen] == list(JUDGES)
    assert found.seen[0].figures == ("50.0 [30.0, 70.0]", "75.0 [60.0, 90.0]")
    assert found.seen[0].difference == "-25.0 [-40.0, -10.0]"
    assert found.seen[1].difference == "-5.0 [-20.0, +10.0]"
    assert found.notes == ("Natural accuracy: frozen 87.5 [80.0, 92.5], none 97.5 [90.0, 100.0].",)


@pytest.mark.parametrize(
    ("first", "second", "held"),
    [
        ((0.3, 0.2, 0.4), (0.3, 0.2, 0.4), HELD),
        ((0.3, 0.2, 0.4), (0.5, 0.4, 0.6), NOT_SHOWN),  # of one judge they touch
        ((0.7, 0.65, 0.75), (0.7, 0.65, 0.75), NOT_SHOWN),
        ((0.3, 0.2, 0.4), (0.95, 0.92, 1.0), NOT_SHOWN),
        ((0.95, 0.92, 1.0), (0.95, 0.92, 1.0), REVERSED),
    ],
)
def test_an_order_without_a_stored_difference_holds_only_apart(
    first: Interval, second: Interval, held: str
) -> None:
    content = Table((*ran().lines, *attacked("gmi-none", first, second)))
    verdict = outcome(ORDERED, content)
    assert verdict.outcome == held and verdict.found is not None
    assert verdict.found.notes == (APART,) and {seen.difference for seen in verdict.found.seen} == {None}
    assert verdict.found.rows[1] == ("gmi-none", "4 people, 1 training seed")
    turned = outcome({**ORDERED, "above": ORDERED["below"], "below": ORDERED["above"]}, content)
    assert turned.outcome == {HELD: REVERSED, REVERSED: HELD, NOT_SHOWN: NOT_SHOWN}[held]


@pytest.mark.parametrize(
    ("above", "below", "held", "said"),
    [
        ("undefended", "tl_dmi", HELD, "+25.0 [+10.0, +40.0]"),
        ("tl_dmi", "undefended", REVERSED, "-25.0 [-40.0, -10.0]"),
    ],
)
def test_an_order_uses_a_stored_difference_either_way_round(
    above: str, below: str, held: str, said: str
) -> None:
    verdict = outcome({**ORDERED, "above": f"ppa/{above}", "below": f"ppa/{below}"}, ran())
    assert verdict.outcome == held and verdict.found is not None
    assert {seen.difference for seen in verdict.found.seen} == {said} and APART not in verdict.found.notes


def test_two_defences_are_said_not_to_rank_unmatched() -> None:
    bido = [
        *attacked("ppa-bido", MORE, MORE),
        Line("bido", "victim", NATURAL, "", "", figure((0.8, 0.7, 0.9))),
    ]
    test = {**ORDERED, "above": "ppa/tl_dmi", "below": "ppa/bido"}
    found = outcome(test, Table((*ran().lines, *bido))).found
    assert found is not None and found.notes[-1] == UNMATCHED
    assert "frozen 87.5 [80.0, 92.5], bido 80.0 [70.0, 90.0]" in found.notes[1]


@pytest.mark.parametrize(
    ("interval", "held"),
    [((0.5, 0.4, 0.6), HELD), ((0.875, 0.8, 0.97), NOT_SHOWN), ((1.0, 0.995, 1.0), REVERSED)],
)
def test_natural_accuracies_are_compared_by_their_intervals(interval: Interval, held: str) -> None:
    lines = [
        line
        for line in ran().lines
        if (line.subject, line.kind) not in [("none", "victim"), ("frozen", "victim")]
    ]
    lines.append(Line("none", "victim", NATURAL, "", "", figure((0.97, 0.96, 0.99))))
    verdict = outcome(NATURALLY, Table((*lines, Line("frozen", "victim", NATURAL, "", "", figure(interval)))))
    assert verdict.outcome == held and verdict.found is not None
    assert verdict.found.seen[0].judge == "" and verdict.found.seen[0].figures[0] == "97.0 [96.0, 99.0]"


@pytest.mark.parametrize(("first", "held"), [(FRONT, HELD), (EVEN, NOT_SHOWN), (BACK, REVERSED)])
def test_fisher_information_is_read_of_the_right_loss_and_layers(first: Interval, held: str) -> None:
    decoys = thirds(BACK if first != BACK else FRONT, task="classification") + thirds(EVEN, kind="true")
    decoys += thirds(EVEN, victim="frozen")
    verdict = outcome(DEEP, ran(), [*decoys, *thirds(first)])
    assert verdict.outcome == held and verdict.found is not None
    assert verdict.found.rows == (("none", "20 images"),)
    assert verdict.found.seen[0].figures == ("first third 60.0 [50.0, 70.0]", "last third 20.0 [10.0, 30.0]")
    turned = outcome({**DEEP, "dominates": "last third"}, ran(), thirds(first))
    assert turned.outcome == {HELD: REVERSED, REVERSED: HELD, NOT_SHOWN: NOT_SHOWN}[held]


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ({**DIFFERS, "row": "ppa/bido"}, "At this scale there is no row ppa-bido."),
        (
            {**ORDERED, "above": "averaged/bido"},
            "At this scale there is no row ppa_averaged-bido and none gmi-none.",
        ),
        ({**NATURALLY, "below": "bido"}, "At this scale there is no victim bido."),
        (
            {**DIFFERS, "row": "ppa/undefended", "against": "gmi/undefended"},
            "ppa-none is not paired with gmi-none",
        ),
        (DEEP, "At this scale the Fisher information of none was not analysed."),
        (None, "Not of this scale."),
    ],
)
def test_what_is_missing_was_not_run_and_the_reason_is_given(test: Any, reason: str) -> None:
    lines = list(ran().lines)
    if "paired" in reason:
        lines += attacked("gmi-none", LESS, LESS)
    verdict = outcome(test, Table(tuple(lines)), thirds(FRONT, victim="frozen"))
    assert (verdict.outcome, verdict.found) == (NOT_RUN, None) and reason in (verdict.reason or "")


def test_a_row_means_what_rows_json_says() -> None:
    renamed = validate(Rows, {**NAMES, "victims": {"undefended": "none", "tl_dmi": "else"}}, "names")
    (verdict,) = verdicts(Claims(renamed, of(claim(DIFFERS)).studies), ran(), [])
    assert verdict.reason == "At this scale there is no row ppa-else."


class Page(HTMLParser):
    """Rows of cells as text, and whether every tag is closed in its turn."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(source)
        self.rows = [[" ".join(cell.split()) for cell in row] for row in self.rows]
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


def shown(found: list[Verdict]) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["minus"] = lambda text: re.sub(r"(?<![\w.-])-(?=\d)", "\N{MINUS SIGN}", text)
    return environment.get_template("claims.html.jinja").render(claims=found)


def test_the_page_shows_every_verdict_in_a_symbol_and_a_word() -> None:
    parts = [
        claim(DIFFERS, id="held"),
        claim({**DIFFERS, "expected": 1}, id="reversed"),
        claim({**NATURALLY, "above": "tl_dmi", "below": "undefended"}, id="not-shown", published=[]),
        claim({**DIFFERS, "row": "ppa/bido"}, id="absent", reliability="unverified"),
        claim(id="no-test"),
    ]
    found = verdicts(of(*parts), ran(), [])
    assert [verdict.outcome for verdict in found] == [HELD, REVERSED, NOT_SHOWN, NOT_RUN, NOT_RUN]
    source = shown(found)
    (_, head, *rows) = Page(source).rows
    assert head == ["TL-DMI A paper, 2024"]
    assert [row[3] for row in rows] == [
        "✓held",
        "✗reversed",
        "?not shown",
        "\N{EN DASH}not run",
        "\N{EN DASH}not run",
    ]
    assert {verdict.outcome for verdict in found} == {*OUTCOMES}
    assert rows[0][0] == "It leaks less."
    assert rows[0][1] == "attack accuracy: 25.1% PPA, a network Paper: Table 8."
    assert (
        "ppa-frozen (4 people, 3 training seeds) against ppa-none (4 people, 3 training seeds)" in rows[0][2]
    )
    assert f"75.0 [60.0, 90.0]; difference {MINUS}25.0 [{MINUS}40.0, {MINUS}10.0]" in rows[0][2]
    assert rows[2][1].startswith("In words only.") and APART in rows[2][2]
    assert (
        rows[3][1].endswith("Unverified: Table 8.")
        and rows[3][2] == "At this scale there is no row ppa-bido."
    )
    assert rows[4][2] == "Not of this scale."
    tally = " ".join(re.sub("<[^>]*>", " ", source).split())
    assert "Of 5 claims, 1 held, 1 not shown, 1 reversed, 2 were not run." in tally


def test_words_of_a_claim_are_text_and_nothing_else() -> None:
    evil = "<i class=x>&\"'"
    published = [{"setting": evil, "figure": evil, "value": 1.5, "unit": "%"}]
    source = shown(verdicts(of(claim(says=evil, source=evil, not_run=evil, published=published)), ran(), []))
    assert "<i" not in source and source.count("&lt;i class=x&gt;&amp;&#34;&#39;") == 5


def test_the_page_shows_the_claims_of_this_project_study_by_study() -> None:
    book = claims.read(FOLDER)
    page = Page(shown(verdicts(book, ran(), thirds(FRONT))))
    groups = [row[0].split(" ")[0] for row in page.rows[1:] if len(row) == 1]
    assert groups == [study.study.split(" ")[0] for study in book.studies]
    assert sum(len(row) == 4 for row in page.rows) == 1 + sum(len(study.claims) for study in book.studies)
    assert shown([]).count("<tbody>") == 0
