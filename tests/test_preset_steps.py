"""All that presets named after papers train or attack takes one step.

Networks are of their published size, with random weights; counts alone (steps, images, candidates) are small.
"""

import copy
import dataclasses
import functools
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mipriv import draws, plugin
from mipriv.attacks.inversion import Reconstructions, offer
from mipriv.defenses import Batch, Defense
from mipriv.models import classifiers
from mipriv.models.generators import Generator
from mipriv.training import Recipe, train
from tasks.engine import params
from tests.presets import FACES, NAMES, defended, faces, network, of, rows, values, wanted

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


def key(*parts: object) -> str:
    """What a step depends on: presets that share a victim or an attack share its step."""
    return json.dumps(parts, sort_keys=True, default=dataclasses.asdict)


def public(shape: tuple[int, ...]) -> Tensor:
    """Two images that nobody is on."""
    return torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))


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
