"""Membership inference in words: every sentence from a table that calls for it, and none that does not."""

from typing import Any

import pytest

from mipriv.analysis.power_law import PAPER
from tasks.page.memberships import NOTHING, published, said
from tasks.page.sheets import ABSENT, attacks, fitted, heads, least, records
from tests.report.membership_parts import SIZES, Size, figure, grid, lines, near

AUC = {"strong": 0.9, "weak": 0.7, "bare": 0.6}
RHO = {Size(4, 3): (0.9, 0.8, 0.95), **dict.fromkeys(SIZES[1:], (0.5, 0.4, 0.6))}
TPR = {
    "strong": {Size(2, 2): near(0.8), Size(2, 3): near(0.9), Size(4, 2): near(0.4), Size(4, 3): near(0.5)},
    "weak": {size: near(0.3) for size in SIZES},
    "bare": {size: near(0.1) for size in SIZES},
}


def sentences(**changed: Any) -> list[str]:
    wanted = {"tpr": TPR, "auc": AUC, "rho": RHO, **changed}
    return said([grid(lines(**wanted))])


def about(found: list[str], words: str) -> str:
    (one,) = [sentence for sentence in found if words in sentence]
    return one


def test_without_a_grid_it_says_that_nothing_was_run() -> None:
    assert said([]) == [NOTHING]


def test_the_attack_that_tells_most_and_where_it_does_so_surely() -> None:
    assert about(sentences(), "tells most").startswith("Of 3 attacks strong tells most: at an FPR of 0.1 ")
    assert "over 4 cells, and in 4 of them" in about(sentences(), "tells most")
    close = {**TPR, "weak": {**TPR["weak"], Size(4, 2): (0.35, 0.3, 0.395)}}
    # The intervals of `strong` and `weak` overlap by half a point in one cell.
    assert "over 4 cells, and in 3 of them" in about(sentences(tpr=close), "tells most")
    turned = {**TPR, "weak": TPR["strong"], "strong": TPR["weak"]}
    assert "weak tells most" in about(sentences(tpr=turned), "tells most")


def test_the_ends_are_those_of_the_most_classes_with_the_correction() -> None:
    one = about(sentences(), "Halves")
    assert "with 3 classes, strong finds 90.0% [89.0, 91.0] of the members with 2 examples a class and" in one
    assert "50.0% [49.0, 51.0] of the members with 4 examples" in one and "guessing" not in one
    assert "drawn anew, 45.0% [44.5, 45.5] and 25.0% [24.5, 25.5]." in one


def test_an_end_at_chance_is_called_so() -> None:
    weak = {name: dict.fromkeys(SIZES, (0.11, 0.1, 0.12)) for name in TPR}
    one = about(sentences(tpr=weak), "Halves")
    assert one.count("not shown to be more than guessing") == 2


def test_slopes_stand_beside_the_published_one_and_that_of_theory() -> None:
    one = about(sentences(), "goes with the examples")
    assert "to the power -0.500 [-0.600, -0.400]" in one
    assert "holds the published -0.506 and holds theory's -0.5" in one and "no fall" not in one
    assert "classes to the power 0.200 [0.100, 0.300]." in one
    steep = about(sentences(slope=(-0.7, -0.8, -0.6), classes=(0.2, -0.1, 0.5)), "goes with the examples")
    assert "does not hold the published -0.506 and does not hold theory's -0.5" in steep
    assert "[-0.100, 0.500], which shows no effect." in steep
    between = about(sentences(slope=(-0.52, -0.54, -0.503)), "goes with the examples")
    assert "holds the published -0.506 and does not hold theory's" in between
    flat = about(sentences(slope=(-0.1, -0.3, 0.1)), "goes with the examples")
    assert "[-0.300, 0.100], which shows no fall;" in flat


