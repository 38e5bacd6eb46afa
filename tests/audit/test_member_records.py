"""A brought model whose training images are at hand: membership by loss, LiRA and RMIA, through the stage."""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mipriv.data.dataset import Dataset
from mipriv.data.sources.mnist5k import MNIST5k
from mipriv.models.classifiers.slim_vgg import SlimVGG
from tasks import audit, prepare
from tasks.audits import answers
from tasks.engine import params
from tasks.engine.stage import launch
from tests.presets import ROOT

CLASSES, EACH, SPARE, PAIRS, STEPS = 10, 12, 4, 4, 40
KNOBS: dict[str, Any] = {"widths": [8, 16], "dropout": 0.0}
RECORDS, POPULATION = 2 * EACH * CLASSES, SPARE * CLASSES
Lines = list[dict[str, str]]


def leave_digits(folder: Path) -> None:
    """Real digits: of each class the victim's own, and others."""
    source = MNIST5k()
    found: dict[str, list[Any]] = {}
    for record in source.records():
        found.setdefault(record.label, []).append(record)
    for name, first, last in (("trained", 0, EACH), ("held_out", EACH, 2 * EACH + SPARE)):
        chosen = [record for label in sorted(found) for record in found[label][first:last]]
        images = np.stack([source.read(record) for record in chosen])
        np.savez(folder / f"{name}.npz", images=images, labels=np.array([record.label for record in chosen]))


def values() -> dict[str, Any]:
    """Parameters of the two data sets and of the audit."""
    whole = params.load(ROOT / "params.yaml")
    transform = {"size": [14, 14], "crop": None, "channels": 1}
    split = {"public": 0, "private": CLASSES, "validation": 0, "public_validation": 0, "seed": 0}
    rows = {
        name: {
            "source": "arrays",
            "knobs": {"file": f"{name}.npz"},
            "transform": transform,
            "split": {**split, "train": train, "test": test},
        }
        for name, train, test in (("trained", EACH, 0), ("held_out", SPARE, -1))
    }
    row = {
        "victim": {"arch": "plugin:slim_vgg", "knobs": KNOBS, "weights": "victim.safetensors"},
        "preprocessing": {"mean": [0.5], "std": [0.25]},
        "classes": "natural",
        "data": "held_out",
        "training": "trained",
        "layers": [],
        "attacks": [],
        "knowledge": "inference",
        "targets": 2,
        "people": False,
    }
    shadowed = {**row, "shadows": "shadows.safetensors"}
    seen = {**shadowed, "shadows": "all_seen.safetensors"}
    absent = {**row, "training": "held_out"}
    rows_of_audit = {"plain": row, "shadowed": shadowed, "seen": seen, "absent": absent}
    return {
        "prepare": {"rows": rows},
        "audit": {**whole["audit"], "rows": rows_of_audit, "rates": [0.1, 0.01]},
        "cost": {**whole["cost"], "device": "cpu"},
    }


