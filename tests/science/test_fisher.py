"""Fisher information against one-by-one gradients, a Hessian, and what must not change it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv.analysis.fisher import Fisher, parts
from mipriv.errors import InputError
from mipriv.models.classifiers import Classifier
from mipriv.models.cut import execution_order
from tests.science.conftest import CLASSES, SHAPE

Loss = Callable[[Tensor, Tensor], Tensor]
N = 5


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def max_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """A loss that vmap cannot run: it indexes by a mask."""
    others = torch.ones_like(logits, dtype=torch.bool).scatter(1, labels[:, None], False)
    return logits[others].view(len(logits), -1).amax(1) - logits.gather(1, labels[:, None])[:, 0]


@pytest.fixture
def images() -> Tensor:
    return torch.rand(N, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor([0, 3, 5, 1, 3])


def one_by_one(model: nn.Module, images: Tensor, labels: Tensor, loss: Loss) -> np.ndarray:
    """Sums [n, layers] of squared gradients, an image and a backward pass at a time."""
    names = [leaf.name for leaf in execution_order(model, SHAPE) if leaf.parameters]
    rows = []
    for image, label in zip(images, labels, strict=True):
        value = loss(model(image[None]), label[None]).sum()
        weights = [list(model.get_submodule(name).parameters(recurse=False)) for name in names]
        rows.append([sum(float(g.square().sum()) for g in torch.autograd.grad(value, own, retain_graph=True))
                     for own in weights])  # fmt: skip
    return np.array(rows)


@pytest.mark.parametrize("loss", [cross_entropy, max_margin])
def test_the_empirical_information_is_that_of_a_loop_over_images(
    victim: Classifier, images: Tensor, labels: Tensor, loss: Loss
) -> None:
    found = Fisher(chunk=2).empirical(victim, images, labels, loss)
    np.testing.assert_allclose(found.sums, one_by_one(victim, images, labels, loss), rtol=1e-10)
    order = [leaf for leaf in execution_order(victim, SHAPE) if leaf.parameters]
    assert [(layer.name, layer.parameters) for layer in found.layers] == [
        (leaf.name, leaf.parameters) for leaf in order
    ]


def test_the_square_of_a_mean_gradient_is_something_else(
    victim: Classifier, images: Tensor, labels: Tensor
) -> None:
    found = Fisher().empirical(victim, images, labels, cross_entropy).sums.mean(0)
    mean = cross_entropy(victim(images), labels).mean()
    owners = [victim.get_submodule(leaf.name) for leaf in execution_order(victim, SHAPE) if leaf.parameters]
    gradients = [
        torch.autograd.grad(mean, list(m.parameters(recurse=False)), retain_graph=True) for m in owners
    ]
    wrong = np.array([sum(float(part.square().sum()) for part in layer) for layer in gradients])
    assert (wrong < 0.9 * found).all()


def test_the_exact_true_information_is_the_expectation_over_labels(
    victim: Classifier, images: Tensor
) -> None:
    chances = victim(images).softmax(1).detach().numpy()
    expected = sum(
        chances[:, [k]] * one_by_one(victim, images, torch.full((N,), k), cross_entropy)
        for k in range(CLASSES)
    )
    np.testing.assert_allclose(
        Fisher().true(victim, images, cross_entropy, seed=0).sums, expected, rtol=1e-10
    )


def test_sampled_labels_come_near_the_exact_expectation(victim: Classifier, images: Tensor) -> None:
    victim.head.weight.data /= 30  # undecided, so that few labels are rare
    exact = Fisher().true(victim, images, cross_entropy, seed=0).sums
    few, many = (Fisher(n, chunk=100).true(victim, images, cross_entropy, seed=0).sums for n in (2, 1000))
    off = [np.abs(sums / exact - 1).max() for sums in (few, many)]
    assert off[1] < 0.15 < off[0]
    other = Fisher(2).true(victim, images, cross_entropy, seed=1).sums
    assert not np.allclose(few, other)


def softmax_regression() -> nn.Sequential:
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)).double()
    nn.init.normal_(model[1].weight, generator=torch.Generator().manual_seed(2))
    return model


def test_the_true_information_is_minus_the_expected_hessian_and_the_empirical_is_not() -> None:
    model, image = softmax_regression(), torch.rand(1, 1, 2, 3, dtype=torch.float64)

    def log_chance(weights: Tensor, label: int) -> Tensor:
        return F.log_softmax(F.linear(image.flatten(1), weights[:18].view(3, 6), weights[18:]), 1)[0, label]

    weights = nn.utils.parameters_to_vector(model.parameters()).detach()
    chances = model(image).softmax(1)[0].detach()
    hessian = sum(
        chances[k] * torch.autograd.functional.hessian(lambda w, k=k: log_chance(w, k), weights)
        for k in range(3)
    )
    true = Fisher().true(model, image, cross_entropy, seed=0).sums
    assert true.shape == (1, 1)
    assert true[0, 0] == pytest.approx(-float(hessian.trace()), rel=1e-10)
    empirical = Fisher().empirical(model, image, torch.tensor([0]), cross_entropy).sums
    assert abs(empirical[0, 0] / true[0, 0] - 1) > 0.1


@pytest.mark.parametrize("chunk", [1, 3, 4, 100])
def test_the_chunk_changes_nothing(victim: Classifier, images: Tensor, labels: Tensor, chunk: int) -> None:
    for draws in (None, 3):
        expected = Fisher(draws, chunk=7).true(victim, images, cross_entropy, seed=4).sums
        found = Fisher(draws, chunk).true(victim, images, cross_entropy, seed=4).sums
        np.testing.assert_allclose(found, expected, rtol=1e-10)
    expected = Fisher(chunk=7).empirical(victim, images, labels, cross_entropy).sums
    found = Fisher(chunk=chunk).empirical(victim, images, labels, cross_entropy).sums
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_the_model_is_left_as_it_was_found(victim: Classifier, images: Tensor, labels: Tensor) -> None:
    victim.train()
    victim.head.eval()
    victim.head.bias.requires_grad_(False)
    modes = [module.training for module in victim.modules()]
    wanted = [weight.requires_grad for weight in victim.parameters()]
    before = {name: value.clone() for name, value in victim.state_dict().items()}
    trained = Fisher().true(victim, images, cross_entropy, seed=0)
    Fisher().empirical(victim, images, labels, cross_entropy)
    assert modes == [module.training for module in victim.modules()]
    assert wanted == [weight.requires_grad for weight in victim.parameters()]
    assert all(value.equal(before[name]) for name, value in victim.state_dict().items())
    assert all(weight.grad is None for weight in victim.parameters())
    # Frozen parameters count, and normalisation uses its running statistics.
    asked = Fisher().true(victim.eval().requires_grad_(True), images, cross_entropy, seed=0)
    np.testing.assert_array_equal(trained.sums, asked.sums)


def test_scores_are_means_a_parameter_and_parts_of_the_sum(victim: Classifier, images: Tensor) -> None:
    found = Fisher().true(victim, images, cross_entropy, seed=0)
    counts = [layer.parameters for layer in found.layers]
    means, shares = found.means(), found.shares()
    np.testing.assert_allclose([f.point for f in means], found.sums.mean(0) / counts)
    np.testing.assert_allclose([f.point for f in shares], found.sums.mean(0) / found.sums.mean(0).sum())
    assert sum(figure.point for figure in shares) == pytest.approx(1)
    assert all(f.low <= f.point <= f.high and f.n == N for f in (*means, *shares))
    assert parts(np.zeros((1, 3))).tolist() == [[0, 0, 0]]


def test_normalisation_is_told_from_weights(victim: Classifier, images: Tensor, labels: Tensor) -> None:
    layers = Fisher().empirical(victim, images, labels, cross_entropy).layers
    kinds = {layer.name: type(victim.get_submodule(layer.name)) for layer in layers}
    norms = {name for name, kind in kinds.items() if kind is nn.BatchNorm2d}
    assert norms and {layer.name for layer in layers if layer.group == "normalisation"} == norms
    assert all(kinds[layer.name] in (nn.Conv2d, nn.Linear) for layer in layers if layer.group == "weights")


class Attention(nn.Module):
    """Its attention uses the weights of a module below without calling it; another is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)
        self.idle = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(1, 2)
        found: Tensor = self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))
        return found


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_weights_that_the_module_above_uses_are_its_own() -> None:
    model, images = Attention().double(), torch.rand(3, 2, 2, 4, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2])
    found = Fisher().empirical(model, images, labels, cross_entropy)
    assert [(layer.name, layer.parameters) for layer in found.layers] == [("attention", 80), ("head", 15)]
    for i in range(3):
        loss = cross_entropy(model(images[i : i + 1]), labels[i : i + 1]).sum()
        parts_ = torch.autograd.grad(loss, list(model.attention.parameters()))
        assert found.sums[i, 0] == pytest.approx(sum(float(g.square().sum()) for g in parts_), rel=1e-10)


class Branching(nn.Module):
    """What it computes depends on its data."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(x.flatten(1))
        return found if found.sum() > 0 else -found


def test_what_cannot_be_done_is_refused() -> None:
    model, images, labels = softmax_regression(), torch.rand(2, 1, 2, 3).double(), torch.tensor([0, 1])
    with pytest.raises(InputError, match=r"loss: shape \(\); allowed: one a row, \(2,\)"):
        Fisher().empirical(model, images, labels, F.cross_entropy)
    with pytest.raises(InputError, match=r"per-sample gradients of Branching: .*allowed: a model that torch"):
        Fisher().empirical(Branching(), torch.rand(2, 1, 2, 2), labels, cross_entropy)
    with pytest.raises(InputError, match="chunk: 0; allowed"):
        Fisher(chunk=0)
    with pytest.raises(InputError, match="draws: 0; allowed"):
        Fisher(draws=0)
