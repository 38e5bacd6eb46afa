"""PATROL: filters found, judged and silenced for good, and the spectral norms of a client."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv import draws, training
from mipriv.defenses import Batch, Defense
from mipriv.defenses.patrol import Patrol
from mipriv.errors import InputError
from mipriv.models import filters, spectral
from mipriv.models.split_classifier import SplitClassifier
from tests.science.toy_defenses import RECIPE, SHAPE, bright, hooks, parties

KNOBS: dict[str, Any] = {"width": 2, "prune": 0.2, "prune_epoch": 0, "weight": 0.0, "lipschitz": 0.0}


def prepared(model: SplitClassifier, **knobs: Any) -> Patrol:
    plan = Patrol(**{**KNOBS, **knobs})
    torch.manual_seed(0)
    plan.prepare(model, SHAPE)
    return plan


def batch(model: SplitClassifier, epoch: int = 0, part: int = 0) -> Batch:
    images, labels = (whole[part::3] for whole in bright())
    features = model.client(images)
    return Batch(images, labels, model.server(features), epoch, 2, features, features)


def masks(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.named_buffers() if name.endswith(".kept")}


def test_layers_are_the_convolutions_with_the_normalisation_that_reads_them() -> None:
    model = parties().train()
    running = copy.deepcopy(model.state_dict())
    found = filters.layers(model.client, SHAPE)
    assert model.training and hooks(model) == 0
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in running.items())
    inside = dict(model.client.named_modules())
    assert [layer.name for layer in found] == [n for n, m in inside.items() if isinstance(m, nn.Conv2d)]
    expected = {"stem.0": "stem.1", "conv1": "bn1", "conv2": "bn2"}
    for layer in found:
        conv = next(end for end in expected if layer.name.endswith(end))
        assert layer.norm is inside[layer.name.removesuffix(conv) + expected[conv]]
    assert [layer.input_shape for layer in found] == [(1, 16, 16), (4, 8, 8), (4, 8, 8)]
    bare = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.BatchNorm2d(2))
    (only,) = filters.layers(bare, SHAPE)
    assert only.norm is None and only.scale() is None


def test_the_worth_of_a_filter_is_the_slope_of_the_loss_along_its_output() -> None:
    """Scale everything that a filter puts out by 1 + t: the worth is the squared derivative at t = 0."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 3)).double()
    with torch.no_grad():
        net[1].weight.uniform_(0.5, 1)
        net[1].bias.uniform_(-1, 1)
    images = torch.rand(5, *SHAPE, dtype=torch.float64)
    found = filters.layers(net, SHAPE)
    loss = net.train()(images).square().mean()
    for layer, behind in zip(found, (1, 3), strict=True):
        slopes = list(torch.autograd.grad(loss, layer.gate(), retain_graph=True))
        t = torch.zeros(layer.conv.out_channels, dtype=torch.float64, requires_grad=True)
        x = images
        for place, module in enumerate(net):
            x = module(x)
            if place == behind:
                x = x * (1 + t.view(-1, 1, 1))
        (slope,) = torch.autograd.grad(x.square().mean(), t)
        assert torch.allclose(filters.worth(layer, slopes), slope.square())
        assert slope.abs().min() > 1e-6


def test_in_front_of_a_normalisation_nothing_seems_worth_anything() -> None:
    """Why worth is taken behind it."""
    model = parties().train()
    layer = filters.layers(model.client, SHAPE)[1]
    loss = Defense().loss(batch(model), 0)
    (slope,) = torch.autograd.grad(loss, layer.conv.weight, retain_graph=True)
    front = (slope * layer.conv.weight).sum((1, 2, 3)).square()
    behind = filters.worth(layer, list(torch.autograd.grad(loss, layer.gate())))
    assert front.max() < 1e-4 * behind.max()


def test_the_least_worthy_go_but_never_a_layers_last() -> None:
    worths = [torch.tensor([0.1, 0.2, 0.9]), torch.tensor([0.0, 0.05])]
    assert [g.tolist() for g in filters.least(worths, 2)] == [[True, False, False], [True, False]]
    assert [g.tolist() for g in filters.least(worths, 9)] == [[True, True, False], [True, False]]
    assert not any(g.any() for g in filters.least(worths, 0))


