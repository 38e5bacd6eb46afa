"""Presets named after papers: what they override exists, all that they name builds, and each takes one step.

Networks are of their published size, with random weights; counts alone (steps, images, candidates) are small.
"""

import copy
import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from torch import Tensor, nn

from flows import scale
from mipriv import draws, plugin
from mipriv.attacks.inversion import Reconstructions, offer
from mipriv.data.splits import plan_splits
from mipriv.defenses import Batch, Defense
from mipriv.errors import InputError
from mipriv.models import classifiers
from mipriv.models.classifiers import Classifier
from mipriv.models.freeze import Freeze
from mipriv.models.generators import Generator
from mipriv.training import Recipe, train
from tasks.check import Parameters, check
from tasks.engine import params
from tasks.engine.params import plugin_knobs
from tasks.prepare import FACES, Row

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "scales" / "papers").glob("*.yaml"))
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
ONE_GAN = {"steps": 1, "critic_steps": 1, "batch_size": 2}
# The smallest counts of each attack. What is no count stays as the preset has it; a new attack adds a line.
COUNTS: dict[str, dict[str, Any]] = {
    "brepmi": {"restarts": 1, "start_samples": 1, "points": 2, "steps": 1},
    "gmi": {"restarts": 1, "steps": 1},
    "kedmi": {"draws": 1, "steps": 1, "gan": ONE_GAN},
    "lomma": {
        "keep": 1,
        "steps": 1,
        "distillation": {"epochs": 1, "batch_size": 2, "images": 2},
        "gan": ONE_GAN,
    },
    "mirror": {"samples": 2, "population": 2, "elites": 1, "keep": 1, "steps": 1},
    "plgmi": {"top": 1, "study_steps": 1, "critic_steps": 1, "batch_size": 2, "restarts": 1, "steps": 1},
    "ppa": {"samples": 1, "candidates": 1, "keep": 1, "steps": 1, "final_views": 1},
}
# Millions of parameters that each freezing row leaves to train, with the classes of the published count.
TRAINABLE = {
    ("tl_dmi", "tl_dmi"): (1000, 13.86),
    ("tl_dmi", "head"): (1000, 2.05),
    ("tl_dmi", "ir152-tl_dmi"): (1000, 17.83),
    ("tl_dmi", "facenet64-tl_dmi"): (1000, 34.39),
    ("ppa", "tl_dmi"): (1000, 8.91),
    ("ppa", "resnet152-tl_dmi"): (530, 16.05),
}


def overrides(name: str) -> dict[str, Any]:
    """What a preset's file holds."""
    path = ROOT / "scales" / "papers" / f"{name}.yaml"
    found: dict[str, Any] = YAML(typ="safe").load(path.read_text())
    return found


def rows(stage: str) -> list[tuple[str, str]]:
    """Rows of a stage in all presets, the larger images last."""
    held = {name: overrides(name) for name in NAMES}
    order = sorted(NAMES, key=lambda name: (held[name]["prepare.rows"][FACES]["transform"]["size"], name))
    return [(name, row) for name in order for row in held[name][f"{stage}.rows"]]


@functools.cache
def values(name: str) -> dict[str, Any]:
    """`params.yaml` with a preset's overrides; not to be changed."""
    found: dict[str, Any] = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    scale.override(found, overrides(name), name)
    return found


@functools.cache
def wanted(name: str) -> Parameters:
    """The typed blocks of a preset."""
    return Parameters(values(name))


def faces(preset: Parameters) -> Row:
    """The row of `prepare` whose people are attacked."""
    return preset.prepare.rows[FACES]


def of(family: str, name: str, knobs: dict[str, Any]) -> Any:
    """A plug-in, its knobs checked as a stage checks them."""
    return plugin_knobs(family, name, knobs, "preset")


def network(preset: Parameters, backbone: str, classes: int | None = None) -> Classifier:
    """The untrained network behind a row of `pretrain`, for the people of the preset."""
    row = preset.pretrain.rows[backbone]
    people = classes or faces(preset).split.private
    assert people is not None
    return classifiers.build(of("classifier", row.arch, row.knobs), people, preset.image_shape(FACES), seed=0)


def key(*parts: object) -> str:
    """What a step depends on: presets that share a victim or an attack share its step."""
    return json.dumps(parts, sort_keys=True, default=dataclasses.asdict)


