"""Shadows whose head alone is trained: what they share, and that each is trained as its victim was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mipriv import draws, plugin, training
from mipriv.data.augment import Augment
from mipriv.data.dataset import MANIFEST, Dataset
from mipriv.data.images import write
from mipriv.data.manifest import Manifest
from mipriv.data.splits import SplitPlan, plan_splits
from mipriv.data.transform import Transform
from mipriv.models import checkpoint
from mipriv.models.checkpoint import Card
from mipriv.models.classifiers import build
from tasks import finetune
from tasks.engine.params import validate
from tasks.memberships import probes
from tasks.memberships.asked import FILE, Asked
from tasks.shadow_victims import shadow

SHAPE = (1, 16, 16)
ARCH: dict[str, Any] = {"widths": (4, 8), "depth": 1}
MODELS = 4


def recipe(**changes: Any) -> dict[str, Any]:
    views = {"flip": 0.5, "area": [0.8, 1.1], "ratio": [1.0, 1.0], "shift": 1.0, "rotate": 8.0, "jitter": 0.1}
    return {"epochs": 5, "batch_size": 4, "optimizer": "adam", "lr": 0.1, "augment": views, **changes}


def made(bn_mode: str = "strict", cut: str = "trunk") -> dict[str, Any]:
    return {"defense": "tl_dmi", "knobs": {"cut": cut, "bn_mode": bn_mode}, "recipe": recipe()}


class Silent:
    def metric(self, *_: Any, **__: Any) -> None: ...

    metrics = metric


def still(*_: Any) -> None: ...


EVENTS: Any = Silent()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three people of eight images, and a backbone whose batch normalisation has seen something."""
    folder = tmp_path_factory.mktemp("probes")
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (24, 16, 16, 1), dtype=np.uint8)
    np.savez(folder / "noise.npz", images=images, labels=np.repeat(["a", "b", "c"], 8))
    knobs, transform = {"file": str(folder / "noise.npz")}, Transform((16, 16), None, 1)
    source = plugin.load("source", "arrays", **knobs)
    records = source.records()
    write(folder / "data", source, records, transform)
    plan = SplitPlan(public=0, private=3, train=3, validation=1, test=4, public_validation=0, seed=0)
    splits = plan_splits([record.label for record in records], plan)
    digests = [source.digest(record) for record in records]
    Manifest.build("arrays", knobs, records, digests, splits, transform).save(folder / "data" / MANIFEST)
    model = build(plugin.load("classifier", "slim_resnet", **ARCH), 7, SHAPE, seed=3)
    with torch.no_grad():
        model.train()(torch.rand(32, *SHAPE))
    card = Card("classifier", "slim_resnet", {"widths": [4, 8], "depth": 1}, SHAPE, 7, {})
    checkpoint.save(model.eval(), card, folder / "backbone")
    return {"data": folder / "data", "backbone": folder / "backbone"}


def features(inputs: dict[str, Path], out: Path, seed: int = 0) -> dict[str, Path]:
    out.mkdir(parents=True)
    probes.features(out, inputs, still, EVENTS, made=made(), mirrored=True, seed=seed, device="cpu")
    return {**inputs, probes.NAME: out}


def answered(inputs: dict[str, Path], out: Path, number: int) -> dict[str, Tensor]:
    out.mkdir(parents=True)
    how: dict[str, Any] = {"made": made(), "models": MODELS, "number": number, "mirrored": True}
    probes.shadow(out, inputs, still, EVENTS, **how, seed=0, device="cpu")
    return load_file(out / FILE)


