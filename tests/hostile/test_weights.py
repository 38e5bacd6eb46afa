"""Checkpoints that execute, lie, or hold what was not asked for."""

import contextlib
import json
import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mipriv.errors import InputError
from mipriv.models import foreign
from mipriv.models.foreign import Blueprint, Preprocessing
from tests.hostile.conftest import Payload

SHAPE, CLASSES = (3, 32, 32), 4
GREY = Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
ARCH = "mobilenet_v3_small"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return dict(Blueprint(ARCH, "").build(CLASSES, SHAPE).state_dict())


def load(path: Path, **knobs: object) -> foreign.Foreign:
    blueprint = Blueprint(knobs.pop("arch", ARCH), str(path), **knobs)  # type: ignore[arg-type]
    return foreign.load(blueprint, path, GREY, SHAPE, CLASSES)


def refusal(path: Path, **knobs: object) -> str:
    with pytest.raises(InputError) as error:
        load(path, **knobs)
    said = str(error.value)
    assert "\n" not in said
    return said


def test_what_is_right_is_read_in_every_wrapping(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "flat.pt")
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, tmp_path / "wrapped.pt")
    save_file(state, tmp_path / "flat.safetensors")
    renamed = {k.replace("classifier.", "head.", 1): v for k, v in state.items()}
    torch.save({**renamed, "teacher.w": torch.zeros(2)}, tmp_path / "renamed.pt")
    images = torch.rand(2, *SHAPE)
    found = [
        load(tmp_path / "flat.pt"),
        load(tmp_path / "flat.safetensors"),
        load(tmp_path / "wrapped.pt", entry="model", prefix="module."),
        load(tmp_path / "renamed.pt", rename={"head": "classifier"}, drop=("teacher",)),
    ]
    with torch.no_grad():
        answers = [model(images) for model in found]
    assert all(torch.equal(answers[0], other) for other in answers[1:])


@pytest.mark.parametrize("how", ["torch.save", "pickle", "pickle in the archive of torch.save", "entry"])
def test_pickled_code_leaves_no_mark(state: dict[str, Tensor], tmp_path: Path, mark: Path, how: str) -> None:
    path = tmp_path / "evil.pt"
    held = {**state, "classifier.0.weight": Payload(mark)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(held))
    elif how == "entry":
        torch.save({"state_dict": state, "optimizer": Payload(mark)}, path)
    else:
        torch.save(held, path)
    if how == "pickle in the archive of torch.save":
        parts = tmp_path / "parts.pt"
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(parts, "w") as new:
            for name in old.namelist():
                code = name.endswith("data.pkl")
                new.writestr(name, pickle.dumps(Payload(mark)) if code else old.read(name))
        path = parts
    entry = "state_dict" if how == "entry" else None
    assert "refused: not a plain file of tensors" in refusal(path, entry=entry)
    assert not mark.exists()
    # As a reader that unpickles would see it: what `os.mkdir` returned stands where a tensor should.
    with contextlib.suppress(Exception):
        torch.load(path, weights_only=False)
    assert mark.exists(), "the file does harm where it is believed"


def test_pickled_code_called_safetensors_leaves_no_mark(tmp_path: Path, mark: Path) -> None:
    path = tmp_path / "evil.safetensors"
    path.write_bytes(pickle.dumps(Payload(mark)))
    assert "not a readable safetensors file" in refusal(path) and not mark.exists()


def test_extra_missing_and_other_tensors_are_one_line(state: dict[str, Tensor], tmp_path: Path) -> None:
    last = "classifier.3.weight"
    for change, said in (
        ({**state, "backdoor.weight": torch.zeros(3)}, "unexpected tensor 'backdoor.weight'"),
        ({k: v for k, v in state.items() if k != last}, f"tensor '{last}' is missing"),
        ({**state, "features.0.0.weight": torch.zeros(2, 3, 3, 3)}, r"has shape (2, 3, 3, 3); allowed"),
        ({**state, last: torch.full_like(state[last], torch.nan)}, "holds values that are not finite"),
        ({**state, last: state[last].to(torch.int32)}, "is torch.int32"),
        ({**state, last: state[last].to_sparse()}, "refused"),
    ):
        torch.save(change, tmp_path / "w.pt")
        assert said in refusal(tmp_path / "w.pt")


def test_another_number_of_classes_is_said_as_such(tmp_path: Path) -> None:
    other = Blueprint(ARCH, "").build(7, SHAPE).state_dict()
    torch.save(other, tmp_path / "w.pt")
    said = refusal(tmp_path / "w.pt")
    assert said.endswith("7 classes by 'classifier.3.weight'; the data and `classes` say 4")


