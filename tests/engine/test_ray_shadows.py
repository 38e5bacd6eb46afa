"""Shadows of whole networks, one a worker: the same bytes on Ray as in process; halves are remembered."""

from pathlib import Path

import numpy as np
import pytest
import torch
from engine_processes import ROOT
from safetensors.torch import load_file

from mipriv import plugin
from mipriv.data.dataset import MANIFEST
from mipriv.data.images import write
from mipriv.data.manifest import Manifest
from mipriv.data.splits import SplitPlan, plan_splits
from mipriv.data.transform import Transform
from tasks import shadow_victims
from tasks.engine import fanout
from tasks.engine.cells import Cell, Place

MODELS = 4
PLAN = SplitPlan(public=0, private=3, train=4, validation=1, test=3, public_validation=0, seed=0)
RECIPE = {
    "epochs": 60,
    "batch_size": 6,
    "optimizer": "adam",
    "lr": 0.01,
    "select": "last",
    "augment": {
        "flip": 0.0,
        "area": [1.0, 1.0],
        "ratio": [1.0, 1.0],
        "shift": 0.0,
        "rotate": 0.0,
        "jitter": 0.0,
    },
}
MADE = {
    "network": {"arch": "slim_vgg", "knobs": {"widths": [8, 16]}, "cut": "trunk.conv1", "bottleneck": None},
    "defense": "noise",
    "knobs": {"sigma": 0.01},
    "cem": None,
    "recipe": RECIPE,
}


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """Three people of eight images each that have nothing in common: what is told of them is remembered."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (24, 16, 16, 1), dtype=np.uint8)
    labels = np.repeat(["a", "b", "c"], 8)
    np.savez(tmp_path / "noise.npz", images=images, labels=labels)
    knobs, transform = {"file": str(tmp_path / "noise.npz")}, Transform((16, 16), None, 1)
    source = plugin.load("source", "arrays", **knobs)
    records = source.records()
    write(tmp_path / "data", source, records, transform)
    splits = plan_splits([record.label for record in records], PLAN)
    digests = [source.digest(record) for record in records]
    Manifest.build("arrays", knobs, records, digests, splits, transform).save(tmp_path / "data" / MANIFEST)
    return tmp_path / "data"


def cells(data: Path) -> list[Cell]:
    shared = {"of": "split", "made": MADE, "task": None, "models": MODELS, "mirrored": True, "seed": 0}
    return [
        Cell(
            shadow_victims.shadow_name(number),
            "tasks.shadow_victims:shadow",
            {**shared, "number": number, "device": "cpu"},
            {"data": data},
        )
        for number in range(MODELS)
    ]


def left(work: list[Cell], place: Place) -> dict[str, bytes]:
    results = fanout.run(work, place)
    return {name: (result.files / shadow_victims.FILE).read_bytes() for name, result in results.items()}


@pytest.mark.usefixtures("on_ray")
def test_shadows_of_networks_are_the_same_on_ray_and_remember_their_halves(
    noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(ROOT, tmp_path / "there", "shadow_victims", "noise", 1, 0, 2)
    there = left(cells(noise), place)
    monkeypatch.delenv("RAY_ADDRESS")
    here = left(cells(noise), Place(ROOT, tmp_path / "here", "shadow_victims", "noise", 1, 0, 2))
    assert there == here
    found = [load_file(path) for path in sorted((tmp_path / "here").glob(f"*/files/{shadow_victims.FILE}"))]
    assert len(found) == MODELS
    members = torch.stack([one["members"] for one in found])
    assert members.sum(0).tolist() == [MODELS // 2] * 24
    logits = torch.stack([one["logits"][0] for one in found])
    right = logits.argmax(-1) == found[0]["labels"]
    assert right[members].double().mean() > right[~members].double().mean() + 0.3
    assert set(found[0]) == {"logits", "labels", "members"} and found[0]["logits"].shape == (2, 24, 3)
