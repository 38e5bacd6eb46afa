"""CEM on a toy split classifier: its losses by their equations, its gradient against that of all images."""

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mipriv import plugin, training
from mipriv.analysis.entropy_bound import from_moments
from mipriv.analysis.running_cells import RunningCells
from mipriv.defenses import Batch, Defense
from mipriv.defenses.cem import CEM, ramp
from mipriv.errors import InputError
from mipriv.models.split_classifier import SplitClassifier, build
from mipriv.training import Recipe

SHAPE, CLASSES, D, EPOCHS = (1, 16, 16), 3, 4, 8
RECIPE = Recipe(epochs=3, batch_size=6, optimizer="adam", lr=3e-3, select="last")
MODES = {"unbiased": "diagonal", "paper": "full", "code": "isotropic"}


@dataclasses.dataclass
class Noisy(Defense):
    """A host: plain training behind noise."""

    sigma: float = 0.3


@pytest.fixture
def model() -> SplitClassifier:
    whole = plugin.load("classifier", "slim_resnet", widths=(4, 8), depth=1)
    return build(whole, CLASSES, SHAPE, "trunk.stage1", "noRELU_C2S1", seed=0)


@pytest.fixture
def pair() -> training.Pair:
    """Three classes told apart by brightness."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(7)
    return (labels.view(-1, 1, 1, 1) / 3 + 0.2 * torch.rand(21, *SHAPE, generator=random)), labels


def cem(mode: str = "unbiased", **knobs: Any) -> CEM:
    made: CEM = plugin.load(
        "defense",
        "cem",
        **{"host": Noisy(), "mode": mode, "covariance": MODES[mode], "cells": 2, "iterations": 100, **knobs},
    )
    return made


def sample(n: int = 24, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Features [n, D] and labels of classes with two blobs each."""
    random = torch.Generator().manual_seed(4)
    labels = torch.randint(CLASSES, (n,), generator=random) if labels is None else labels
    blob = torch.randint(2, (n,), generator=random)
    noise = torch.rand(n, D, generator=random, dtype=torch.float64)
    return labels[:, None] + 3 * blob[:, None] + noise, labels


def batch(features: Tensor, labels: Tensor, epoch: int) -> Batch:
    logits = torch.zeros(len(labels), CLASSES, dtype=torch.float64)
    return Batch(torch.zeros(len(labels), *SHAPE), labels, logits, epoch, EPOCHS, features, features)