def public(shape: tuple[int, ...]) -> Tensor:
    """Two images that nobody is on."""
    return torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))


# Presets and their parameters.


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


def defended(name: str, row: str) -> Defense:
    """The defence of a row of `finetune`."""
    it = wanted(name).finetune.rows[row]
    made: Defense = of("defense", it.defense, it.knobs)
    return made


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


# One step of training.


class Observed(Defense):
    """A defence as it is in the last epoch of its recipe, which remembers what it prepared."""

    def __init__(self, inner: Defense, epochs: int) -> None:
        self.inner, self.epochs = inner, epochs
        self.before: dict[str, Tensor] = {}
        self.free: set[str] = set()

    def prepare(self, model: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """See `Defense.prepare`."""
        self.inner.prepare(model, image_shape)
        self.before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        self.free = {name for name, weight in model.named_parameters() if weight.requires_grad}

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        """See `Defense.before_epoch`."""
        self.inner.before_epoch(model, epoch)

    def loss(self, batch: Batch, step: int) -> Tensor:
        """See `Defense.loss`."""
        last = dataclasses.replace(batch, epoch=self.epochs - 1, epochs=self.epochs)
        return self.inner.loss(last, step)

    def finish(self, model: nn.Module) -> None:
        """See `Defense.finish`."""
        self.inner.finish(model)


@functools.cache
def trained(asked: str) -> tuple[float, list[str]]:
    """The summed losses of one step on two images and after it, and weights that did as they should not."""
    arch, knobs, defense, its, recipe, classes, shape = json.loads(asked)
    model = classifiers.build(of("classifier", arch, knobs), classes, tuple(shape), seed=0)
    plan = params.validate(Recipe, recipe, "recipe")
    guard = Observed(of("defense", defense, its), plan.epochs)
    pair = public(tuple(shape)), torch.tensor([0, classes - 1])
    history = train(model, pair, pair, dataclasses.replace(plan, epochs=1, batch_size=2), guard, seed=0)
    after = dict(model.named_parameters())
    wrong = [name for name in after if torch.equal(guard.before[name], after[name]) == (name in guard.free)]
    return history.kept.loss + history.kept.validation_loss, wrong


def held(asked: str) -> None:
    """One step of training is finite, changes all that is trained, and nothing that is frozen."""
    loss, wrong = trained(asked)
    assert np.isfinite(loss) and wrong == []


@pytest.mark.parametrize(("name", "row"), rows("finetune"))
def test_a_victim_takes_one_step(name: str, row: str) -> None:
    preset = wanted(name)
    it = preset.finetune.rows[row]
    behind = preset.pretrain.rows[it.backbone]
    recipe = values(name)["finetune"]["recipes"][it.recipe]
    people = faces(preset).split.private
    held(key(behind.arch, behind.knobs, it.defense, it.knobs, recipe, people, preset.image_shape(FACES)))


@pytest.mark.parametrize("name", NAMES)
def test_judges_take_one_step(name: str) -> None:
    preset, recipe = wanted(name), values(name)["judge"]["recipe"]
    for row in preset.judge.rows.values():
        people = faces(preset).split.private
        held(key(row.arch, row.knobs, "none", {}, recipe, people, preset.image_shape(FACES)))


@pytest.mark.parametrize("name", NAMES)
def test_backbones_that_are_trained_here_take_one_step(name: str) -> None:
    preset, recipe = wanted(name), values(name)["pretrain"]["recipe"]
    people = faces(preset).split.public
    for row in preset.pretrain.rows.values():
        if row.weights is None:
            held(key(row.arch, row.knobs, "none", {}, recipe, people, preset.image_shape(FACES)))


# One step of the priors and of the attacks.


@functools.cache
def fitted(asked: str) -> list[dict[str, float]]:
    """What one step of a GAN on two images logs."""
    knobs, shape = json.loads(asked)
    fewer = {"steps": min(1, knobs["steps"]), "critic_steps": 1, "batch_size": 2}
    maker = of("prior", "gan", {**knobs, **fewer})
    model, log = maker.fit(public(tuple(shape)), seed=0, device=torch.device("cpu"))
    assert all(bool(weight.isfinite().all()) for weight in model.state_dict().values())
    return log  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", NAMES)
def test_priors_take_one_step(name: str) -> None:
    """But for StyleGAN2, whose step takes a minute at 256 px: it learns, smaller, in a test of its own."""
    preset = wanted(name)
    for row in preset.prior.rows.values():
        if row.generator == "gan":
            log = fitted(key(row.knobs, preset.image_shape(FACES)))
            assert len(log) == min(1, row.knobs["steps"])
            assert all(np.isfinite(list(line.values())).all() for line in log)
        else:
            assert row.generator == "stylegan2"


@functools.lru_cache(maxsize=1)
def searched(asked: str) -> Generator:
    """A prior of the published size that has learnt nothing."""
    generator, knobs, shape = json.loads(asked)
    with draws.seeded(0, "initial weights"):
        model: Generator = of("prior", generator, knobs).build(tuple(shape))
    return model.eval()


def shrunk(attack: str, knobs: dict[str, Any]) -> dict[str, Any]:
    """An attack's knobs with the smallest counts."""
    found = copy.deepcopy(knobs)
    for knob, value in COUNTS[attack].items():
        if isinstance(value, dict):
            if knob in found:
                found[knob] |= value
        else:
            found[knob] = value
    return found


@functools.cache
def attacked(asked: str) -> tuple[Reconstructions, int]:
    """One step of an attack on one identity, and the dimensions it searches; the victim stays as it was."""
    attack, knobs, arch, its, head, prior, classes, shape = json.loads(asked)
    victim = classifiers.build(of("classifier", arch, its), classes, tuple(shape), seed=0)
    if head:  # the defence puts in another
        of("defense", *head).prepare(victim, tuple(shape))
    victim.eval()
    made, attacker = searched(key(*prior, shape)), of("inversion", attack, shrunk(attack, knobs))
    before = {name: tensor.clone() for name, tensor in victim.state_dict().items()}
    trainable = [weight.requires_grad for weight in victim.parameters()]
    handed, known = offer(victim, attacker.access), {}
    if hasattr(attacker, "study"):
        learnt = attacker.study(handed, made, public(tuple(shape)), seed=1).knowledge
        blank = attacker.blank(handed, made, classes, tuple(shape))
        blank.load_state_dict(learnt.state_dict())
        known = {"knowledge": blank}
    target = torch.tensor([0])
    if attacker.access == "labels":  # it can begin in a class alone that the victim names
        target = handed(made(made.begin(torch.zeros(1, made.noise_dim))))
    found = attacker(handed, made, target, seed=1, **known)
    assert all(torch.equal(tensor, before[name]) for name, tensor in victim.state_dict().items())
    assert [weight.requires_grad for weight in victim.parameters()] == trainable
    assert all(weight.grad is None for weight in victim.parameters()) and not victim.training
    return found, made.latent_dim


@pytest.mark.parametrize(("name", "row"), rows("invert"))
def test_an_attack_takes_one_step(name: str, row: str) -> None:
    preset = wanted(name)
    it = preset.invert.rows[row]
    victim, prior = preset.finetune.rows[it.victim], preset.prior.rows[it.prior]
    behind = preset.pretrain.rows[victim.backbone]
    with torch.device("meta"):
        model = network(preset, victim.backbone)
        kind = type(model.head)
        defended(name, it.victim).prepare(model, preset.image_shape(FACES))
    head = None if type(model.head) is kind else (victim.defense, victim.knobs)
    knobs, people = preset.invert.knobs(it), faces(preset).split.private
    its = (it.attack, knobs, behind.arch, behind.knobs, head, (prior.generator, prior.knobs))
    found, dims = attacked(key(*its, people, preset.image_shape(FACES)))
    assert found.images.shape == found.start.shape == (1, 1, *preset.image_shape(FACES))
    assert found.latents.shape == (1, 1, dims) and found.scores.shape == (1, 1)
    for tensor in (found.images, found.latents, found.scores):
        assert tensor.isfinite().all()
    assert found.images.min() >= 0 and found.images.max() <= 1 and found.queries > 0
    if plugin.find("inversion", it.attack).access == "weights":
        assert not torch.equal(found.images, found.start), "the step moved"
    if it.attack == "brepmi":
        assert found.scores.min() >= knobs["radius"], "the walk began in the class"
