"""Files of published claims: those of the project, and how others are refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from mipriv.errors import InputError
from tasks.engine.params import validate
from tasks.leakage import KNN, TOP1, TOP5
from tasks.page import claims
from tasks.page.claims import Leaks
from tasks.page.verdicts import SPELT
from tests.report.claim_parts import DEEP, DIFFERS, FOLDER, NAMES, NATURALLY, ORDERED, claim


def test_every_file_of_the_folder_is_valid() -> None:
    book = claims.read(FOLDER)
    assert {path.stem for path in FOLDER.glob("*.json")} - {"rows"} >= {"tl_dmi", "bido"}
    assert len(book.studies) == len(list(FOLDER.glob("*.json"))) - 1
    everything = [part for study in book.studies for part in study.claims]
    assert len({part.id for part in everything}) == len(everything)
    for part in everything:
        assert (part.test is None) != (part.not_run is None), part.id
        assert part.says.endswith(".") and not part.source.endswith("."), part.id
        assert part.published or "no figure was found" in part.source, part.id
        assert ("from memory" in part.source or "remembered" in part.source) == (
            part.reliability == "unverified"
        )
        if part.reliability == "third party":
            assert re.search("third[- ]party|review", part.source), part.id


def test_tests_read_figures_that_the_table_has() -> None:
    assert {*get_args(Leaks)} == {TOP1, TOP5, KNN} == {*SPELT}


@pytest.mark.parametrize(
    ("value", "unit", "spelt"),
    [
        (57.89, "%", "57.89%"),
        ([84, 88], "%", "84 to 88%"),
        (0.893, "distance", "0.893"),
        (3, "points", "+3 points"),
        (-5.5, "points", "-5.5 points"),
        (20, "count", "20"),
    ],
)
def test_a_published_figure_is_spelt_with_its_unit(value: Any, unit: str, spelt: str) -> None:
    one = {"setting": "s", "figure": "f", "value": value, "unit": unit}
    assert validate(claims.Published, one, "published").spelt == spelt


def write(folder: Path, *parts: Any, names: Any = NAMES) -> Path:
    (folder / "rows.json").write_text(json.dumps(names))
    (folder / "a.json").write_text(json.dumps({"study": "A", "paper": "B", "claims": list(parts)}))
    return folder


def without(test: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in test.items() if name != key}


def published(value: Any, unit: str = "%") -> dict[str, Any]:
    return claim(published=[{"setting": "s", "figure": "f", "value": value, "unit": unit}])


def having(test: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return claim({**test, **changed})


REFUSED: list[tuple[Any, str, str]] = [  # a claim, the key at fault, what is allowed
    (claim(DIFFERS, reliability="hearsay"), "one.reliability: 'hearsay'", "paper, third party, unverified"),
    (having(DIFFERS, expected=2), "one.test.expected: 2", "-1, 1"),
    (having(DIFFERS, figure="accuracy"), "one.test.figure: 'accuracy'", "accuracy@1, accuracy@5, knn"),
    (having(DIFFERS, row="ppa-none"), "one.test.row: 'ppa-none'", "ATTACK/VICTIM"),
    (having(DIFFERS, row="pap/tl_dmi"), "one.test.row: attack: 'pap'", "averaged, gmi, ppa"),
    (having(ORDERED, below="ppa/x"), "one.test.below: victim: 'x'", "bido, tl_dmi, undefended"),
    (having(NATURALLY, above="non"), "one.test.above: victim: 'non'", "bido, tl_dmi, undefended"),
    (having(DEEP, victim="x"), "one.test.victim: victim: 'x'", "bido, tl_dmi, undefended"),
    (having(ORDERED, kind="odd"), "one.test.kind: 'odd'", "difference, fisher, natural, order"),
    (claim("test"), "one.test.kind: 'test'", "difference, fisher, natural, order"),
    (claim(without(DIFFERS, "kind")), "one.test.kind: 'None'", "difference, fisher, natural, order"),
    (claim(without(ORDERED, "below")), "one.test.below: is missing", "ATTACK/VICTIM"),
    (having(NATURALLY, figure=TOP1), "one.test: 'figure'", "above, below, kind"),
    (claim(DIFFERS, not_run="both"), "one: test and not_run are both given", "one of them"),
    (claim(not_run=None), "one: test and not_run are both given or both null", "one of them"),
    (claim(id="Two Words"), "Two Words.id: 'Two Words'", "words of a-z"),
    (claim(says=" "), "one.says: ' '", "text that is not empty"),
    (published("25"), "one.published.0.value: '25'", "number or list of 2"),
    (published(True), "one.published.0.value: True", "number or list of 2"),
    (published([3, 2]), "one.published.0: value: [3.0, 2.0]", "a number, or [low, high]"),
    (published(1, "m"), "one.published.0.unit: 'm'", "%, points, distance"),
    (claim(note="x"), "one: 'note'", "id, not_run, published"),
    ("claim", "1: 'claim'", "mapping of id, says"),
    (without(claim(), "id"), "1.id: is missing", "words of a-z"),
]


@pytest.mark.parametrize(("part", "where", "allowed"), REFUSED, ids=[where for _, where, _ in REFUSED])
def test_a_malformed_claim_is_refused_in_one_line(
    tmp_path: Path, part: Any, where: str, allowed: str
) -> None:
    with pytest.raises(InputError) as refused:
        claims.read(write(tmp_path, claim(id="sound"), part))
    line = str(refused.value)
    assert line.startswith(f"{tmp_path / 'a.json'}: claims.{where}") and "\n" not in line
    assert f"allowed: {allowed}" in line


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


TWICE = '{"study": "A", "study": "B"}'
NO_LIST = '{"study": "A", "paper": "B", "claims": 3}'
NAMELESS = json.dumps({**NAMES, "victims": {"tl_dmi": "x"}})
AGAIN = json.dumps({"study": "A", "paper": "B", "claims": [claim()]})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "rows.json").unlink(), "rows.json: no claims .*No such file"),
        (lambda folder: (folder / "a.json").write_bytes(b"\xff\xfe"), "a.json: no claims .*utf-8"),
        (text("a.json", "{"), "a.json: no claims .*line 1.*allowed: a JSON object"),
        (text("a.json", "[]"), r"a.json: study: \[\] .*allowed: mapping of study"),
        (text("a.json", TWICE), "a.json: .*key 'study' is given twice"),
        (text("a.json", NO_LIST), "a.json: study.claims: 3 is not .*allowed: list"),
        (text("rows.json", NAMELESS), "rows.json: names: victims: tl_dmi; allowed: 'undefended' among them"),
        (text("rows.json", '{"attacks": {}}'), "rows.json: names.victims: is missing"),
        (text("b.json", AGAIN), "b.json: claims.one.id: used in .*a.json; allowed: each id once"),
    ],
)
def test_a_malformed_file_is_refused_in_one_line(
    tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    write(tmp_path, claim())
    assert len(claims.read(tmp_path).studies) == 1
    spoil(tmp_path)
    with pytest.raises(InputError, match=said) as refused:
        claims.read(tmp_path)
    assert "\n" not in str(refused.value)
