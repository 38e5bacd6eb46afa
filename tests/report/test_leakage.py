"""The leakage table: written, read back, spelt, and shown on a terminal."""

import subprocess
import sys
from pathlib import Path

import pytest

from mipriv.errors import InputError
from mipriv.stats import Figure
from tasks import leakage, show
from tasks.leakage import TOP1, Table
from tasks.tables import write_csv
from tests.report.leakage_lines import LESS, figure, table

ROOT = Path(__file__).parents[2]


def written(content: Table, folder: Path) -> Path:
    write_csv(folder / leakage.FILE, [line.flat() for line in content.lines])
    return folder / leakage.FILE


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    whole = table(plain='a, "quoted" row')
    assert leakage.read(written(whole, tmp_path)) == whole


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text(path.read_text().replace("subject", "row", 1)),
        lambda path: path.write_text(path.read_text().replace("0.95", "high", 1)),
        lambda path: path.write_text(path.read_text().rstrip().rsplit(",", 3)[0]),
        lambda path: path.write_bytes(b"\xff\xfe\x00"),
    ],
    ids=["missing", "column", "number", "cut off", "binary"],
)
def test_what_is_no_table_is_one_line(tmp_path: Path, spoil, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(table(), tmp_path)
    spoil(path)
    with pytest.raises(InputError, match="no leakage table") as refused:
        leakage.read(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)
    assert show.main([str(path), "--report", "x"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_figure_is_found_by_all_that_names_it() -> None:
    whole = table(reached={"second": (0.4, 0.2, 0.6)}, change={"second": (0.1, -0.1, 0.3)})
    assert whole.judges == ["first", "second"]
    assert whole.subjects("attack") == ["plain", "guarded"] and whole.subjects("victim") == ["none", "frozen"]
    assert whole.value("guarded", "attack", TOP1, "second") == figure((0.4, 0.2, 0.6))
    assert whole.value("guarded", "difference", TOP1, "first", "plain") == figure(LESS)
    assert whole.value("guarded", "difference", TOP1, "second", "plain") == figure((0.1, -0.1, 0.3))
    assert whole.twin("guarded") == "plain" and whole.twin("plain") is None
    with pytest.raises(InputError, match="no line 'plain, attack, accuracy@9, first'"):
        whole.value("plain", "attack", "accuracy@9", "first")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.01, 0.2, 1), (-0.2, -0.01, -1), (-0.1, 0.1, 0), (0.0, 0.2, 0), (-0.2, 0.0, 0), (1e-17, 0.2, 0)],
)
def test_an_interval_that_holds_zero_has_no_sign(low: float, high: float, expected: int) -> None:
    assert leakage.sign(Figure((low + high) / 2, low, high, 4, 1, "by hand")) == expected


def test_figures_are_spelt_with_their_intervals() -> None:
    assert leakage.percent(figure((0.5, 0.12345, 1.0000000000000002))) == "50.0 [12.3, 100.0]"
    assert leakage.points(figure((-1e-9, -0.35, 0.063))) == "+0.0 [-35.0, +6.3]"
    assert leakage.plain(figure((267.616, 242.886, 295.775))) == "267.6 [242.9, 295.8]"


def test_metrics_are_points_by_subject_and_judge() -> None:
    nested = leakage.metrics(table(reached={"second": (0.4, 0.2, 0.6)}).lines)
    assert (
        nested["guarded"]["first"]["accuracy@1"] == 0.5 and nested["guarded"]["second"]["accuracy@1"] == 0.4
    )
    assert nested["none"]["natural accuracy"] == 0.975 and "mean" not in nested
    assert nested["none"]["first"] == {"agreement on public images": 0.25}


def test_the_terminal_shows_every_attack_floor_and_victim_by_two_judges() -> None:
    shown = list(show.lines(table(reached={"second": (0.4, 0.2, 0.6)})))
    (row,) = [line for line in shown if line.startswith("guarded ")]
    assert row.split("  ")[0] == "guarded"
    places = [row.index(cell) for cell in ("50.0 [30.0, 70.0]", "-25.0 [-40.0, -10.0]", "40.0 [20.0, 60.0]")]
    assert places == sorted(places) and places[0] == shown[0].index("first")
    assert places[2] == shown[0].index("second")
    assert [line for line in shown if line.startswith("plain ") and "75.0 [60.0, 90.0]" in line]
    assert [
        line for line in shown if line.startswith("guarded, selected only") and "20.0 [10.0, 30.0]" in line
    ]
    assert [line for line in shown if line.startswith("mean ")] and [
        line for line in shown if "real " in line
    ]
    assert [line for line in shown if line.startswith("frozen") and "87.5 [80.0, 92.5]" in line]
    assert any("over 4 people" in line for line in shown)


def test_no_line_is_wider_than_a_terminal_and_nothing_is_cut() -> None:
    name, judge = "an-attack-with-a-very-long-name-on-" + "x" * 40, "judge" * 9
    shown = list(show.lines(table(guarded=name, judges=(judge, "second", "third"))))
    assert max(map(len, shown)) <= 120
    first_column = "".join(line[: show.NAME].strip() for line in shown)
    assert name in first_column
    assert any("1 more" in line for line in shown)


def test_the_terminal_says_where_to_look_further_without_loading_torch(tmp_path: Path) -> None:
    path = written(table(), tmp_path)
    code = (
        "import sys; from tasks import show; code = show.main(sys.argv[1:]);"
        "assert not {'torch', 'mlflow', 'matplotlib'} & set(sys.modules); raise SystemExit(code)"
    )
    command = [sys.executable, "-c", code, str(path), "--report", "out/report.html"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert str(ROOT / "out/report.html") in done.stdout and "make ui" in done.stdout
