"""What is particular to the defences of split networks that have no opponent."""

import math

import pytest
import torch
from torch import Tensor, nn

from mipriv import draws, training
from mipriv.analysis.dependence import distance_correlation
from mipriv.defenses import Batch, Defense
from mipriv.defenses.bottleneck import Bottleneck
from mipriv.defenses.dropout import Dropout
from mipriv.defenses.info_bottleneck import InfoBottleneck, divergence
from mipriv.defenses.noise import Noise
from mipriv.defenses.none import None_
from mipriv.defenses.nopeek import NoPeek
from mipriv.models.split_classifier import SplitClassifier
from tests.science.toy_defenses import RECIPE, SHAPE, bright, parties


def batch(sigma: float = 0.1, epochs: int = 1) -> Batch:
    """Six rows of the toy parties' features, with their graph."""
    images, labels = (part[::4] for part in bright())
    model = parties()
    features = model.client(images)
    sent = Noise(sigma).release(features, draws.generator(0))
    return Batch(images, labels, model.server(sent), 0, epochs, features, sent)


def after(plan: Defense, seed: int = 0, epochs: int = 2) -> SplitClassifier:
    model, pair = parties(), bright()
    recipe = training.Recipe(epochs, RECIPE.batch_size, "adam", RECIPE.lr, select="last")
    training.train(model, pair, pair, recipe, plan, seed=seed)
    return model


@torch.no_grad()
def made(model: SplitClassifier) -> Tensor:
    return model.client(bright()[0]).flatten(1)


def test_noise_of_a_whole_network_is_refused_only_where_it_was_asked_for() -> None:
    None_().prepare(nn.Linear(1, 1), SHAPE)
    assert torch.equal(None_().release(torch.ones(3), draws.generator(0)), torch.ones(3))


def test_the_bottleneck_is_behind_the_client_and_in_front_of_the_server() -> None:
    model, images = parties().eval(), bright()[0]
    client, server = model.client, model.server
    Bottleneck("K1C2S2").prepare(model, SHAPE)
    assert model.feature_shape == (2, 4, 4) and model.width == 32
    with torch.no_grad():
        sent = model.client(images)
        assert sent.shape[1:] == model.feature_shape and sent.min() >= 0 and sent.max() <= 1
        down, up = model.client[1], model.server[0]  # type: ignore[index]
        assert torch.equal(sent, down(client(images))) and torch.equal(model.server(sent), server(up(sent)))


@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_dropped_features_are_zero_before_the_noise_and_kept_ones_as_they_were(sigma: float) -> None:
    features = torch.rand(50, 4, 8, 8) + 1
    sent = Dropout(rate=0.3, sigma=sigma).release(features, draws.generator(0))
    kept = (sent - features).abs() < 0.5
    dropped = sent.abs() < 0.5
    assert (kept | dropped).all() and dropped.double().mean().item() == pytest.approx(0.3, abs=0.02)
    for row in dropped.flatten(1).double().mean(1), dropped.double().mean(0).flatten():
        assert row.std() > 0 and row.mean().item() == pytest.approx(0.3, abs=0.02)
    if sigma == 0:
        assert torch.equal(sent[kept], features[kept]) and sent[dropped].count_nonzero() == 0
    else:
        assert sent[dropped].std().item() == pytest.approx(sigma, rel=0.05)


def test_dropout_is_at_work_in_evaluation() -> None:
    """The server is judged on masked features: two draws of validation differ, the mode notwithstanding."""
    plan, images = Dropout(rate=0.5), bright()[0]
    model = after(plan)
    assert not model.training
    with training.released(model, plan, 0), torch.no_grad():
        model(images)
        features, sent = model.take()
    assert 0.3 < ((sent == 0) & (features != 0)).sum() / features.count_nonzero() < 0.7
    seen: list[bool] = []

    class Watch(Dropout):
        def release(self, features: Tensor, generator: torch.Generator) -> Tensor:
            sent = super().release(features, generator)
            if not torch.is_grad_enabled():
                seen.append(torch.equal(sent, features))
            return sent

    after(Watch(rate=0.5))
    assert seen == [False, False]  # an epoch's validation each


