"""An opponent and the client it stands against: who learns from what, when, and how much it costs."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mipriv import draws
from mipriv.defenses import Batch, Defense
from mipriv.defenses.adversarial import Adversarial
from mipriv.metrics.reconstruction import ssim
from mipriv.models.decoders import Decoder
from mipriv.models.opponent import Opposed
from mipriv.models.split_classifier import SplitClassifier
from tests.science.toy_defenses import SHAPE, bright, parties

KNOBS: dict[str, Any] = {"width": 2, "floor": -0.9, "warmup": 0}
LOW = {"ssim": -0.9, "mse": -9.0}  # floors at which the client always resists


def batch(model: SplitClassifier, epoch: int = 0, epochs: int = 4) -> Batch:
    images, labels = (part[::3] for part in bright())
    features = model.client(images)
    noise = 0.1 * torch.randn(features.shape, generator=draws.generator(0))
    return Batch(images, labels, model.server(features), epoch, epochs, features, features + noise)


def prepared(model: SplitClassifier, **knobs: Any) -> Adversarial:
    plan = Adversarial(**{**KNOBS, **knobs})
    torch.manual_seed(0)
    plan.prepare(model, SHAPE)
    return plan


def decoder(plan: Opposed) -> Decoder:
    assert plan._decoder is not None
    return plan._decoder


def frozen(plan: Opposed) -> dict[str, Tensor]:
    return copy.deepcopy(decoder(plan).state_dict())


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, two[key]) for key, value in one.items())


@pytest.mark.parametrize("measure", ["ssim", "mse"])
def test_the_penalty_by_hand(measure: str) -> None:
    model = parties()
    plan = prepared(model, measure=measure, floor=LOW[measure], weight=0.7)
    given = batch(model)
    extra = plan.loss(given, 0) - Defense().loss(given, 0)
    with torch.no_grad():
        decoded = decoder(plan)(given.sent)
    success = ssim(decoded, given.images).mean() if measure == "ssim" else -F.mse_loss(decoded, given.images)
    assert extra.item() == pytest.approx(0.7 * (success.item() - LOW[measure]), rel=1e-4)
    content = prepared(model, measure=measure, floor=-1e-6 if measure == "mse" else 0.999)
    assert content.loss(given, 0).item() == Defense().loss(given, 0).item()


@pytest.mark.parametrize("measure", ["ssim", "mse"])
def test_neither_party_gathers_gradients_from_the_others(measure: str) -> None:
    model = parties()
    plan = prepared(model, measure=measure, floor=LOW[measure])
    for step in range(2):
        given = batch(model)
        loss = plan.loss(given, step)
        # The opponent has taken its step: the client must not have felt it.
        assert all(p.grad is None for p in model.parameters())
        before = frozen(plan)
        (loss - Defense().loss(given, step)).backward()
        assert all(p.grad is None for p in decoder(plan).parameters()) and same(before, frozen(plan))
        slopes = [p.grad for p in model.client.parameters() if p.grad is not None]
        assert any(slope.abs().max() > 1e-7 for slope in slopes)
        model.zero_grad(set_to_none=True)


def test_the_opponent_takes_one_step_a_batch_by_itself_and_on_what_was_sent() -> None:
    """Against a decoder and an Adam of the test's own, on the same batches."""
    model = parties()
    plan = prepared(model, measure="mse", floor=-9.0, lr=0.01)
    with draws.seeded(plan._key, "opponent", 0):
        other = Decoder(model.feature_shape, SHAPE, 2, bounded=False)
    adam = torch.optim.Adam(other.parameters(), 0.01)
    for step in range(3):
        given = batch(model)
        plan.loss(given, step)
        assert given.sent is not None
        adam.zero_grad()
        F.mse_loss(other.train()(given.sent.detach()), given.images).backward()
        adam.step()
        assert same(frozen(plan), other.state_dict())


