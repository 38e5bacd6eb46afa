"""Privacy Partitioning: its terms against slow ones, whose turn it is, and what its attackers see."""

import copy
import dataclasses
import itertools

import pytest
import torch
from torch.nn import functional as F
from toy_defenses import RECIPE, SHAPE, bright, equal, parties

from mipriv import training
from mipriv.defenses import Batch, Defense
from mipriv.defenses.cem import CEM
from mipriv.defenses.partitioning import Partitioning
from mipriv.errors import InputError
from mipriv.models.simulator import Design, Learner, Seen, Simulator
from mipriv.training import Recipe

QUICK = {"warmup": 0, "meeting": 0, "ramp": 0, "width": 2}
DARK = {"dark": (bright()[1] == 0).long()}


def trained(plan: Defense, epochs: int = 2, attributes=DARK):
    model, pair = parties(), bright()
    recipe = Recipe(epochs=epochs, batch_size=6, optimizer="adam", lr=3e-3, select="last")
    training.train(model, pair, pair, recipe, plan, seed=0, attributes=attributes)
    return model


def met(plan: Partitioning, epochs: int = 9, epoch: int = 0) -> Batch:
    """A batch of a prepared plan, in training mode."""
    model = parties().train()
    torch.manual_seed(0)
    plan.prepare(model, SHAPE)
    plan.before_epoch(model, epoch)
    images, labels = bright()
    logits = model(images)
    features, sent = model.take()
    return Batch(images, labels, logits, epoch, epochs, features, sent, DARK)


def entered(plan: Partitioning, batch: Batch) -> tuple[Simulator, torch.Tensor]:
    """The attackers after the batch's loss, and what they were sent, with its graph."""
    plan.loss(batch, 0)
    simulator = plan.simulator()
    assert simulator is not None and plan._model is not None
    model = copy.deepcopy(plan._model).eval()
    return simulator, model.client(batch.images)


@pytest.mark.parametrize("term", ["uniform", "neg"])
def test_the_penalty_is_the_term_of_its_equation_image_by_image(term):
    plan = Partitioning("dark", attribute_weight=0.7, image_weight=0.3, term=term, **QUICK)
    batch = met(plan)
    loss = plan.loss(batch, 0)
    simulator = plan.simulator()
    assert simulator is not None and plan._model is not None
    sent = copy.deepcopy(plan._model).eval().client(batch.images)
    prior = torch.bincount(DARK["dark"]).float() / len(batch.labels)
    hidden = []
    for logits in simulator.tell(sent):
        rows = []
        for row, s in zip(logits.softmax(1), DARK["dark"], strict=True):
            if term == "neg":
                rows.append(row[s].log())
            else:
                rows.append(sum(p * (p / q).log() for p, q in zip(prior, row, strict=True)))
        hidden.append(torch.stack(rows).mean())
    blank = (batch.images - batch.images.mean(0)).square().mean()
    undone = (simulator.decode(sent)[0] - batch.images).square().mean()
    expected = F.cross_entropy(batch.logits, batch.labels)
    expected = expected + 0.7 * torch.stack(hidden).mean() - 0.3 * min(undone, blank)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_an_attacker_worse_than_the_mean_image_is_not_made_worse_still():
    plan = Partitioning(image_weight=1.0, attribute_weight=0.0, lr=1e-9, **QUICK)
    batch = met(plan)
    client = list(plan._model.client.parameters())
    plain = torch.autograd.grad(F.cross_entropy(batch.logits, batch.labels), client, retain_graph=True)
    alike = dataclasses.replace(batch, images=torch.full_like(batch.images, 0.9))  # the mean image is right
    both = torch.autograd.grad(plan.loss(alike, 0), client, retain_graph=True)
    assert all(torch.equal(one, two) for one, two in zip(plain, both, strict=True))
    other = torch.autograd.grad(plan.loss(batch, 1), client)
    assert not all(torch.allclose(one, two) for one, two in zip(plain, other, strict=True))