@pytest.mark.parametrize("on", ["features", "sent"])
def test_nopeek_adds_the_distance_correlation_of_what_it_names(on: str) -> None:
    given = batch(sigma=0.5)
    expected = Defense().loss(given, 0)
    seen = getattr(given, on).flatten(1)
    expected = expected + 0.7 * distance_correlation(given.images.flatten(1), seen)
    assert NoPeek(weight=0.7, on=on).loss(given, 0).item() == pytest.approx(expected.item(), rel=1e-6)
    other = NoPeek(weight=0.7, on="sent" if on == "features" else "features").loss(given, 0)
    assert other.item() != pytest.approx(expected.item(), rel=1e-3)


def test_nopeek_lowers_the_distance_correlation() -> None:
    images = bright()[0].flatten(1)

    def value(plan: Defense) -> float:
        return distance_correlation(images, made(after(plan, epochs=16))).item()

    assert value(NoPeek(weight=20.0)) < value(None_()) - 0.2


def test_divergence_against_torch() -> None:
    random = torch.Generator().manual_seed(0)
    f, mean = (torch.randn(n, 3, dtype=torch.float64, generator=random) for n in (5, 1))
    spread = torch.rand(3, dtype=torch.float64, generator=random) + 0.1
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(f, 0.3), normal(mean, spread)).sum(1)
    assert torch.allclose(divergence(f, 0.3, mean[0], spread.square()), expected)


def test_info_bottleneck_starts_at_the_moments_of_the_first_batch() -> None:
    """There the penalty is CEM's bound of one cell and no classes, but for Adam's first step of r."""
    given, plan = batch(), InfoBottleneck(sigma=0.1, weight=0.5, lr=1e-6)
    extra = plan.loss(given, 0) - Defense().loss(given, 0)
    assert given.features is not None
    slow = 0.0
    for column in given.features.detach().flatten(1).T.double().tolist():
        mean = sum(column) / len(column)
        slow += math.log(1 + sum((v - mean) ** 2 for v in column) / len(column) / 0.01) / 2
    assert extra.item() == pytest.approx(0.5 * slow, rel=1e-4)


def test_the_marginal_is_learnt_and_the_client_alone_bears_the_loss() -> None:
    plan, first, other = InfoBottleneck(sigma=0.5, lr=0.05), batch(), batch()
    moved = Batch(**{**vars(other), "features": other.features.detach() * 2 + 1})  # type: ignore[union-attr]
    plan.loss(first, 0)
    for step in range(1500):
        plan.loss(moved, step)
    state = plan.state()
    target = moved.features.flatten(1)  # type: ignore[union-attr]
    assert torch.allclose(state["marginal_mean"], target.mean(0), atol=0.02)
    expected = target.var(0, correction=0) + 0.25
    assert torch.allclose(state["marginal_variance"], expected, rtol=0.05)
    loss = plan.loss(first, 0)
    assert plan._mean is not None and plan._log_variance is not None
    learnt = [p.grad.clone() for p in (plan._mean, plan._log_variance) if p.grad is not None]
    loss.backward()
    assert len(learnt) == 2
    for p, grad in zip((plan._mean, plan._log_variance), learnt, strict=True):
        assert p.grad is not None and torch.equal(p.grad, grad)


def test_the_client_gets_the_slope_of_its_own_divergence() -> None:
    given, plan = batch(), InfoBottleneck(sigma=0.1, weight=0.5)
    extra = plan.loss(given, 0) - Defense().loss(given, 0)
    assert given.features is not None
    (slope,) = torch.autograd.grad(extra, given.features, retain_graph=True)
    state = plan.state()
    by_hand = (given.features.flatten(1) - state["marginal_mean"]) / state["marginal_variance"]
    assert torch.allclose(slope.flatten(1), 0.5 * by_hand / len(slope), rtol=1e-3, atol=1e-6)


def test_info_bottleneck_narrows_what_is_sent() -> None:

    def nats(plan: Defense) -> float:
        return torch.log1p(made(after(plan, epochs=6)).var(0) / 0.01).sum().item() / 2

    assert nats(InfoBottleneck(sigma=0.1, weight=0.1)) < 0.9 * nats(Noise(sigma=0.1))