def fitted(plan: CEM, model: SplitClassifier, features: Tensor, labels: Tensor) -> RunningCells:
    """The plan after a warm-up epoch in two batches, its cells those of the features."""
    plan.prepare(model, SHAPE)
    for these in torch.arange(len(labels)).split(len(labels) // 2 + 1):
        found = plan.loss(batch(features[these], labels[these], plan.warmup - 1), 0)
        assert found.item() == pytest.approx(math.log(CLASSES))  # the host's, of logits that are all zero
    plan.after_epoch(model, plan.warmup - 1)
    assert plan._running is not None
    return plan._running


def term(plan: CEM, features: Tensor, labels: Tensor, epoch: int = EPOCHS - 1) -> Tensor:
    return plan.loss(batch(features, labels, epoch), 0) - math.log(CLASSES)


def cells_of(running: RunningCells, features: Tensor, labels: Tensor, classwise: bool = True) -> list[int]:
    """By a loop: the nearest mean with a weight among those of the own class."""
    found = []
    for x, label in zip(features, labels.tolist(), strict=True):
        first = label * running.cells if classwise else 0
        own = [j for j in range(first, first + running.cells) if running.weights[j] > 0]
        found.append(min(own, key=lambda j: (x - running.means[j]).square().sum().item()))
    return found


@pytest.mark.parametrize("covariance", ["isotropic", "diagonal"])
@pytest.mark.parametrize("classwise", [True, False])
@pytest.mark.parametrize("size", [1, 6, 24])
def test_batches_have_the_gradient_of_all_images(
    covariance: str, classwise: bool, size: int, model: SplitClassifier
) -> None:
    features, labels = sample()
    plan = cem(covariance=covariance, classwise=classwise, weight=0.7)
    running = fitted(plan, model, features, labels)

    whole = features.clone().requires_grad_()
    cell = torch.tensor(cells_of(running, features, labels, classwise))
    names = cell.unique()
    weights = torch.stack([(cell == j).double().mean() for j in names])
    variances = torch.stack([whole[cell == j].var(0, correction=0) for j in names])
    moments = variances.mean(1) if covariance == "isotropic" else variances
    bound = from_moments(weights, moments, 0.09, covariance, D)  # type: ignore[arg-type]
    (0.7 * bound / D).backward()

    mean = torch.zeros_like(features)
    for these in torch.arange(24).split(size):
        part = features[these].requires_grad_()
        term(copy.deepcopy(plan), part, labels[these]).backward()
        assert part.grad is not None
        mean[these] += part.grad * size / 24
    assert whole.grad is not None and whole.grad.abs().max() > 1e-3
    assert torch.allclose(mean, whole.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("covariance", ["isotropic", "diagonal"])
def test_the_loss_has_the_value_of_the_running_moments(covariance: str, model: SplitClassifier) -> None:
    features, labels = sample()
    plan = cem(covariance=covariance, weight=0.7, momentum=0.8)
    running = fitted(plan, model, features, labels)
    before = running.variances.clone()
    for these in torch.arange(24).split(5):
        found = term(plan, 1.1 * features[these], labels[these])
        moments = running.variances.mean(1) if covariance == "isotropic" else running.variances
        bound = from_moments(running.weights, moments, 0.09, covariance, D)  # type: ignore[arg-type]
        assert found.item() == pytest.approx(0.7 * bound.item() / D)
    assert not torch.equal(running.variances, before)


def test_the_moments_follow_features_that_move(model: SplitClassifier) -> None:
    """After many batches of other features the gradient is that of the other features."""
    features, labels = sample()
    plan = cem(momentum=0.8)
    running = fitted(plan, model, features, labels)
    for _ in range(120):
        term(plan, 0.5 * features + 1, labels)
    cell = cells_of(running, 0.5 * features + 1, labels)
    for j in set(cell):
        own = 0.5 * features[torch.tensor(cell) == j] + 1
        assert torch.allclose(running.means[j], own.mean(0))
        assert torch.allclose(running.variances[j], own.var(0, correction=0))


def test_a_first_image_is_drawn_nowhere(model: SplitClassifier) -> None:
    features, labels = sample(labels=torch.arange(24) % 2)
    plan = cem()
    fitted(plan, model, features, labels)
    late = torch.full((2, D), 5.0, dtype=torch.float64, requires_grad=True)
    found = term(plan, late, torch.full((2,), 2))
    found.backward()
    assert found.isfinite() and late.grad is not None and not late.grad.any()


@pytest.mark.parametrize("covariance", ["isotropic", "diagonal", "full"])
def test_paper_by_its_equation(covariance: str, model: SplitClassifier) -> None:
    features, labels = sample()
    plan = cem("paper", covariance=covariance, weight=0.7)
    running = fitted(plan, model, features, labels)
    ours, slow = (1.1 * features[:9]).requires_grad_(), (1.1 * features[:9]).requires_grad_()
    found = term(plan, ours, labels[:9])
    cell = cells_of(running, slow.detach(), labels[:9])
    expected = torch.zeros((), dtype=torch.float64)
    for j, weight in enumerate(running.weights.tolist()):
        if weight > 0:
            expected = expected - weight * math.log(weight)
        own = slow[torch.tensor(cell) == j] - running.means[j]
        if len(own):
            outer = own.T @ own / len(own)
            if covariance != "full":
                outer = outer.diagonal().diag()
            if covariance == "isotropic":
                outer = outer.diagonal().mean() * torch.eye(D, dtype=torch.float64)
            expected = expected + weight / 2 * torch.logdet(torch.eye(D) + outer / 0.09)
    assert found.item() == pytest.approx(0.7 * expected.item() / D)
    found.backward()
    (0.7 * expected / D).backward()
    assert ours.grad is not None and slow.grad is not None and torch.allclose(ours.grad, slow.grad)


@pytest.mark.parametrize("threshold", [0.125, 8.0])
def test_code_by_its_equation(threshold: float, model: SplitClassifier) -> None:
    features, labels = sample(40)
    plan = cem("code", weight=16.0, threshold=threshold)
    running = fitted(plan, model, features, labels)
    ours, slow = (1.1 * features[:2]).requires_grad_(), (1.1 * features[:2]).requires_grad_()
    found = term(plan, ours, labels[:2])
    cell = cells_of(running, slow.detach(), labels[:2])
    expected = torch.zeros((), dtype=torch.float64)
    for j in sorted(set(cell)):
        c = j // 2
        pi = (running.weights[j] / running.weights[2 * c : 2 * c + 2].sum()).item()
        own = slow[torch.tensor(cell) == j] - running.means[j]
        a = min(0.99, 10 * len(own) / (pi * 40 / CLASSES))
        v = a * own.square().mean() + (1 - a) * running.variances[j].mean()
        gap = torch.log(v + 0.01) - math.log(threshold * 0.09 + 0.01)
        expected = expected + pi * torch.relu(gap)
    expected = 16 * expected / len({j // 2 for j in cell})
    assert found.item() == pytest.approx(expected.item())
    if threshold == 0.125:
        found.backward()
        expected.backward()
        assert ours.grad is not None and slow.grad is not None and torch.allclose(ours.grad, slow.grad)
        early = term(plan, ours, labels[:2], epoch=1)
        assert early.item() == pytest.approx(0.02 * expected.item())
    else:
        assert expected == 0


def test_the_ramp_is_that_of_the_learning_rate() -> None:
    assert [ramp(epoch, 240) for epoch in (1, 59, 60, 119, 120, 179, 180, 239)] == [
        0.02, 0.02, 0.1, 0.1, 0.5, 0.5, 1.0, 1.0,
    ]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_a_small_class_and_an_absent_one(mode: str, model: SplitClassifier) -> None:
    features, labels = sample(labels=torch.tensor([0] * 23 + [2]))
    plan = cem(mode, cells=4)
    running = fitted(plan, model, features, labels)
    assert running.weights.view(CLASSES, 4)[1:].gt(0).tolist() == [[False] * 4, [True] + [False] * 3]
    moving = features[-6:].clone().requires_grad_()
    found = term(plan, moving, labels[-6:])
    found.backward()
    assert found.isfinite() and moving.grad is not None and moving.grad.isfinite().all()


def test_replications_fit_every_epoch_and_ours_once_unless_the_cells_are_outdated(
    model: SplitClassifier,
) -> None:
    features, labels = sample()
    for mode, fits in (("paper", 3), ("code", 3), ("unbiased", 1)):
        plan = cem(mode, momentum=0.8)
        fitted(plan, model, features, labels)
        for epoch in (1, 2):
            term(plan, features, labels, epoch)
            plan.after_epoch(model, epoch)
        assert plan.state()["cem_fits"] == fits
        # Other blobs than those of the fit: the cells explain nothing of them.
        for _ in range(40):
            term(plan, features.flip(0).roll(1, 1) * torch.tensor([9, -9, 9, -9]), labels, 3)
        plan.after_epoch(model, 3)
        for epoch in (4, 5):
            term(plan, features, labels, epoch)
            plan.after_epoch(model, epoch)
        assert plan.state()["cem_fits"] == (2 if mode == "unbiased" else 6)


def test_cells_of_a_replication_keep_their_places_and_first_ones_depend_on_the_seed(
    model: SplitClassifier,
) -> None:
    features, labels = sample()
    plan = cem("paper")
    before = fitted(plan, model, features, labels).means
    for epoch in (1, 2, 3):
        term(plan, features, labels, epoch)
        plan.after_epoch(model, epoch)
    assert torch.allclose(plan.state()["cem_means"], before)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(fitted(cem(cells=4, iterations=1), model, features, labels).means)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_starved_cells_are_looked_after(model: SplitClassifier) -> None:
    features, labels = sample()
    plan = cem(drift=1e9, momentum=0.8)
    running = fitted(plan, model, features, labels)
    one = torch.tensor(cells_of(running, features, labels)) % 2 == 0  # half of the cells see nothing any more
    for _ in range(40):
        term(plan, features[one], labels[one])
    assert running.weights.view(-1, 2).amin(1).max() < 1e-3
    plan.after_epoch(model, 1)
    assert running.weights.view(-1, 2).amin(1).max() > 0.1
    found = term(plan, features[labels == 0], labels[labels == 0]).item()  # no look at the other classes
    bound = from_moments(running.weights, running.variances, 0.09, "diagonal")
    assert found == pytest.approx(bound.item() / D)


def test_half_precision_features_have_single_precision_moments(model: SplitClassifier) -> None:
    features, labels = sample()
    plan, narrow = cem(), features.bfloat16().requires_grad_()
    running = fitted(plan, model, narrow, labels)
    term(plan, narrow, labels).backward()
    assert {running.weights.dtype, running.means.dtype, running.variances.dtype} == {torch.float32}
    assert narrow.grad is not None and narrow.grad.any()


def trained(model: SplitClassifier, pair: training.Pair, plan: Defense, seed: int = 0) -> SplitClassifier:
    copied = copy.deepcopy(model)
    torch.rand(int(torch.randint(9, ())))
    history = training.train(copied, pair, pair, RECIPE, plan, seed=seed)
    assert all(math.isfinite(epoch.loss) for epoch in history.epochs)
    return copied


def equal(one: nn.Module, two: nn.Module) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def information(model: SplitClassifier, pair: training.Pair) -> float:
    """L_C of one cell a class, less the label's entropy, which no training changes."""
    with torch.no_grad():
        features = model.client(pair[0]).flatten(1).double()
    variances = torch.stack([features[pair[1] == c].var(0, correction=0) for c in range(CLASSES)])
    bound = from_moments(torch.full((CLASSES,), 1 / CLASSES), variances, 0.09, "diagonal")
    return bound.item() - math.log(CLASSES)


@pytest.mark.parametrize("mode", MODES)
def test_same_seed_same_bytes_and_features_that_tell_less(
    mode: str, model: SplitClassifier, pair: training.Pair
) -> None:
    knobs = {"weight": 30.0, "gamma": 1e-3}
    one, two = (cem(mode, **knobs) for _ in range(2))
    less = trained(model, pair, one)
    assert equal(less, trained(model, pair, two))
    assert all(
        torch.equal(torch.as_tensor(v), torch.as_tensor(two.state()[k])) for k, v in one.state().items()
    )
    assert not equal(less, trained(model, pair, cem(mode, **knobs), seed=1))
    plain = trained(model, pair, Noisy())
    # `code` begins at a fiftieth of its weight, and lets features be that vary less than its threshold.
    share = 0.98 if mode == "code" else 0.95
    assert information(less, pair) < share * information(plain, pair)


@pytest.mark.parametrize("mode", MODES)
def test_without_weight_it_is_the_host_bit_for_bit(
    mode: str, model: SplitClassifier, pair: training.Pair
) -> None:
    assert equal(trained(model, pair, cem(mode, weight=0.0)), trained(model, pair, Noisy()))


def test_the_client_runs_once_a_step_and_is_differentiated_once(
    model: SplitClassifier, pair: training.Pair
) -> None:
    passes = {"forward": 0, "backward": 0}

    def forward(*_: object) -> None:
        passes["forward"] += model.training

    def backward(*_: object) -> None:
        passes["backward"] += 1

    inside = next(part for part in model.client.modules() if isinstance(part, nn.BatchNorm2d))
    hooks = [inside.register_forward_hook(forward), inside.register_full_backward_hook(backward)]
    training.train(model, pair, pair, RECIPE, cem(), seed=0)
    assert passes == {"forward": 12, "backward": 12}  # three epochs of four batches
    for hook in hooks:
        hook.remove()


def test_all_that_a_host_does_it_does_inside(model: SplitClassifier, pair: training.Pair) -> None:
    seen = []

    class Host(Noisy):
        def prepare(self, model: nn.Module, image_shape: tuple[int, int, int]) -> None:
            seen.append("prepare")

        def before_epoch(self, model: nn.Module, epoch: int) -> None:
            seen.append(f"before_epoch {epoch}")

        def loss(self, batch: Batch, step: int) -> Tensor:
            seen.append(f"loss {step}")
            return 0 * batch.logits.sum() + 5

        def after_step(self, model: nn.Module, step: int) -> None:
            seen.append(f"after_step {step}")

        def after_epoch(self, model: nn.Module, epoch: int) -> None:
            seen.append(f"after_epoch {epoch}")

        def finish(self, model: nn.Module) -> None:
            seen.append("finish")

        def release(self, features: Tensor, generator: torch.Generator) -> Tensor:
            return features + 1

        def state(self) -> dict[str, Any]:
            return {"mask": torch.ones(1)}

    plan = cem(host=Host(0.2))
    recipe = dataclasses.replace(RECIPE, epochs=2, batch_size=21)
    history = training.train(model, pair, pair, recipe, plan, seed=0)
    expected = ["prepare"]
    for i in range(2):
        expected += [f"before_epoch {i}", f"loss {i}", f"after_step {i}", f"after_epoch {i}"]
    assert seen == [*expected, "finish"]
    assert history.epochs[0].loss == 5 and history.epochs[1].loss > 5
    assert plan.sigma == 0.2
    assert plan.release(torch.zeros(1), torch.Generator()).item() == 1
    assert set(plan.state()) == {"mask", "cem_fits", "cem_weights", "cem_means", "cem_variances"}


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"host": Defense()}, r"cem: its host's sigma is 0\.0; allowed: above 0"),
        ({"mode": "released"}, "mode: 'released'.*allowed: code, paper, unbiased"),
        ({"covariance": "full"}, "covariance of unbiased: 'full'.*allowed: diagonal, isotropic"),
        ({"mode": "code"}, "covariance of code: 'diagonal'.*allowed: isotropic"),
        ({"cells": 0}, "cells: 0; allowed: from 1"),
        ({"warmup": 0}, "warmup: 0; allowed: from 1"),
        ({"iterations": 0}, "iterations: 0; allowed: from 1"),
        ({"weight": -1.0}, r"weight: -1\.0; allowed: from 0"),
        ({"weight": math.nan}, "weight: nan; allowed: from 0"),
        ({"momentum": 1.0}, r"momentum: 1\.0; allowed: from 0, below 1"),
        ({"starved": -0.1}, r"starved: -0\.1; allowed: from 0, below 1"),
        ({"drift": 1.0}, r"drift: 1\.0; allowed: above 1"),
        ({"gamma": 0.0}, r"gamma: 0\.0; allowed: above 0"),
        ({"threshold": -1.0}, r"threshold: -1\.0; allowed: from 0"),
    ],
)
def test_wrong_knobs_are_refused(knobs: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        CEM(**{"host": Noisy(), **knobs})


def test_a_whole_network_and_a_training_of_warm_up_alone_are_refused(
    model: SplitClassifier, pair: training.Pair
) -> None:
    with pytest.raises(InputError, match="cem: Sequential sends no features; allowed: a split classifier"):
        cem().prepare(nn.Sequential(nn.Linear(2, 2)), SHAPE)
    with pytest.raises(InputError, match="warmup: 3 of 3 epochs; allowed: fewer than all"):
        training.train(model, pair, pair, RECIPE, cem(warmup=3), seed=0)
