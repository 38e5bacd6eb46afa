"""Cells: keys, resume and damage."""

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path

import engine_toys
import pytest

from mipriv.errors import InputError
from tasks.engine import cells, sealed
from tasks.engine.cells import Cell, Place, Result


def quiet(done: int, total: int) -> None:
    """A progress that says nothing."""


@pytest.fixture
def cell(tmp_path: Path, log: Path) -> Cell:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("a")
    (tmp_path / "mipriv").mkdir()
    (tmp_path / "mipriv" / "code.py").write_text("X = 1")
    inputs, sources = {"data": tmp_path / "data"}, (Path("mipriv/code.py"),)
    return Cell("seed-3", "engine_toys:square", {"seed": 3, "log": str(log)}, inputs, sources)


def test_a_result_holds_what_the_function_wrote_and_recorded(cell: Cell, place: Place) -> None:
    result = cells.compute(cell, place, quiet)
    assert not result.resumed and result.paths == ("deep/square.txt", "seed.txt")
    assert (result.files / "deep" / "square.txt").read_text() == "9"
    assert [line["values"] for line in result.events() if line["event"] == "metric"] == [
        {"loss": 4.0}, {"loss": 3.5}, {"loss": 3 + 1 / 3},
    ]  # fmt: skip
    assert next(line for line in result.events() if line["event"] == "input")["path"] == "data"
    assert result.folder == place.store / cells.key(cell, place)


def test_the_second_time_nothing_is_computed(cell: Cell, place: Place, log: Path) -> None:
    first = cells.compute(cell, place, quiet)
    second = cells.compute(dataclasses.replace(cell, name="other/name"), place, quiet)
    assert engine_toys.ran(log) == [3]
    assert second == dataclasses.replace(first, name="other/name", resumed=True)
    assert second.events() == first.events()


Change = Callable[[Cell, Place], tuple[Cell, Place]]


def rewrite(path: str, text: str) -> Change:
    def change(cell: Cell, place: Place) -> tuple[Cell, Place]:
        (place.root / path).write_text(text)
        return cell, place

    return change


def touch(path: str) -> Change:
    def change(cell: Cell, place: Place) -> tuple[Cell, Place]:
        os.utime(place.root / path, (1, 1))
        return cell, place

    return change


def reseal(folder: Path) -> None:
    text = (folder / "cell.json").read_text()
    (folder / "cell.json").write_text(text.replace("seed-3", "seed-4"))


@pytest.mark.parametrize(
    "change",
    [
        lambda c, p: (dataclasses.replace(c, function="engine_toys:slow"), p),
        lambda c, p: (dataclasses.replace(c, kwargs={**c.kwargs, "seed": 4}), p),
        lambda c, p: (dataclasses.replace(c, kwargs={**c.kwargs, "seed": 3.0}), p),
        lambda c, p: (dataclasses.replace(c, inputs={"date": c.inputs["data"]}), p),
        lambda c, p: (dataclasses.replace(c, sources=()), p),
        lambda c, p: (c, dataclasses.replace(p, threads=2)),
        rewrite("data/a.txt", "b"),
        rewrite("data/b.txt", "a"),
        rewrite("mipriv/code.py", "X = 2"),
    ],
)
def test_whatever_may_change_the_result_changes_the_key(cell: Cell, place: Place, change: Change) -> None:
    before = cells.key(cell, place)
    assert cells.key(*change(cell, place)) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda c, p: (dataclasses.replace(c, name="other"), p),
        lambda c, p: (dataclasses.replace(c, kwargs=dict(reversed(c.kwargs.items()))), p),
        lambda c, p: (c, dataclasses.replace(p, stage="other", row=None, store=p.root / "elsewhere")),
        touch("data/a.txt"),
        rewrite("mipriv/other.py", "X = 1"),
    ],
)
def test_nothing_else_does(cell: Cell, place: Place, change: Change) -> None:
    before = cells.key(cell, place)
    assert cells.key(*change(cell, place)) == before


def test_a_folder_among_the_sources_counts_with_all_its_files(cell: Cell, place: Place) -> None:
    wide = dataclasses.replace(cell, sources=(Path("mipriv"),))
    before = cells.key(wide, place)
    (place.root / "mipriv" / "__pycache__").mkdir()
    (place.root / "mipriv" / "__pycache__" / "code.pyc").touch()
    assert cells.key(wide, place) == before
    (place.root / "mipriv" / "more.py").touch()
    assert cells.key(wide, place) != before


@pytest.mark.parametrize(
    "kwargs", [{"a": (1, 2)}, {"a": {1: 2}}, {"a": float("nan")}, {"a": {1, 2}}, {"a": Path("b")}]
)
def test_arguments_that_json_cannot_hold_are_refused(
    cell: Cell, place: Place, kwargs: dict[str, object]
) -> None:
    with pytest.raises((TypeError, ValueError)):
        cells.key(dataclasses.replace(cell, kwargs=kwargs), place)