def test_what_is_no_state_dict_is_said_with_what_it_holds(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "w.pt")
    assert "it holds 'state_dict', 'epoch'; allowed is a flat mapping" in refusal(tmp_path / "w.pt")
    said = refusal(tmp_path / "w.pt", entry="stat_dict")
    assert "entry: 'stat_dict' does not exist (did you mean 'state_dict'?)" in said
    save_file(state, tmp_path / "w.safetensors")
    assert "a safetensors file holds tensors alone" in refusal(tmp_path / "w.safetensors", entry="model")
    assert "no such file" in refusal(tmp_path / "none.pt")
    collide = {**state, "head.3.weight": torch.zeros(1)}
    torch.save(collide, tmp_path / "c.pt")
    assert "two tensors would be" in refusal(tmp_path / "c.pt", rename={"head": "classifier"})


@pytest.mark.parametrize(
    "lie",
    [
        {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 2**40]}},
        {"w": {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 16]}},
        {"w": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}},
        {
            "w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
            "v": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
        },
    ],
    ids=["beyond the file", "more than there is", "before the file", "overlap"],
)
def test_a_safetensors_header_that_lies_is_refused(tmp_path: Path, lie: object) -> None:
    header = json.dumps(lie).encode()
    path = tmp_path / "lie.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    assert "not a readable safetensors file" in refusal(path)


@pytest.mark.parametrize("length", [2**63, 2**40, 10**6])
def test_a_safetensors_header_of_untrue_length_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "lie.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    assert "not a readable safetensors file" in refusal(path)


def test_an_archive_whose_names_climb_writes_nothing(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    path = inside / "w.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../climbed", b"x")
        archive.writestr("../../climbed", b"x")
    assert "refused" in refusal(path)
    assert not list(tmp_path.rglob("climbed")) and not (tmp_path.parent / "climbed").exists()


@pytest.fixture
def code(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that leaves a mark as soon as it is imported."""
    name = "somebodys_network"
    text = f"import os, torch\nos.mkdir({str(mark)!r})\n"
    text += (
        "def make(width=1):\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 4))\n"
    )
    text += "def wrong():\n    return 7\ndef broken():\n    raise ValueError('two\\nlines')\n"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_a_factory_is_imported_only_where_it_is_asked_for(code: str, tmp_path: Path, mark: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"1.weight": torch.zeros(4, 3072), "1.bias": torch.zeros(4)}, path)
    assert "allow_code: true" in refusal(path, arch=f"{code}:make") and not mark.exists()
    assert load(path, arch=f"{code}:make", allow_code=True)(torch.zeros(1, *SHAPE)).shape == (1, 4)
    assert mark.exists()
    assert "made a int" in refusal(path, arch=f"{code}:wrong", allow_code=True)
    assert "cannot be built" in refusal(path, arch=f"{code}:broken", allow_code=True)
    assert "cannot be imported" in refusal(path, arch=f"{code}:none", allow_code=True)
    os.rmdir(mark)


def test_architectures_and_knobs_that_do_not_exist_are_one_line(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "w.pt")
    assert "did you mean 'resnet18'" in refusal(tmp_path / "w.pt", arch="resnet81")
    assert "'weights' is not yours to set" in refusal(tmp_path / "w.pt", knobs={"weights": "DEFAULT"})
    assert "cannot be built" in refusal(tmp_path / "w.pt", arch="resnet18", knobs={"colour": 1})
    assert "did you mean 'resnet20'" in refusal(tmp_path / "w.pt", arch="plugin:resnet2")


def test_preprocessing_and_label_maps_that_do_not_fit_are_one_line(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    for wrong in (((0.5,), (0.5, 0.5)), ((0.5, 0.5), (1.0, 1.0)), ((0.5,), (0.0,))):
        with pytest.raises(InputError, match="allowed: 1 or 3 numbers each, std above 0"):
            Preprocessing(*wrong)
    torch.save(state, tmp_path / "w.pt")
    one = Preprocessing((0.5,), (0.5,))
    with pytest.raises(InputError, match="images of 3 channels, mean of 1"):
        foreign.load(Blueprint(ARCH, ""), tmp_path / "w.pt", one, SHAPE, CLASSES)
    with pytest.raises(InputError, match=r"takes no images \[1, 32, 32\]"):
        foreign.load(Blueprint(ARCH, ""), tmp_path / "w.pt", one, (1, 32, 32), CLASSES)
    with pytest.raises(InputError, match="classes: no 'c', a class of the data"):
        foreign.outputs_of(["a", "c"], ["b", "a"])
    with pytest.raises(InputError, match="classes: 'a' is there twice"):
        foreign.outputs_of(["a"], ["a", "b", "a"])
    assert foreign.outputs_of(["s2", "s10"], ["s1", "s10", "s2"]) == [2, 1]
