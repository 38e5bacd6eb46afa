"""The page on membership inference, made by its real stage from small grids; and what its pictures show."""

import base64
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from PIL import Image

from mipriv.analysis.power_law import PAPER, PowerLaw
from mipriv.analysis.shift_law import ShiftLaw
from mipriv.metrics.membership import Curve, roc
from mipriv.stats import Figure
from tasks import evaluate_membership, leakage, report_membership
from tasks.engine import events
from tasks.engine.stage import launch
from tasks.page import pictures, vulnerability
from tasks.page.vulnerability import Panel, Point, Told
from tasks.tables import write_csv
from tests.report.conftest import MINUS, Page
from tests.report.membership_parts import ATTACKS, SIZES, Line, blocks, files, lines, near
from tests.report.test_clients import framed

Make = Callable[..., Path]
PATHS = {"shadows": "shadows", "attacks": "membership", "evaluation": "evaluation"}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes the page of a table and of small files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIPRIV_PUBLISH", "off")
    before, threads = dict(os.environ), torch.get_num_threads()

    def made(table: list[Line] | None, out: str = "out", **changed: Any) -> Path:
        (tmp_path / "params.yaml").write_text(json.dumps(blocks() | changed))
        if not (tmp_path / "shadows").exists():
            files(tmp_path)
        if table is None:
            arguments = ["--shadows", "shadows", "--attacks", "membership", "--victims", "victims"]
            arguments += ["--out", "evaluation"]
            arguments += ["--events", "evaluation.jsonl"]
            run, model = evaluate_membership.run, evaluate_membership.EvaluateMembership
            assert launch(run, ["shadows", "attacks", "victims"], model, arguments, deps=None) == 0
        else:
            write_csv(tmp_path / "evaluation" / leakage.FILE, [line.flat() for line in table])
        argv = [word for option, path in PATHS.items() for word in (f"--{option}", path)]
        argv += ["--out", out, "--events", f"{out}.jsonl"]
        page = report_membership.ReportMembership
        assert launch(report_membership.run, list(PATHS), page, argv, deps=None) == 0
        return tmp_path / out

    yield made
    os.environ.clear()
    os.environ.update(before)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def table(**changed: Any) -> list[Line]:
    tpr = {name: {size: near(0.2 + 0.6 / size.examples) for size in SIZES} for name in ATTACKS}
    wanted = {"tpr": tpr, "auc": dict.fromkeys(ATTACKS, 0.75), "rho": dict.fromkeys(SIZES, (0.5, 0.4, 0.6))}
    return lines(**{**wanted, **changed})


def test_the_page_has_findings_pictures_and_tables(make: Make) -> None:
    page = Page(make(table()) / "report.html")
    assert f"to the power {MINUS}0.500 [{MINUS}0.600, {MINUS}0.400]" in page.text
    assert "Of 3 attacks strong tells most" in page.text
    assert "toy: the attack that tells most, strong; means over 2 seeds" in page.text
    whole = page.text[page.text.index("Every attack, every cell") : page.text.index("Record by record toy")]
    assert whole.count("50.0 [49.0, 51.0] anew 25.0") == 6 and whole.count("35.0 [34.0, 36.0] anew 17.5") == 6
    assert [whole.index(f" {name} 2 ") for name in ATTACKS] == sorted(
        whole.index(f" {n} 2 ") for n in ATTACKS
    )
    laws = page.text[page.text.index("Laws toy") : page.text.index("At every rate")]
    assert f"strong 0.1 {MINUS}0.500" in laws and f"published 0.01 {MINUS}0.555" in laws
    assert "strong, exact form all" in laws and "7 of 8" in laws and "[60, no limit]" in laws
    assert "Natural accuracy, % Converged, %" in page.text and "75.0 [70.0, 80.0]" in page.text


def test_the_page_says_how_it_was_made(make: Make) -> None:
    text = Page(make(table()) / "report.html").text
    assert "features toy: abacus, weights initial, frozen, of the images of toys" in text
    assert "S 2, 4; C 2, 3; 16 models a pool" in text and "seeds 5, 1" in text
    assert "converged (penalty 0.01), target and shadows alike" in text
    assert "masked in fp64: 4 of 4 cells" in text
    assert "rows.toy.distinct 100" in text and "rows.strong.attack" in text and "roc [[4, 3], [2, 2]]" in text


def test_nothing_is_loaded_from_elsewhere_and_every_picture_is_described(make: Make) -> None:
    page = Page(make(table()) / "report.html")
    assert "http:" not in page.source and "https:" not in page.source
    assert "url(" not in page.source and "@import" not in page.source
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 3
    for attributes in images:
        assert len(attributes["alt"] or "") > 60
        kind, _, data = (attributes["src"] or "").partition(",")
        assert kind == "data:image/png;base64"
        Image.open(io.BytesIO(base64.b64decode(data))).verify()
    assert "at S = 4, C = 3 and S = 2, C = 2" in str(images[1]["alt"])
    anchors = {a["href"] for tag, a in page.tags if tag == "a"}
    assert anchors == {f"#{a['id']}" for tag, a in page.tags if "id" in a and tag == "h2"}