def test_only_the_opponent_learns_while_it_warms_up_and_by_the_squared_error() -> None:
    model = parties()
    plans = [prepared(model, warmup=2, measure="ssim", floor=-0.9, lr=0.01) for _ in range(2)]
    one, late = plans
    for epoch in (0, 1, 2):
        given = batch(model, epoch)
        before = frozen(one) if epoch else {}
        extra = one.loss(given, 0).item() - Defense().loss(given, 0).item()
        assert (extra > 0) == (epoch == 2)
        assert not before or not same(before, frozen(one))
    # The first step from the same weights differs once the measure counts.
    late.warmup = 0
    fresh = prepared(model, warmup=2, measure="ssim", floor=-0.9, lr=0.01)
    late.loss(batch(model), 0), fresh.loss(batch(model), 0)
    assert not same(frozen(late), frozen(fresh))
    with draws.seeded(fresh._key, "opponent", 0):
        by_hand = Decoder(model.feature_shape, SHAPE, 2)
    adam, given = torch.optim.Adam(by_hand.parameters(), 0.01), batch(model)
    assert given.sent is not None
    F.mse_loss(by_hand(given.sent.detach()), given.images).backward()
    adam.step()
    assert same(frozen(fresh), by_hand.state_dict())


def test_a_new_opponent_takes_over_every_so_many_epochs() -> None:
    model = parties()
    plan = prepared(model, restart=2)
    met: list[int] = []
    for epoch in range(6):
        for step in range(2):
            plan.loss(batch(model, epoch, 6), step)
            met.append(id(plan._decoder))
            assert plan._adam is not None
            owned = {id(p) for group in plan._adam.param_groups for p in group["params"]}
            assert owned == {id(p) for p in decoder(plan).parameters()}
    changes = [i // 2 for i in range(1, 12) if met[i] != met[i - 1]]
    assert changes == [2, 4]


def test_an_opponent_of_images_that_are_not_bounded_is_not_bounded_either() -> None:
    torch.manual_seed(0)
    free, held = (Decoder((4, 8, 8), SHAPE, 2, bounded=b) for b in (False, True))
    held.load_state_dict(free.state_dict())
    features = 50 * torch.randn(3, 4, 8, 8)
    pixels = free.eval()(features)
    assert pixels.min() < 0 and pixels.max() > 1
    assert torch.equal(held.eval()(features), pixels.sigmoid())
    for measure, bounded in (("mse", False), ("ssim", True)):
        plan = prepared(parties(), measure=measure, floor=LOW[measure])
        plan.loss(batch(parties()), 0)
        assert decoder(plan).bounded == bounded


@pytest.mark.parametrize("measure", ["ssim", "mse"])
def test_a_step_of_the_client_makes_the_opponent_fail(measure: str) -> None:
    model = parties()
    plan = prepared(model, measure=measure, floor=LOW[measure], weight=1.0, width=8, lr=0.01)
    for step in range(60):  # an opponent that has something to lose
        plan.loss(batch(model), step)

    def success() -> Tensor:
        given = batch(model)
        assert given.sent is not None
        decoded = decoder(plan)(given.sent)
        return ssim(decoded, given.images).mean() if measure == "ssim" else -F.mse_loss(decoded, given.images)

    given = batch(model)
    extra = plan.loss(given, 60) - Defense().loss(given, 60)
    extra.backward()
    before = success().item()
    with torch.no_grad():
        for p in model.client.parameters():
            if p.grad is not None:
                p -= 0.05 * p.grad
    assert success().item() < before - 1e-5


def test_the_client_faces_the_opponent_as_it_would_be_used_and_leaves_no_trace_in_it() -> None:
    """Batch normalisation, which two doublings bring, in evaluation mode: nor are its statistics moved."""
    images, plan = bright()[0][:6], Opposed(weight=1.0, floor=-9.0, measure="mse", width=2, warmup=1)
    sent = torch.rand(6, 4, 4, 4).requires_grad_()
    with_client, without = copy.deepcopy(plan), copy.deepcopy(plan)
    found = with_client.resist(images, sent, 1, 2)
    without.warmup = 0
    norms = [m for m in decoder(with_client).modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert [int(norm.num_batches_tracked) for norm in norms if norm.num_batches_tracked is not None] == [1]
    without._step(images, sent.detach(), 1)
    assert same(frozen(with_client), frozen(without))
    assert found.item() == pytest.approx(9 - F.mse_loss(decoder(without)(sent), images).item(), rel=1e-5)


def test_the_opponents_first_weights_follow_from_the_seed() -> None:
    def first(seed: int) -> dict[str, Tensor]:
        model, plan = parties(), Adversarial(**{**KNOBS, "lr": 1e-9})
        torch.manual_seed(seed)
        plan.prepare(model, SHAPE)
        plan.loss(batch(model), 0)
        return frozen(plan)

    assert same(first(0), first(0)) and not same(first(0), first(1))