def network(images: Tensor, labels: Tensor, seed: int) -> nn.Module:
    """A small one that learns its few images by heart."""
    torch.manual_seed(seed)
    model = SlimVGG(**KNOBS).build(CLASSES, (1, 14, 14))
    model.normalise = nn.Identity()
    adam = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(STEPS):
        adam.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        adam.step()
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Audits of one victim: without shadows, with them, with ones that have all, without member records."""
    folder, before, threads = tmp_path_factory.mktemp("members"), dict(os.environ), torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MIPRIV_PUBLISH", "off")
        leave_digits(folder)
        Path("params.yaml").write_text(json.dumps(values()))
        for name in ("trained", "held_out"):
            argv = ["--row", name, "--out", f"prepare/{name}", "--events", f"{name}.jsonl"]
            assert launch(prepare.run, [], prepare.Prepare, argv, deps=None) == 0
        _train(folder)
        for name, training in (
            ("plain", "trained"),
            ("shadowed", "trained"),
            ("seen", "trained"),
            ("absent", "held_out"),
        ):
            argv = ["--row", name, "--data", "prepare/held_out", "--training", f"prepare/{training}"]
            argv += ["--out", f"out/{name}", "--events", f"audit-{name}.jsonl"]
            assert launch(audit.run, ["data", "training"], audit.Audit, argv, deps=None) == 0
        yield folder
    os.environ.clear()
    os.environ.update(before)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def _train(folder: Path) -> None:
    """The victim, and shadows on random halves of all records but the population, in mirrored pairs."""
    sets = [Dataset.open(folder / "prepare" / name) for name in ("trained", "held_out")]
    parts = [sets[0].split("private/train"), *(sets[1].split(f"private/{s}") for s in ("train", "test"))]
    images = (torch.cat([x for x, _ in parts]) - 0.5) / 0.25
    labels = torch.cat([y for _, y in parts])
    own = EACH * CLASSES
    save_file(network(images[:own], labels[:own], 99).state_dict(), folder / "victim.safetensors")
    drawn = torch.ones(len(labels), dtype=torch.bool)
    drawn[own : own + POPULATION] = False
    members, said = [], []
    for pair in range(PAIRS):
        half = torch.rand(len(labels), generator=torch.Generator().manual_seed(pair)) < 0.5
        for side in (drawn & half, drawn & ~half):
            said.append(network(images[side], labels[side], pair)(images).detach())
            members.append(side)
    kept = {"logits": torch.stack(said), "members": torch.stack(members)}
    save_file(kept, folder / "shadows.safetensors")
    kept["members"] = kept["members"].clone()
    kept["members"][0, own : own + POPULATION] = True  # nobody's no more: there is no population
    save_file(kept, folder / "all_seen.safetensors")


def table(folder: Path, name: str, file: str = "leakage.csv") -> Lines:
    with (folder / "out" / name / file).open() as opened:
        return list(csv.DictReader(opened))


def told(lines: Lines, figure: str) -> dict[str, dict[str, str]]:
    """Lines of membership by attack."""
    return {
        line["against"]: line for line in lines if (line["kind"], line["figure"]) == ("membership", figure)
    }


def area(scores: Tensor, members: Tensor) -> float:
    """The share of pairs in order, slowly."""
    pairs = scores[members][:, None] - scores[~members][None]
    return float(((pairs > 0).double() + (pairs == 0).double() / 2).mean())


def test_member_records_give_a_figure_of_membership_by_loss(folder: Path) -> None:
    (found,) = told(table(folder, "plain"), "auc").values()
    (said,) = (load_file(path) for path in folder.glob("out/plain/**/answers.safetensors"))
    loss = [
        nn.functional.cross_entropy(said[f"{part}.logits"], said[f"{part}.labels"], reduction="none")
        for part in ("training", "data")
    ]
    members = torch.arange(RECORDS + POPULATION) < EACH * CLASSES
    assert float(found["point"]) == pytest.approx(area(-torch.cat(loss), members), abs=1e-6)
    assert int(found["n"]) == RECORDS + POPULATION
    assert float(found["low"]) > 0.5  # it knows its images by heart
    rates = told(table(folder, "plain"), "tpr at fpr 0.1")
    assert 0.1 < float(rates["loss"]["point"]) <= 1
    left = {(one["attack"], one["why"]) for one in table(folder, "plain", "left_out.csv")}
    assert ("lira", "no shadow models") in left and ("rmia", "no shadow models") in left
    assert any(a == "loss" and why.startswith("FPR 0.01: ") for a, why in left)


def test_with_shadows_lira_and_rmia_tell_more_than_guessing(folder: Path) -> None:
    lines = table(folder, "shadowed")
    found = told(lines, "auc")
    assert list(found) == ["loss", "lira", "rmia"]
    assert [int(line["n"]) for line in found.values()] == [RECORDS + POPULATION, RECORDS, RECORDS]
    assert all(float(line["low"]) > 0.5 for line in found.values())
    assert set(told(lines, "tpr at fpr 0.1")) == {"loss", "lira", "rmia"}
    assert not [one for one in table(folder, "shadowed", "left_out.csv") if "shadow" in one["why"]]


def test_without_a_population_rmia_alone_is_left_out_and_says_so(folder: Path) -> None:
    assert list(told(table(folder, "seen"), "auc")) == ["loss", "lira"]
    why = {one["attack"]: one["why"] for one in table(folder, "seen", "left_out.csv")}
    assert why["rmia"] == "rmia: no population; allowed: records that no model was trained on"


def test_without_member_records_the_cell_says_so(folder: Path) -> None:
    assert told(table(folder, "absent"), "auc") == {}
    left = {one["attack"]: (one["state"], one["why"]) for one in table(folder, "absent", "left_out.csv")}
    assert left["loss"] == left["lira"] == left["rmia"] == ("not applicable", "no member records")
    assert "not applicable: no member records" in (folder / "out/absent/report.html").read_text()


def test_records_of_nobody_become_the_population_and_are_told_of_no_more() -> None:
    generator = torch.Generator().manual_seed(0)
    said, labels = torch.randn(3, 1, 6, 4, generator=generator), torch.tensor([0, 1, 2, 3, 0, 1])
    victim = answers.Answers(said[:1], labels, torch.tensor([[True, True, False, False, False, False]]))
    shadows = torch.tensor(
        [[True, False, True, False, False, False], [False, True, False, False, True, False]]
    )
    own, others = answers.apart(victim, answers.Answers(said[1:], labels, shadows))
    kept, nobody = [0, 1, 2, 4], [3, 5]
    for found, whole in ((own, said[:1]), (others, said[1:])):
        assert found.population is not None and found.population_labels is not None
        assert torch.equal(found.logits, whole[:, :, kept]) and torch.equal(found.labels, labels[kept])
        assert torch.equal(found.population, whole[:, :, nobody])
        assert found.population_labels.tolist() == [3, 1]
    assert others.members.tolist() == shadows[:, kept].tolist()
    everybody = answers.Answers(said[1:], labels, torch.ones(2, 6, dtype=torch.bool))
    assert answers.apart(victim, everybody) == (victim, everybody)