def test_a_rate_that_is_not_published_has_theory_beside_it_alone() -> None:
    own = grid(lines(TPR, AUC, RHO, rate=0.2), rates=(0.2,))
    one = about(said([own]), "goes with the examples")
    assert "; the interval holds theory's -0.5" in one and "published" not in one
    assert "at an FPR of 0.2. At most" in about(said([own]), "epsilon 1")
    assert [law.name for law in fitted(own)] == ["strong", "strong, exact form"]


def test_without_a_law_there_is_no_slope_and_no_least() -> None:
    found = sentences(slope=None)
    assert "there is no law" in about(found, "At an FPR of 0.1 there")
    assert not [one for one in found if "epsilon" in one or "goes with" in one or "exact form" in one]


def test_least_examples_are_beside_the_published_and_called_extrapolated() -> None:
    one = about(sentences(), "epsilon 1")
    assert "120 [60, no limit] at an FPR of 0.1 (published: 160)" in one
    assert "At most 4 were trained on; what is beyond is extrapolated." in one and "no guarantee" in one
    within = about(sentences(least=(3.0, 2.0, 3.5)), "epsilon 1")
    assert "extrapolated" not in within


def test_what_the_published_law_says_is_rounded_as_published() -> None:
    """The published table of least examples, as third-party notes quote it."""
    table = {
        0.1: (5400, 1100, 360, 160),
        0.01: (69000, 16000, 5900, 2700),
        0.001: (320000, 88000, 38000, 19000),
    }
    for rate, row in table.items():
        for epsilon, expected in zip((0.25, 0.5, 0.75, 1.0), row, strict=True):
            assert published(epsilon, rate) == f"{expected:,}"
    assert set(table) == set(PAPER) and published(1.0, 0.2) == ""


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (dict.fromkeys(SIZES, (0.1, 0.09, 0.11)), "at an FPR of 0.1 in none of 4 cells"),
        (dict.fromkeys(SIZES, (0.05, 0.04, 0.06)), "at an FPR of 0.1 in none of 4 cells"),
        ({**dict.fromkeys(SIZES, near(0.1)), SIZES[0]: near(0.2)}, "at an FPR of 0.1 in 1 of 4 cells"),
    ],
    ids=["holds the rate", "below it", "above it once"],
)
def test_what_the_loss_alone_tells_is_counted(told: dict[Size, tuple[float, ...]], words: str) -> None:
    one = about(sentences(tpr={**TPR, "bare": told}), "The loss alone (bare)")
    assert words in one and "its AUC is 0.60." in one


def test_attacks_at_chance_are_named_with_their_cells() -> None:
    assert not [one for one in sentences() if one.startswith("Not shown")]
    told = {**TPR, "weak": {**TPR["weak"], SIZES[0]: near(0.1), SIZES[1]: near(0.105)}}
    one = about(sentences(tpr=told), "Not shown")
    assert one == "Not shown to be more than guessing: weak at an FPR of 0.1 in 2 of 4 cells."


def test_the_gradient_is_said_to_tell_no_more_than_its_intervals_show() -> None:
    one = about(sentences(), "Spearman")
    assert "odds grows with the norm" in one and "0.50 (S-4/C-2) to 0.90 (S-4/C-3)" in one
    assert "above zero in 4 of 4 cells" in one
    some = about(sentences(rho={**RHO, SIZES[1]: (0.1, -0.1, 0.3)}), "Spearman")
    assert "is shown to grow with" in some and "in 3 of 4 cells" in some
    none = about(sentences(rho=dict.fromkeys(SIZES, (-0.1, -0.2, 0.0))), "Spearman")
    assert "is not shown to grow with" in none and "in 0 of 4 cells" in none


def test_refused_rates_say_what_they_would_take() -> None:
    one = about(sentences(), "refused")
    assert one.startswith("An FPR of 0.01 is refused in 4 of 4 cells: it takes 1,000 distinct records, and")
    assert one.endswith("and there are 120.")
    partly = {name: {size: own[size] for size in SIZES[:3]} for name, own in TPR.items()}
    found = sentences(tpr=partly)
    assert about(found, "FPR of 0.1 is refused in 1 of 4 cells: it takes 100 distinct")
    assert "over 3 cells" in about(found, "tells most")