def test_a_missing_input_is_an_error(cell: Cell, place: Place) -> None:
    with pytest.raises(FileNotFoundError):
        cells.key(dataclasses.replace(cell, inputs={"data": place.root / "absent"}), place)


def flip(path: Path, at: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("bit", lambda f: flip(f / "files" / "deep" / "square.txt"), "has an altered files/deep/square.txt"),
    ("events", lambda f: flip(f / "events.jsonl", 5), "has an altered events.jsonl"),
    ("cut", lambda f: os.truncate(f / "files" / "seed.txt", 0), "has an altered files/seed.txt"),
    ("longer", lambda f: (f / "files" / "seed.txt").write_text("33"), "has an altered files/seed.txt"),
    ("gone", lambda f: (f / "files" / "seed.txt").unlink(), "lacks files/seed.txt"),
    ("no seal", lambda f: (f / "cell.json").unlink(), "has no readable cell.json"),
    ("half seal", lambda f: os.truncate(f / "cell.json", 50), "has no readable cell.json"),
    ("list seal", lambda f: (f / "cell.json").write_text("[]"), "has no readable cell.json"),
    ("wrong seal", reseal, "has an altered cell.json"),
]


@pytest.mark.parametrize(
    ("damage", "said"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES]
)
def test_damage_is_noticed_said_in_one_line_and_repaired(
    cell: Cell,
    place: Place,
    log: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    said: str,
) -> None:
    folder = cells.compute(cell, place, quiet).folder
    damage(folder)
    capsys.readouterr()
    again = cells.compute(cell, place, quiet)
    assert capsys.readouterr().err == f"toy@row  seed-3  stored result {said}: computing it again\n"
    assert not again.resumed and engine_toys.ran(log) == [3, 3]
    assert (folder / "files" / "deep" / "square.txt").read_text() == "9"
    assert sealed.damage(folder) is None


def test_every_single_bit_of_a_result_is_covered(cell: Cell, place: Place) -> None:
    folder = cells.compute(cell, place, quiet).folder
    for name in sealed.walk(folder):
        content = (folder / name).read_bytes()
        for at in range(0, len(content), max(1, len(content) // 50)):
            (folder / name).write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
            # Between two tokens of cell.json a bit may turn a space into another: then nothing is lost.
            harmless = name == "cell.json" and content[at : at + 1].isspace()
            assert sealed.damage(folder) is not None or harmless, (name, at)
        (folder / name).write_bytes(content)
    assert sealed.damage(folder) is None


def test_one_variable_makes_it_ignore_what_is_there(
    cell: Cell, place: Place, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells.compute(cell, place, quiet)
    monkeypatch.setenv("MIPRIV_IGNORE_CELLS", "1")
    assert not cells.compute(cell, place, quiet).resumed
    assert engine_toys.ran(log) == [3, 3]


@pytest.mark.parametrize(("function", "error"), [("breaks", ZeroDivisionError), ("refuses", InputError)])
def test_a_failure_leaves_nothing_behind(place: Place, function: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        cells.compute(Cell("a", f"engine_toys:{function}", {}), place, quiet)
    assert [path.suffix for path in place.store.iterdir()] in ([".lock"], [])


def test_a_cell_that_changes_its_input_is_refused(tmp_path: Path, place: Place) -> None:
    (tmp_path / "data").write_text("as it was")
    with pytest.raises(InputError, match="an input or a source of cell a was changed meanwhile"):
        cells.compute(Cell("a", "engine_toys:meddles", {}, {"data": tmp_path / "data"}), place, quiet)
    assert not [path for path in place.store.iterdir() if path.is_dir()]


def test_collect_copies_files_and_nothing_else(cell: Cell, place: Place, tmp_path: Path, log: Path) -> None:
    deep = dataclasses.replace(cell, name="seed-4/ids-000", kwargs={"seed": 4, "log": str(log)})
    results = {c.name: cells.compute(c, place, quiet) for c in (cell, deep)}
    folders = cells.collect(results, tmp_path / "out")
    assert folders == {"seed-3": tmp_path / "out/seed-3", "seed-4/ids-000": tmp_path / "out/seed-4/ids-000"}
    found = {path: (tmp_path / "out" / path).read_text() for path in sealed.walk(tmp_path / "out")}
    assert found == {
        "seed-3/deep/square.txt": "9", "seed-3/seed.txt": "3",
        "seed-4/ids-000/deep/square.txt": "16", "seed-4/ids-000/seed.txt": "4",
    }  # fmt: skip


def test_the_store_is_where_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cells.store(tmp_path) == tmp_path / ".cells"
    monkeypatch.setenv("MIPRIV_CELLS", str(tmp_path / "elsewhere"))
    assert cells.store(tmp_path) == tmp_path / "elsewhere"


def test_a_result_is_a_plain_value(place: Place) -> None:
    import pickle

    for value in (Cell("a", "b:c", {}), place, Result("a", "k", place.root, 1.0, False, ())):
        assert pickle.loads(pickle.dumps(value)) == value
    assert sys.version_info >= (3, 11)