def test_pictures_are_files_too_and_a_second_run_gives_the_same_bytes(make: Make) -> None:
    first, second = make(table(), "one"), make(table(), "two")
    names = sorted(path.name for path in first.iterdir())
    assert names == ["power_law-toy.png", "records-toy.png", "report.html", "roc-toy.png"]
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    kinds = {
        one["name"]: one["kind"]
        for one in events.read(first.with_suffix(".jsonl"))
        if one["event"] == "artifact"
    }
    assert kinds == {name: "file" if name == "report.html" else "image" for name in names}


def test_what_the_stage_before_writes_is_what_is_shown(make: Make) -> None:
    """From scores to page: the law that the files were made by is found, and what its TPR is of."""
    text = Page(make(None) / "report.html").text
    assert f"to the power {MINUS}0.500 [{MINUS}0.500, {MINUS}0.500]" in text
    assert "to the power 0.200 [0.200, 0.200]" in text and "8 of 8" in text
    assert "strong finds 62.9% [61.9, 63.9] of the members with 2 examples a class" in text
    assert "and 47.4% [46.4, 48.4] of the members with 4 examples" in text
    assert (
        "An FPR of 0.01 is refused in 4 of 4 cells: it takes 1,000 distinct records, and there are 20."
        in text
    )
    assert "TPR at FPR 0.1, %" in text and "TPR at FPR 0.01, %" not in text


def test_where_every_rate_is_refused_the_page_says_so(make: Make) -> None:
    nothing: dict[str, Any] = {name: {} for name in ATTACKS}
    page = Page(make(table(tpr=nothing, slope=None)) / "report.html")
    assert "No rate of false positives is resolved in any cell" in page.text
    assert "so there is nothing to draw" in page.text and "toy: no law." in page.text
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 2


def test_a_scale_without_rows_has_its_page(make: Make) -> None:
    empty = {"rows": {}}
    changed = {
        "features": empty,
        "shadows": {**blocks()["shadows"], **empty},
        "membership": {**blocks()["membership"], **empty},
    }
    out = make(None, **changed)
    page = Page(out / "report.html")
    assert "Nothing was run: membership.rows is empty at this scale" in page.text
    assert [path.name for path in out.iterdir()] == ["report.html"]
    assert not [tag for tag, _ in page.tags if tag in ("img", "table")]
    assert Path("evaluation", leakage.FILE).read_text().count("\n") == 1


def test_shadows_that_nobody_attacks_are_left_out(make: Make) -> None:
    values = blocks()
    values["shadows"]["rows"]["idle"] = values["shadows"]["rows"]["toy"]
    page = Page(make(table(), shadows=values["shadows"]) / "report.html")
    assert "Data: toy" in page.text and "Data: idle" not in page.text


def test_names_are_text_and_nothing_else(make: Make) -> None:
    values = blocks()["membership"]
    values["rows"]["<i class=x>"] = values["rows"].pop("strong")
    own = [
        Line(
            line.subject.replace("strong", "<i class=x>"),
            line.kind,
            line.figure,
            "",
            line.against,
            line.value,
        )
        for line in table()
    ]
    files(Path())
    Path("membership", "strong").rename(Path("membership", "<i class=x>"))
    page = Page(make(own, membership=values) / "report.html")
    assert "<i class=x>" not in page.source and "<i class=x> 2 50.0 [49.0, 51.0]" in page.text


def drawn(monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]) -> Any:
    """The figure, not its file."""
    with monkeypatch.context() as inside:
        inside.setattr(vulnerability, "saved", lambda figure: figure)
        return call()


def point(examples: int, tpr: float, low: float, high: float, whole: bool = True) -> Point:
    return Point(examples, Figure(tpr, low, high, 9, 3, ""), whole)


LAW, EXACT = PowerLaw(0.1, -0.5, 0.2, 0.1), ShiftLaw(-0.5, 0.3, 0.5)
PANEL = Panel(
    0.1,
    {2: [point(8, 0.5, 0.4, 0.55), point(32, 0.09, 0.05, 0.2)], 10: [point(8, 0.95, 0.9, 0.97, whole=False)]},
    LAW,
    EXACT,
    (PAPER[0.1], 10),
)


