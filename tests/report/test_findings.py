"""Sentences follow the intervals."""

import pytest

from tasks.leakage import Table
from tasks.page.findings import Evidence, Finding, findings
from tests.report.leakage_lines import LESS, MORE, NOTHING, Interval, table


def evidence(content: Table) -> Evidence:
    victims = dict(zip(content.subjects("attack"), ("none", "frozen"), strict=True))
    return Evidence(content, victims, frozenset({"none"}), people=4)


def says(content: Table) -> tuple[Finding, Finding, Finding]:
    leaks, floors, changes = findings(evidence(content))
    return leaks, floors, changes


def test_what_leaks_is_said_of_undefended_victims() -> None:
    leaks, _, _ = says(table())
    assert leaks.answer == (
        "Judge first names the person who was asked for in 75.0% of the pictures that attacks draw from "
        "undefended victims; guessing among 4 people is right in 25.0%."
    )
    assert leaks.rows == (("plain", "75.0% [60.0, 90.0] (first) and 76.0% [60.0, 90.0] (second)"),)


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "Leaks less by every judge: guarded."),
        ({"first": NOTHING, "second": NOTHING}, "No effect could be shown: guarded."),
        ({"first": MORE, "second": MORE}, "Leaks more by every judge: guarded."),
        ({"second": NOTHING}, "The judges differ: guarded."),
        ({"second": MORE}, "The judges differ: guarded."),
    ],
)
def test_the_verdict_on_a_defence_follows_the_intervals(change: dict[str, Interval], verdict: str) -> None:
    _, _, changes = says(table(change=change))
    assert changes.answer == verdict
    ((row, said),) = changes.rows
    assert row == "guarded" and "natural accuracy 87.5% [80.0, 92.5], undefended 97.5% [90.0, 100.0]" in said
    for judge in ("first", "second"):
        point, low, high = (100 * end for end in change.get(judge, LESS))
        assert f"{point:+.1f} [{low:+.1f}, {high:+.1f}] points ({judge})" in said


@pytest.mark.parametrize(
    ("gain", "reached"),
    [
        ({"second": NOTHING}, {}),
        ({"first": NOTHING, "second": NOTHING}, {}),
        ({"first": LESS}, {}),
        ({}, {"second": (0.4, 0.25, 0.6)}),  # from a guess on, not above it
    ],
)
def test_an_attack_that_does_not_beat_its_floors_is_said_not_to(
    gain: dict[str, Interval], reached: dict[str, Interval]
) -> None:
    _, floors, _ = says(table(gain=gain, reached=reached))
    assert "By every judge, 1 of 2 attacks beat" in floors.answer
    assert floors.answer.endswith("For guarded that could not be shown.")
    said = dict(floors.rows)
    assert said["guarded"].startswith("is not shown to beat its floors: ")
    assert ("a guess 25.0%" in said["guarded"]) == bool(reached)
    assert said["plain"] == (
        "+30.0 [+15.0, +45.0] points (first) and +30.0 [+15.0, +45.0] points (second) against its own start"
    )


def test_attacks_that_beat_their_floors_are_not_doubted() -> None:
    _, floors, _ = says(table())
    assert "2 of 2 attacks beat" in floors.answer and "not" not in floors.answer.partition(")")[2]
    assert not any("not shown" in said for _, said in floors.rows)


def test_without_a_twin_nothing_is_compared() -> None:
    whole = table()
    alone = Table(tuple(line for line in whole.lines if line.against != "plain"))
    _, _, changes = says(alone)
    assert changes.rows == () and "No defended victim has an undefended twin" in changes.answer