def test_where_every_rate_is_refused_auc_is_left() -> None:
    nothing: dict[str, dict[Size, tuple[float, float, float]]] = {name: {} for name in TPR}
    found = sentences(tpr=nothing, slope=None, auc={**AUC, "weak": 0.95})
    assert found[0] == "No rate of false positives is resolved in any cell; by AUC, weak tells most."
    assert "The loss alone (bare): its AUC is 0.60." in found
    assert about(found, "FPR of 0.1 is refused in 4 of 4").endswith("and there are fewer.")


def test_heads_that_did_not_converge_are_counted() -> None:
    assert not [one for one in sentences() if "converged" in one]
    one = about(sentences(converged=0.875), "converged")
    assert "In 4 of 4 cells not all heads have converged; the fewest, 87.5%" in one


def test_several_grids_are_named() -> None:
    own = grid(lines(TPR, AUC, RHO))
    found = said([own, own])
    assert len(found) > 4 and all(one.startswith("toy: ") for one in found)


def test_tables_have_a_line_an_s_and_a_column_a_c() -> None:
    partly = {name: {size: own[size] for size in SIZES[:3]} for name, own in TPR.items()}
    sheets = {sheet.name: sheet for sheet in attacks(grid(lines(partly, AUC, RHO)))}
    strong = sheets["strong"]
    assert strong.headings == ("TPR at FPR 0.1, %", "AUC") and strong.classes == (2, 3)
    assert list(strong.lines) == [2, 4] and strong.lines[2][0] == (ABSENT,)
    assert strong.lines[4][:2] == [
        ("40.0", "[39.0, 41.0]", "anew 20.0"),
        ("50.0", "[49.0, 51.0]", "anew 25.0"),
    ]
    assert strong.lines[4][2:] == [("0.90", "[0.50, 0.99]")] * 2
    accuracy, converged, rho = (heads(grid(lines(TPR, AUC, RHO))).lines[4][i] for i in (1, 3, 5))
    assert (
        accuracy == ("75.0", "[70.0, 80.0]") and converged == ("100.0",) and rho == ("0.90", "[0.80, 0.95]")
    )


def test_records_without_a_figure_have_no_table() -> None:
    assert records(grid(lines(TPR, AUC, RHO)), 0.1) == []
    table = lines(TPR, AUC, RHO)
    worst = type(table[0])(
        "weak/S-4/C-3", "membership", "tpr of a record at fpr 0.1, worst", "", "toy", figure(1, 1, 1)
    )
    (sheet,) = records(grid([*table, worst]), 0.1)
    assert sheet.name == "weak" and sheet.headings[2] == "Worst" and sheet.lines[4][5] == ("100.0",)


def test_laws_stand_above_the_published_ones() -> None:
    own = grid(lines(TPR, AUC, RHO))
    law, exact, *paper = fitted(own)
    assert (law.name, law.rate, law.used) == ("strong", "0.1", "7 of 8")
    assert law.slopes[0] == ("-0.500", "[-0.600, -0.400]") and law.held_out == ("",)
    assert exact.slopes[0] == ("-0.5", "of theory") and exact.slopes[1] == ("0.300", "[0.100, 0.500]")
    assert [(one.name, one.rate, one.slopes[0]) for one in paper] == [
        ("published", "0.1", ("-0.506",)),
        ("published", "0.01", ("-0.555",)),
    ]
    assert [(name, rate, cells[-1]) for name, rate, cells in least(own)] == [
        ("strong", "0.1", ("120", "[60, no limit]")),
        ("published", "0.1", ("160",)),
        ("published", "0.01", ("2,700",)),
    ]
    without = grid(lines(TPR, AUC, RHO, slope=None))
    assert fitted(without) == [] and least(without) == []