def test_worth_is_summed_over_the_batches_of_one_epoch_and_then_prunes() -> None:
    model = parties().train()
    plan = prepared(model, prune_epoch=1, prune=0.3)
    plan.loss(batch(model, epoch=0), 0)
    plan.after_epoch(model, 0)
    assert all(mask.all() for mask in masks(model).values())
    expected = [torch.zeros(layer.conv.out_channels) for layer in plan._layers]
    for part in range(3):
        given = batch(model, 1, part)
        plan.loss(given, part)
        plain = F.cross_entropy(given.logits, given.labels)
        for total, layer in zip(expected, plan._layers, strict=True):
            total += filters.worth(layer, list(torch.autograd.grad(plain, layer.gate(), retain_graph=True)))
    plan.after_epoch(model, 1)
    total = sum(len(those) for those in expected)
    assert total == 16 and plan.state() == {"filters": 16, "kept": 16 - math.ceil(0.3 * 16)}
    kept = torch.cat(list(masks(model).values()))
    ranked = torch.cat(expected).argsort()[:5]
    assert kept.count_nonzero() == 11 and kept[ranked].count_nonzero() == 0


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_pruned_filters_stay_exactly_zero_through_more_training(optimizer: str) -> None:
    """With momentum and weight decay, three epochs on; the others learn."""
    model, pair = parties(), bright()
    seen: list[dict[str, Tensor]] = []

    class Watch(Patrol):
        def after_step(self, model: nn.Module, step: int) -> None:
            super().after_step(model, step)
            seen.append(copy.deepcopy(model.state_dict()))

    plan = Watch(**{**KNOBS, "weight": 0.3, "lipschitz": 1e-3, "prune": 0.3})
    recipe = training.Recipe(4, 6, optimizer, 0.02, weight_decay=1e-3, select="last")
    training.train(model, pair, pair, recipe, plan, seed=0)
    per_epoch, pruned = len(seen) // 4, [k for k, v in masks(model).items() if not v.all()]
    assert len(pruned) > 0 and torch.cat(list(masks(model).values())).count_nonzero() == 11
    for name in pruned:
        gone = seen[-1][name] == 0
        weight = name.replace("kept", "weight")
        assert all(s[name].all() for s in seen[:per_epoch]), "not before the epoch's end"
        assert seen[per_epoch - 1][weight][gone].count_nonzero() > 0
        for state in seen[per_epoch:]:
            assert torch.equal(state[name] == 0, gone) and state[weight][gone].count_nonzero() == 0
        assert not torch.equal(seen[-1][weight][~gone], seen[per_epoch][weight][~gone])
    outputs = dict.fromkeys(("conv", "norm"), torch.zeros(0))
    for layer in plan._layers:
        outputs["conv"] = layer.conv(torch.rand(3, *layer.input_shape))
        assert layer.norm is not None
        outputs["norm"] = layer.norm(outputs["conv"])
        gone = layer.kept() == 0
        assert all(out[:, gone].count_nonzero() == 0 for out in outputs.values())
        assert all((out[:, ~gone].flatten(2).abs().sum((0, 2)) > 0).all() for out in outputs.values())


def test_more_of_a_client_and_features_that_stay_in_place() -> None:
    whole, images = parties().eval(), bright()[0]
    before = whole.client(images)
    model = parties().eval()
    plan = prepared(model, extra=2)
    sent = model.client(images)
    assert sent.shape == before.shape and sent.min() > 0 and sent.max() < 1
    extra = [m for m in model.client[1] if isinstance(m, nn.Conv2d)]  # type: ignore[index, union-attr]
    assert len(extra) == 2 and extra[-1] is plan._layers[-1].conv
    bare = parties()
    assert sum(1 for _ in prepared(bare, extra=0)._layers) == 3 and not isinstance(bare.client, nn.Sequential)


