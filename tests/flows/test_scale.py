"""Other scales of a project: files below scales/, in folders of their own too."""

import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flows import project, scale, whole


@pytest.fixture
def scaled(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with scales right in the folder and below it, as the current folder."""
    folder = fresh / "scales" / "papers"
    folder.mkdir(parents=True)
    (fresh / "scales" / "plain.yaml").write_text("alone.seconds: 0.2\n")
    (folder / "one.yaml").write_text("alone.seconds: 0.3\n")
    (folder / "two.yaml").write_text("join.seconds: 0.4\n")
    monkeypatch.chdir(fresh)
    monkeypatch.setenv("MIPRIV_CELLS", "set, so that it is set back")
    return fresh


def started(source: Path, name: str, monkeypatch: pytest.MonkeyPatch, *stages: str) -> Path:
    """Where ``python -m flows.scale NAME STAGE...`` runs those stages of what it has copied."""
    ran: list[tuple[Path, list[str]]] = []
    monkeypatch.setattr(whole, "run", lambda target, wanted: ran.append((target, wanted)) or 0)
    monkeypatch.setattr(sys, "argv", ["flows.scale", name, *stages])
    monkeypatch.chdir(source)
    assert scale.main() == 0
    ((target, wanted),) = ran
    assert wanted == list(stages)
    return target


def seconds(folder: Path, stage: str) -> float:
    found: float = YAML(typ="safe").load((folder / "params.yaml").read_text())[stage]["seconds"]
    return found


def test_a_scale_of_a_folder_is_copied_into_a_folder_of_its_name(
    scaled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {name: started(scaled, name, monkeypatch) for name in ("plain", "papers/one", "papers/two")}
    assert places == {name: scaled / ".scales" / name for name in places}
    found = {name: (seconds(at, "alone"), seconds(at, "join")) for name, at in places.items()}
    assert found == {"plain": (0.2, 0.1), "papers/one": (0.3, 0.1), "papers/two": (0.1, 0.4)}
    assert seconds(scaled, "alone") == 0.1
    assert all((at / "dvc.yaml").is_file() and (at / ".git").is_dir() for at in places.values())


def test_some_stages_of_a_scale_may_be_asked_for(scaled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert started(scaled, "plain", monkeypatch, "join", "alone") == scaled / ".scales" / "plain"


@pytest.mark.parametrize("name", ["one", "papers", "papers/three", "../scales/plain"])
def test_an_unknown_scale_is_refused_with_those_there_are(
    name: str, scaled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(project.Mistake):
        scale.prepare(scaled, name, scaled / ".scales" / name)
    said = f"error: scale {name!r} does not exist; allowed: papers/one, papers/two, plain\n"
    assert capsys.readouterr().err == said and not (scaled / ".scales").exists()
