"""Presets named after papers: what they override exists, and all that they name builds at its size."""

import copy
import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mipriv.data.splits import plan_splits
from mipriv.errors import InputError
from mipriv.models.freeze import Freeze
from tasks.check import check
from tests.presets import FACES, NAMES, ROOT, defended, faces, network, of, rows, values, wanted

PAPERS = [
    "bido",
    "brepmi",
    "gmi",
    "kedmi",
    "label_smoothing",
    "lomma",
    "mid",
    "mirror",
    "plgmi",
    "ppa",
    "tl_dmi",
]

# Knobs of attacks that differ from the published constants, which are their defaults: another code's reading.
READINGS = {("tl_dmi", "gmi"): {"steps"}, ("tl_dmi", "kedmi"): {"log_variance", "clip"}}
# Millions of parameters that each freezing row leaves to train, with the classes of the published count.
TRAINABLE = {
    ("tl_dmi", "tl_dmi"): (1000, 13.86),
    ("tl_dmi", "head"): (1000, 2.05),
    ("tl_dmi", "ir152-tl_dmi"): (1000, 17.83),
    ("tl_dmi", "facenet64-tl_dmi"): (1000, 34.39),
    ("ppa", "tl_dmi"): (1000, 8.91),
    ("ppa", "resnet152-tl_dmi"): (530, 16.05),
}


def test_every_paper_has_its_preset() -> None:
    assert set(PAPERS) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_head_of_a_preset_tells_its_command_its_choices_and_its_cost(name: str) -> None:
    lines = (ROOT / "scales" / "papers" / f"{name}.yaml").read_text().splitlines()
    head = " ".join(line.removeprefix("# ") for line in lines if line.startswith("#"))
    assert lines[0].startswith(f"# python -m flows.scale papers/{name}: ")
    for word in ("Published: ", "Ours: ", "Cost, estimated: ", "Data: ", "$MIPRIV_DATA/"):
        assert word in head


@pytest.fixture
def small(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A preset over a folder of three private people with as many (empty) images as it needs of each."""
    found = copy.deepcopy(values(name))
    row = found["prepare"]["rows"][FACES]
    split, knobs = row["split"], row["knobs"]
    each = {"private": split["train"] + split["validation"] + 1, "public": split["public_validation"] + 1}
    monkeypatch.setenv("MIPRIV_DATA", str(tmp_path))
    for pool, images in each.items():
        for person in ("a", "b", "c"):
            folder = Path(os.path.expandvars(knobs["root"]), pool, f"{pool}-{person}")
            folder.mkdir(parents=True)
            for i in range(images):
                (folder / f"{i}.jpg").touch()
    row["split"] |= {"public": 1, "private": 3}
    if found["invert"]["identities"]:
        found["invert"]["identities"] = 3
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_consistent_once_its_data_are_there(small: dict[str, Any]) -> None:
    """Every plug-in builds at its published size, defences prepare it and studies have their blank module."""
    with torch.device("meta"):
        check(small)


@pytest.mark.parametrize("name", ["ppa"])
def test_networks_of_torchvision_are_told_apart_where_a_judge_must_not_be_the_victim(
    small: dict[str, Any],
) -> None:
    small["judge"]["rows"]["inception_v3"]["knobs"]["name"] = "resnet18"
    said = r"judge\.rows\.inception_v3\.arch: 'torchvision:resnet18' is a victim's; allowed: other than tor"
    with torch.device("meta"), pytest.raises(InputError, match=said):
        check(small)


@pytest.mark.parametrize("name", NAMES)
def test_people_and_images_of_the_published_data_suffice(name: str) -> None:
    """Of 30 images a person in CelebA; the targets are among the people, and images have the size."""
    preset = wanted(name)
    plan, celeba = faces(preset).split, "celeba" in faces(preset).knobs["root"]
    people = {"private": 1000 if celeba else 530, "public": 1600 if celeba else 1}
    assert (plan.private, plan.public) == (people["private"], people["public"])
    each = {"private": 30 if celeba else 33, "public": 2}
    places = [(f"{pool}{i}", pool) for pool in people for i in range(people[pool]) for _ in range(each[pool])]
    splits = plan_splits([label for label, _ in places], plan, [pool for _, pool in places])
    assert len(splits["private/train"]) == people["private"] * plan.train
    assert (preset.invert.identities or 0) <= people["private"]
    image = np.zeros((218, 178, 3) if celeba else (800, 800, 3), np.uint8)
    transform = faces(preset).transform
    assert transform.apply(image, "image").shape[:2] == tuple(transform.size)


@pytest.mark.parametrize("name", NAMES)
def test_constants_of_an_attack_are_its_defaults_or_a_named_reading(name: str) -> None:
    for attack, knobs in wanted(name).invert.attacks.items():
        preset, published = of("inversion", attack, knobs), of("inversion", attack, {})
        fields = {field.name for field in dataclasses.fields(published)} - {"chunk"}
        other = {knob for knob in fields if getattr(preset, knob) != getattr(published, knob)}
        assert fields <= set(knobs) and other == READINGS.get((name, attack), set())


def test_every_row_that_freezes_has_its_published_count() -> None:
    freezing = [at for at in rows("finetune") if isinstance(defended(*at).freeze, Freeze)]
    assert set(freezing) == set(TRAINABLE)


@pytest.mark.parametrize(("name", "row"), TRAINABLE)
def test_what_is_left_to_train_is_as_published(name: str, row: str) -> None:
    classes, millions = TRAINABLE[name, row]
    preset = wanted(name)
    with torch.device("meta"):
        model = network(preset, preset.finetune.rows[row].backbone, classes)
        defended(name, row).prepare(model, preset.image_shape(FACES))
    assert round(sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6, 2) == millions