@pytest.mark.parametrize("number", [0, 3])
def test_a_head_on_shared_features_is_the_network_trained_on_those_views(
    inputs: dict[str, Path], tmp_path: Path, number: int
) -> None:
    """The whole network under TL-DMI, by the loop of victims, on images seen in the very views."""
    found = answered(features(inputs, tmp_path / "features"), tmp_path / "shadow", number)
    data = Dataset.open(inputs["data"])
    asked = Asked.of(data, None, None, 0)
    own = asked.drawn(MODELS, number, 0)
    wanted = validate(training.Recipe, recipe(), "recipe")
    epochs = torch.randperm(wanted.epochs, generator=draws.generator(own.seed, "views"))
    views = [
        wanted.augment(
            asked.images,
            torch.rand(len(asked.labels), Augment.DRAWS, generator=draws.generator(0, "views", epoch)),
        )
        for epoch in range(wanted.epochs)
    ]
    parts = {"defense": "tl_dmi", "knobs": made()["knobs"], "seed": own.seed}
    model, plan = finetune.untrained(data, inputs=inputs, **parts)
    members = own.members.nonzero()[:, 0]
    training.train(
        model,
        *own.pairs(asked.images, asked.labels),
        wanted,
        plan,
        seed=own.seed,
        views=lambda rows, _, epoch: views[int(epochs[epoch])][members[rows]],
    )
    expected = torch.stack([training.logits(model, view) for view in (asked.images, asked.images.flip(-1))])
    torch.testing.assert_close(found["logits"], expected, rtol=1e-4, atol=1e-4)
    before = finetune.untrained(data, inputs=inputs, **parts)[0]
    assert (expected[0] - training.logits(before, asked.images)).abs().max() > 0.1  # it was trained
    assert torch.equal(found["members"], own.members) and torch.equal(found["labels"], asked.labels)


def test_no_view_is_seen_twice_by_a_shadow_and_shadows_take_them_in_other_orders(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = features(inputs, tmp_path / "features")
    everything = load_file(there[probes.NAME] / probes.FILE)["views"]
    seen: list[list[int]] = []
    fit = probes.classifier.fit

    def spied(*given: Any, views: training.Views, **more: Any) -> training.History:
        shown = [views(torch.tensor([0]), torch.empty(0), epoch)[0] for epoch in range(5)]
        seen.append([int((everything == one).all(-1).any(1).nonzero()[0, 0]) for one in shown])
        return fit(*given, views=views, **more)

    monkeypatch.setattr(probes.classifier, "fit", spied)
    for number in range(MODELS):
        answered(there, tmp_path / str(number), number)
    assert all(sorted(order) == list(range(5)) for order in seen) and len({*map(tuple, seen)}) > 1


def test_features_stay_the_same_whoever_trains_and_are_those_of_the_backbone(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    found = load_file(features(inputs, tmp_path / "a")[probes.NAME] / probes.FILE)
    again = load_file(features(inputs, tmp_path / "b")[probes.NAME] / probes.FILE)
    assert all(torch.equal(found[name], again[name]) for name in found)
    data = Dataset.open(inputs["data"])
    asked = Asked.of(data, None, None, 0)
    public = checkpoint.load_classifier(inputs["backbone"]).eval()
    with torch.no_grad():
        torch.testing.assert_close(found["logits"][0], public.embed(asked.images), rtol=1e-4, atol=1e-4)
    assert found["views"].shape[:2] == (5, len(asked.labels))
    assert found["population"].shape[:2] == (2, len(asked.population))


@pytest.mark.parametrize(
    ("how", "possible"),
    [
        (made(), True),
        (made(bn_mode="reference"), False),
        (made(cut="trunk.stage1"), False),
        ({**made(), "defense": "none", "knobs": {}}, False),
        ({**made(), "defense": "film", "knobs": {}}, False),
    ],
)
def test_only_where_nothing_but_the_head_changes(
    inputs: dict[str, Path], how: dict[str, Any], possible: bool
) -> None:
    assert probes.possible(Dataset.open(inputs["data"]), inputs, how) is possible


def test_features_that_are_too_many_are_not_kept(
    inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "LARGEST", 1000)
    assert not probes.possible(Dataset.open(inputs["data"]), inputs, made())


def test_a_shadow_by_itself_leaves_answers_of_the_same_form(inputs: dict[str, Path], tmp_path: Path) -> None:
    one = answered(features(inputs, tmp_path / "features"), tmp_path / "probe", 1)
    (tmp_path / "whole").mkdir()
    how: dict[str, Any] = {"of": "finetune", "task": None, "made": made(), "models": MODELS, "number": 1}
    shadow(tmp_path / "whole", inputs, still, EVENTS, **how, mirrored=True, seed=0, device="cpu")
    other = load_file(tmp_path / "whole" / FILE)
    assert {k: (v.shape, v.dtype) for k, v in one.items()} == {
        k: (v.shape, v.dtype) for k, v in other.items()
    }
    assert torch.equal(one["members"], other["members"])
