"""What is told of an audited model, against slow and obvious counts; what is left out, and why."""

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mipriv.errors import InputError
from mipriv.metrics import membership as metrics
from tasks.audits import answers, threats
from tasks.audits.rows import Audit, Row
from tasks.engine import params
from tests.presets import ROOT

PLAIN: dict[str, Any] = {
    "victim": {"arch": "resnet18", "weights": "none.pt"},
    "preprocessing": {"mean": [0.5], "std": [0.5]},
    "classes": "sorted",
    "data": "held_out",
    "training": "trained",
    "layers": ["layer1"],
    "attacks": ["decoder"],
    "knowledge": "public",
    "targets": 2,
    "people": True,
}


def row(**other: Any) -> Row:
    return params.validate(Row, {**PLAIN, **other}, "audit.rows.mine")


def data(**sizes: int) -> Any:
    """As much of a dataset as says which splits it has."""
    names = ("public/train", "public/validation", "private/train", "private/validation", "private/test")
    splits = {name: np.arange(sizes.get(name.replace("/", "_"), 0)) for name in names}
    return types.SimpleNamespace(manifest=types.SimpleNamespace(splits=splits))


@pytest.mark.parametrize("trial", range(5))
def test_the_area_is_the_share_of_pairs_in_order_and_its_interval_that_of_slow_resamples(trial: int) -> None:
    random = np.random.default_rng(trial)
    n, m = random.integers(5, 40, 2)
    values = random.integers(0, 12, n + m).astype(float)  # with ties
    values[:n] += 2 * trial / 5
    members = torch.arange(n + m) < int(n)
    found = metrics.area(torch.from_numpy(values), members, seed=trial, resamples=2000)

    def pairs(own: np.ndarray, others: np.ndarray) -> float:
        return float(np.mean([(a > b) + (a == b) / 2 for a in own for b in others]))

    own, others = values[:n], values[n:]
    assert found.point == pytest.approx(pairs(own, others)) and found.n == n + m
    again = [pairs(random.choice(own, n), random.choice(others, m)) for _ in range(600)]
    low, high = np.quantile(again, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.04) and found.high == pytest.approx(high, abs=0.04)


def test_membership_by_loss_ranks_records_by_how_sure_the_model_is() -> None:
    generator = torch.Generator().manual_seed(0)
    said = [torch.randn(6, 3, generator=generator), torch.randn(9, 3, generator=generator)]
    labels = [torch.randint(3, (len(part),), generator=generator) for part in said]
    own = answers.of_records(said, labels)
    assert own.members[0].tolist() == [True] * 6 + [False] * 9
    scores = answers.scores("loss", own, None)
    loss = torch.nn.functional.cross_entropy(torch.cat(said), torch.cat(labels), reduction="none")
    assert scores.argsort().tolist() == loss.neg().argsort().tolist()


def test_shadows_of_other_records_are_refused(tmp_path: Path) -> None:
    path, labels = tmp_path / "shadows.safetensors", torch.zeros(5, dtype=torch.int64)
    logits, members = torch.randn(8, 5, 3), torch.rand(8, 5) > 0.5
    save_file({"logits": logits, "members": members}, path)
    assert answers.shadows(path, labels, 3).logits.shape == (8, 1, 5, 3)
    for wrong, said in (
        ({"logits": logits[:, :4].contiguous(), "members": members}, "allowed: .M, 5, 3."),
        ({"logits": logits}, "tensors .'logits'.; allowed: logits"),
    ):
        save_file(wrong, path)
        with pytest.raises(InputError, match=said):
            answers.shadows(path, labels, 3)


WANTED = params.validate(Audit, params.load(ROOT / "params.yaml")["audit"], "audit")
FULL = {"public_train": 300, "private_train": 40, "private_test": 40}


def reasons(own: Row, **sizes: int) -> dict[str, str]:
    left = threats.left_out(WANTED, "mine", own, data(**sizes))
    assert all(one.subject == "mine" for one in left)
    return {f"{one.threat} {one.attack}": one.said for one in left}


def test_what_applies_is_not_left_out_and_what_does_not_says_why() -> None:
    found = reasons(row(), **FULL)
    assert set(found) == {"membership lira", "membership rmia", "attributes fresh attackers"}
    assert found["membership lira"] == "not applicable: no shadow models"
    assert reasons(row(shadows="s.safetensors"), **FULL).keys() == {"attributes fresh attackers"}


@pytest.mark.parametrize(
    ("change", "sizes", "attack", "why"),
    [
        ({"training": "held_out"}, FULL, "membership loss", "not applicable: no member records"),
        (
            {"training": "held_out", "shadows": "s"},
            FULL,
            "membership lira",
            "not applicable: no member records",
        ),
        ({"people": False}, FULL, "inversion ppa", "not applicable: classes are no people"),
        ({}, {**FULL, "public_train": 0}, "inversion ppa", "not applicable: no public folder"),
        ({}, {**FULL, "public_train": 0}, "reconstruction decoder", "not applicable: no public images"),
        (
            {},
            {**FULL, "public_train": 9},
            "inversion ppa",
            "not applicable: 9 public images; the pr",
        ),
        ({}, {**FULL, "private_train": 0}, "inversion ppa", "not run: needs judges"),
        ({"layers": []}, FULL, "reconstruction decoder", "not applicable: no cut: no layers named"),
    ],
)
def test_every_reason_is_said(change: dict[str, Any], sizes: dict[str, int], attack: str, why: str) -> None:
    assert reasons(row(**change), **sizes)[attack].startswith(why)


def test_names_of_outputs_are_sorted_as_asked() -> None:
    folders = ["s1", "s2", "s10"]
    assert row(classes="sorted").names(folders) == ["s1", "s10", "s2"]
    assert row(classes="natural").names(folders) == folders
    assert row(classes=["b", "a"]).names(folders) == ["b", "a"]


def test_weights_are_those_that_were_pinned(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"x")
    victim = {"arch": "resnet18", "weights": str(tmp_path / "w.pt")}
    with (
        pytest.raises(InputError, match="sha256: the weights have 2d711642b726"),
        row(victim=victim, sha256="0" * 64).brought(tmp_path),
    ):
        pytest.fail("they were read")
    with row(victim=victim).brought(tmp_path) as path:
        assert path.read_bytes() == b"x"
    victim["weights"] = "$NOT_SET_ANYWHERE/w.pt"
    with pytest.raises(InputError, match="NOT_SET_ANYWHERE"), row(victim=victim).brought(tmp_path):
        pytest.fail("they were read")