def test_reversal_is_one_step_of_neg_by_the_attacker_from_before():
    grown = {}
    for term in ("reversal", "neg"):
        plan = Partitioning("dark", term=term, steps=1, lr=1e-3, **QUICK)
        batch = met(plan)
        first = next(iter(plan._model.client.parameters()))
        grown[term] = torch.autograd.grad(plan.loss(batch, 0), first)[0], plan
    attacker = Simulator(grown["neg"][1].simulator().design, grown["neg"][1]._key, "attackers", 0).eval()
    model = copy.deepcopy(grown["reversal"][1]._model)
    first = next(iter(model.client.parameters()))
    sent = model.eval().client(bright()[0])
    hidden = torch.stack([-F.cross_entropy(logits, DARK["dark"]) for logits in attacker.tell(sent)]).mean()
    (of_term,) = torch.autograd.grad(hidden, first)
    model.train()
    (of_task,) = torch.autograd.grad(F.cross_entropy(model(bright()[0]), bright()[1]), first)
    torch.testing.assert_close(grown["reversal"][0], of_task + of_term, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(grown["neg"][0], grown["reversal"][0], atol=1e-6)
    assert equal(grown["neg"][1].simulator(), grown["reversal"][1].simulator())  # both learnt once


def test_without_weights_training_is_plain_to_the_byte():
    idle = trained(Partitioning("dark", attribute_weight=0.0, warmup=0))
    assert equal(idle, trained(Defense()))
    assert not equal(trained(Partitioning("dark", **QUICK)), idle)


def test_whose_turn_it_is():
    plan = Partitioning("dark", width=2, warmup=1, meeting=2, until=5, ramp=2, sigma=0.1)
    assert [plan.phase(epoch) for epoch in range(6)] == [
        "alone",
        "meeting",
        "meeting",
        "game",
        "game",
        "settled",
    ]
    assert [plan.strength(epoch) for epoch in (3, 4)] == [0.5, 1.0]
    states = []

    class Watch(Partitioning):
        def after_epoch(self, model, epoch):
            parts = (model.client, model.server, self.simulator())
            states.append([{k: v.clone() for k, v in p.state_dict().items()} if p else {} for p in parts])

    knobs = {"width": 2, "warmup": 1, "meeting": 2, "until": 5, "ramp": 2, "sigma": 0.1}
    trained(Watch("dark", **knobs), epochs=6)
    moved = [
        [
            any(not torch.equal(a[k], b[k]) for k in b) if a.keys() == b.keys() else True
            for a, b in zip(one, two, strict=True)
        ]
        for one, two in itertools.pairwise(states)
    ]
    meeting, game, settled = [False, False, True], [True, True, True], [False, True, False]
    assert moved == [meeting, meeting, game, game, settled]


def test_attackers_learn_so_many_times_a_batch_from_features_as_shipped(monkeypatch):
    seen: list[Seen] = []
    error = Learner._error
    monkeypatch.setattr(Learner, "_error", lambda self, one: seen.append(one) or error(self, one))
    plan = Partitioning("dark", steps=3, **QUICK)
    batch = met(plan)
    _, shipped = entered(plan, batch)
    assert len(seen) == 3 and all(one is seen[0] for one in seen)
    torch.testing.assert_close(seen[0].features, shipped.detach())
    assert not torch.allclose(seen[0].features, batch.features.detach(), atol=1e-4)  # batch statistics
    assert plan._model.client.training and not seen[0].features.requires_grad
    plan.loss(batch, 1)
    assert len(seen) == 6 and seen[4] is seen[0] and seen[5] is seen[3] and seen[5] is not seen[0]


def test_noise_is_on_what_attackers_see_and_differs_from_batch_to_batch():
    plan = Partitioning("dark", sigma=0.5, **QUICK)
    batch = met(plan)
    plan.loss(batch, 0)
    plan.loss(batch, 1)
    one, two = list(plan._learner._seen)[-2:]
    assert 0.3 < (one.features - two.features).std() / 2**0.5 < 0.7


def test_new_attackers_take_over():
    kept = Partitioning("dark", restart=0, **QUICK)
    anew = Partitioning("dark", restart=1, **QUICK)
    trained(kept), trained(anew)
    assert not equal(kept.simulator(), anew.simulator())
    one = Partitioning("dark", restart=1, lr=1e-12, **QUICK)
    trained(one)
    fresh = Simulator(one.simulator().design, one._key, "attackers", 1)
    for own, new in zip(one.simulator().parameters(), fresh.parameters(), strict=True):
        torch.testing.assert_close(own, new, rtol=0, atol=1e-8)


def test_it_hides_the_attribute_from_its_own_attackers_beside_noise_and_cem():
    images = bright()[0]
    told = {}
    for weight in (1e-9, 20.0):
        plan = Partitioning("dark", attribute_weight=weight, sigma=0.05, **QUICK)
        model = trained(CEM(plan, cells=1), epochs=12)
        sent = model.client(images)
        probabilities = [logits.softmax(1) for logits in plan.simulator().tell(sent)]
        right = torch.arange(len(images))
        told[weight] = torch.stack([p[right, DARK["dark"]].log().mean() for p in probabilities]).mean()
    assert told[20.0] < told[1e-9]


def test_an_ensemble_has_as_many_attackers_and_unknown_classes_teach_nothing():
    design = Design((4, 8, 8), SHAPE, True, 2, ("conv", "mlp"), True, 2, 3)
    simulator = Simulator(design, 0)
    features = torch.rand(5, 4, 8, 8)
    assert len(simulator.tell(features)) == 6 and len(simulator.decode(features)) == 3
    unknown = Seen(features, torch.rand(5, *SHAPE), torch.full((5,), -1))
    some = Seen(features, unknown.images, torch.tensor([-1, 1, 0, -1, -1]))
    learner = Learner(simulator, 1e-3, 1)
    decoding = sum(F.mse_loss(made, unknown.images) for made in simulator.train().decode(features))
    assert learner._error(unknown).item() == pytest.approx(decoding.item())
    telling = sum(F.cross_entropy(z[1:3], some.classes[1:3]) for z in simulator.tell(features))
    assert learner._error(some).item() == pytest.approx(decoding.item() + telling.item(), rel=1e-5)


@pytest.mark.parametrize("shape", [(4, 8, 8), (7,)])
def test_a_simulator_comes_back_from_its_file(tmp_path, shape):
    simulator = Simulator(Design(shape, SHAPE, True, 3, ("conv", "mlp"), True, 2, 1), 5).eval()
    simulator.save(tmp_path)
    back, features = Simulator.load(tmp_path), torch.rand(2, *shape)
    assert back.design == simulator.design
    for one, two in zip(
        simulator.tell(features) + simulator.decode(features),
        back.tell(features) + back.decode(features),
        strict=True,
    ):
        assert torch.equal(one, two)
    (tmp_path / "simulator.safetensors").write_bytes(b"no such thing")
    with pytest.raises(InputError, match="no simulator"):
        Simulator.load(tmp_path)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"term": "flip"}, "term: 'flip' does not exist"),
        ({"kinds": ["svm"]}, "kinds: 'svm' does not exist"),
        ({"kinds": []}, "kinds: none; allowed: one or more"),
        ({"private": None}, "attribute_weight: 1.0; allowed: 0 where private is null"),
        ({"steps": 0}, "steps: 0; allowed: from 1"),
        ({"image_weight": -1.0}, "image_weight: -1.0; allowed: from 0"),
        ({"until": 25}, "until: 25; allowed: null, or above warmup \\+ meeting, 25"),
        ({"lr": 0.0}, "lr: 0.0; allowed: above 0"),
    ],
)
def test_refusals(knobs, message):
    with pytest.raises(InputError, match=message):
        Partitioning(**{"private": "dark", **knobs})


def test_training_refuses_what_cannot_be_played():
    with pytest.raises(InputError, match="private: 'hat' is not handed to training"):
        trained(Partitioning("hat", **QUICK))
    with pytest.raises(InputError, match="warmup \\+ meeting: 25 of 2 epochs; allowed: fewer than all"):
        trained(Partitioning("dark"))
    with pytest.raises(InputError, match="classes: 2; allowed: above 2, which 'dark' has"):
        trained(Partitioning("dark", **QUICK), attributes={"dark": bright()[1]})
    assert RECIPE.epochs == 2