def test_points_stand_at_tpr_less_fpr_and_lines_are_the_laws(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = drawn(monkeypatch, lambda: vulnerability.power_law([PANEL])).axes[0]
    assert axes.get_xscale() == axes.get_yscale() == "log" and axes.get_title() == "at an FPR of 0.1"
    floor = axes.get_ylim()[0]
    found = []
    for one in axes.containers:
        assert isinstance(one, ErrorbarContainer)
        mark, _, (bar,) = one
        (x, y), ends = mark.get_xydata()[0], bar.get_segments()[0][:, 1]
        found.append((round(x), float(y), *map(float, ends), to_hex(mark.get_markerfacecolor()).upper()))
    first, second = (color for color, _ in pictures.MARKS[:2])
    assert [one[-1] for one in found] == [first, first, "#FFFFFF"] and first != second
    assert found[0][:-1] == pytest.approx((8, 0.4, 0.3, 0.45))
    assert found[1][:-1] == pytest.approx((31, floor, floor, 0.1))  # at chance: on the edge
    assert found[2][:-1] == pytest.approx((8, 0.85, 0.8, 0.87))
    curves = {
        (to_hex(line.get_color()).upper(), line.get_linestyle()): line
        for line in axes.lines
        if len(line.get_xdata()) > 9
    }
    assert set(curves) == {(color, dash) for color in (first, second) for dash in ["-", "--"]} | {
        (pictures.GREY, ":")
    }
    for (color, dash), line in curves.items():
        classes = 2 if color == first else 10
        for s, y in zip(*line.get_data(), strict=True):
            told = {"-": LAW, ":": PAPER[0.1]}.get(dash)
            expected = (
                EXACT.predict(s, classes, 0.1)
                if told is None
                else 0.1 + 10 ** (told.b_s * np.log10(s) + told.b_c * np.log10(classes) + told.b_0)
            )
            assert np.isnan(y) if expected >= 1 else y == pytest.approx(float(expected) - 0.1)


def test_the_key_names_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def named(panel: Panel) -> list[str]:
        (key,) = drawn(monkeypatch, lambda: vulnerability.power_law([panel])).legends
        return [one.get_label() for one in key.legend_handles]

    assert named(PANEL) == [
        *("C = 2", "C = 10", "left out of the line", "power law, fitted", "exact form, fitted"),
        "published, C = 10",
    ]
    assert named(Panel(0.1, {2: [point(8, 0.5, 0.4, 0.6)]}, None, None, None)) == ["C = 2"]


def test_a_curve_is_read_at_the_largest_rate_reached() -> None:
    curve = Curve(np.array([0.0, 0.2, 0.5, 1.0]), np.array([0.1, 0.4, 0.9, 1.0]), 0)
    rates = np.array([0.001, 0.19, 0.2, 0.4, 0.5, 1.0])
    assert vulnerability.reached(curve, rates).tolist() == [0.1, 0.1, 0.4, 0.4, 0.9, 1.0]


def test_curves_lie_over_the_diagonal_and_unresolved_rates_are_grey(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, members = torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.tensor([True, False, True, False])
    cells = [Told("S = 4, C = 3", {name: roc(scores, members) for name in "abcdefg"}, 0.02)]
    axes = drawn(monkeypatch, lambda: vulnerability.roc(cells)).axes[0]
    (grey,) = axes.patches
    assert (grey.get_x(), grey.get_x() + grey.get_width()) == pytest.approx((vulnerability.LEAST_RATE, 0.02))
    diagonal, *curves = axes.lines
    assert (diagonal.get_xdata() == diagonal.get_ydata()).all() and len(curves) == 7
    for curve in curves:
        at = np.searchsorted(curve.get_xdata(), 0.5)
        assert curve.get_ydata()[at - 1] == 0.5 and curve.get_ydata()[at] == 1.0
    looks = {(curve.get_color(), curve._unscaled_dash_pattern[1]) for curve in curves}
    assert len(looks) == 7


def test_a_record_is_a_dot_at_its_norm_and_separation(monkeypatch: pytest.MonkeyPatch) -> None:
    norms, apart = np.array([0.01, 1.0, 20.0]), np.array([-0.1, 0.5, 8.0])
    rho = Figure(0.9312, 0.9281, 0.9344, 7680, 3, "")
    axes = drawn(monkeypatch, lambda: vulnerability.records(norms, apart, rho)).axes[0]
    assert axes.collections[0].get_offsets().tolist() == np.stack([norms, apart], 1).tolist()
    assert axes.get_xscale() == "log"
    assert axes.get_title() == "rank correlation 0.931 [0.928, 0.934] over 7,680 records of 3 seeds"


def test_nothing_is_cut_off() -> None:
    scores = torch.linspace(0, 1, 40)
    curves = {f"an attack with a long name {i}": roc(scores, scores > 0.5) for i in range(5)}
    wide = [
        vulnerability.power_law([PANEL] * 3),
        vulnerability.power_law([PANEL]),
        vulnerability.roc([Told("S = 128, C = 10", curves, 0.01)] * 2),
        vulnerability.roc([Told("S = 128, C = 10", curves, 2.0)]),
        vulnerability.records(np.array([1e-4, 30.0]), np.array([0.0, 20.0]), None),
    ]
    assert all(framed(picture) for picture in wide)