class Flat(nn.Module):
    """A client without a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def test_clients_that_cannot_be_pruned_are_refused() -> None:
    server = nn.Linear(256, 3)
    with pytest.raises(InputError, match=r"patrol: features \[256\] at the cut; allowed: \[C, h, w\]"):
        prepared(SplitClassifier(Flat(), server, (256,), 3))
    with pytest.raises(InputError, match="patrol: the client has no convolution"):
        prepared(SplitClassifier(Flat(), server, (256,), 3), extra=0)
    plain = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1, affine=False))
    with pytest.raises(InputError, match=r"patrol: '0' is normalised without weights"):
        prepared(SplitClassifier(plain, nn.Sequential(nn.Flatten(), server), SHAPE, 3), extra=0)


CONVS = [
    {"in_channels": 2, "out_channels": 3, "kernel_size": 3, "padding": 1},
    {"in_channels": 2, "out_channels": 3, "kernel_size": 3, "stride": 2, "bias": False},
    {"in_channels": 2, "out_channels": 4, "kernel_size": 3, "groups": 2, "dilation": 2, "padding": "same"},
    {"in_channels": 2, "out_channels": 1, "kernel_size": 5, "padding": 2, "padding_mode": "circular"},
]


@pytest.mark.parametrize("knobs", CONVS)
@pytest.mark.parametrize("scaled", [False, True])
def test_the_spectral_norm_is_that_of_the_dense_matrix(knobs: dict[str, Any], scaled: bool) -> None:
    torch.manual_seed(0)
    conv, side = nn.Conv2d(**knobs).double(), 6
    scale = torch.rand(conv.out_channels, dtype=torch.float64).requires_grad_() if scaled else None
    basis = torch.eye(2 * side * side, dtype=torch.float64).view(-1, 2, side, side)
    zero = conv(torch.zeros_like(basis[:1]))
    images = conv(basis) - zero
    matrix = (images if scale is None else images * scale.view(-1, 1, 1)).flatten(1).T
    expected = torch.linalg.matrix_norm(matrix, ord=2).square()
    start = draws.normal((1, 2, side, side), "start")
    found, vector = spectral.squared_norm(conv, scale, start / start.norm(), 400)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6) and vector.norm().item() == pytest.approx(
        1
    )
    wanted = [conv.weight] + ([] if scale is None else [scale])
    slopes = torch.autograd.grad(found, wanted)
    for one, other in zip(slopes, torch.autograd.grad(expected, wanted), strict=True):
        assert torch.allclose(one, other, atol=1e-3 * other.abs().max().item())
    # A few more steps from where one stands do what many from the start do.
    again, _ = spectral.squared_norm(conv, scale, vector, 1)
    assert again.item() == pytest.approx(found.item(), rel=1e-9)
    rough, _ = spectral.squared_norm(conv, scale, start / start.norm(), 0)
    assert rough < found


def test_a_silent_convolution_has_norm_zero_and_keeps_its_vector() -> None:
    conv = nn.Conv2d(1, 1, 3)
    nn.init.zeros_(conv.weight)
    start = torch.ones(1, 1, 4, 4) / 4
    found, vector = spectral.squared_norm(conv, None, start, 3)
    assert found == 0 and torch.equal(vector, start)


def test_the_lipschitz_term_by_dense_matrices() -> None:
    """Normalisation included: its scale in evaluation mode, or the term would say nothing of the client."""
    model = parties().train()
    for _ in range(3):
        model(bright()[0])
    plan = prepared(model, lipschitz=0.3, prune=0.0)
    expected = 0.0
    for layer in plan._layers:
        assert layer.norm is not None and layer.norm.running_var is not None
        basis = torch.eye(math.prod(layer.input_shape)).view(-1, *layer.input_shape)
        with torch.no_grad():
            layer.norm.eval()
            lines = layer.norm(layer.conv(basis)) - layer.norm(layer.conv(0 * basis))
            layer.norm.train()
        expected += torch.linalg.matrix_norm(lines.flatten(1), ord=2).square().item()
    model.eval()
    given = batch(model)
    for step in range(150):
        extra = plan.loss(given, step) - Defense().loss(given, step)
    assert extra.item() == pytest.approx(0.15 * expected, rel=1e-3)
    learnt = [p for layer in plan._layers for p in (layer.conv.weight, layer.gate()[0])]
    assert all(slope.abs().max() > 1e-4 for slope in torch.autograd.grad(extra, learnt))


def test_regularised_clients_stretch_less() -> None:
    def norms(strength: float) -> float:
        model, pair = parties(), bright()
        plan = Patrol(**{**KNOBS, "prune": 0.0, "lipschitz": strength})
        training.train(model, pair, pair, RECIPE, plan, seed=0)
        found = 0.0
        for layer, vector in zip(plan._layers, plan._vectors, strict=True):
            found += spectral.squared_norm(layer.conv, layer.scale(), vector, 50)[0].item()
        return found

    assert norms(0.3) < 0.9 * norms(0.0)
