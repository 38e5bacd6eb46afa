"""Closed-form gradient norms against autograd, and rank correlation against its definition."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mipriv.analysis.head_gradients import _correlations, by_side, gradient_norms, ranks, spearman
from mipriv.errors import InputError


def slow_norm(weight: Tensor, bias: Tensor | None, x: Tensor, label: Tensor) -> float:
    parameters = [one.clone().requires_grad_() for one in ([weight] if bias is None else [weight, bias])]
    logits = torch.nn.functional.linear(x, *parameters)
    loss = torch.nn.functional.cross_entropy(logits[None], label[None])
    return float(sum(one.square().sum() for one in torch.autograd.grad(loss, parameters)) ** 0.5)


@pytest.mark.parametrize(("models", "n", "dim", "classes"), [(1, 1, 3, 2), (3, 7, 5, 4), (4, 6, 1, 10)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_norms_are_those_of_autograd(models: int, n: int, dim: int, classes: int, with_bias: bool) -> None:
    made = torch.Generator().manual_seed(models)
    weight = torch.randn(models, classes, dim, generator=made, dtype=torch.float64)
    bias = torch.randn(models, classes, generator=made, dtype=torch.float64) * with_bias
    x = torch.randn(n, dim, generator=made, dtype=torch.float64)
    labels = torch.randint(classes, (n,), generator=made)
    logits = torch.einsum("mcd,nd->mnc", weight, x) + bias[:, None]
    found = gradient_norms(logits, x, labels, with_bias)
    slow = [
        [slow_norm(weight[m], bias[m] if with_bias else None, x[i], labels[i]) for i in range(n)]
        for m in range(models)
    ]
    assert found.shape == (models, n) and found.dtype == torch.float64
    torch.testing.assert_close(found, torch.tensor(slow, dtype=torch.float64), rtol=1e-10, atol=1e-12)


def test_norms_keep_their_digits_where_a_model_is_sure() -> None:
    logits = torch.tensor([[[50.0, 0.0]]])  # float64 rounds p_y to 1
    found = gradient_norms(logits, torch.zeros(1, 2), torch.tensor([0]))
    assert float(found) == pytest.approx(2**0.5 * np.exp(-50.0), rel=1e-10, abs=0)


def test_queries_are_an_axis_like_models() -> None:
    logits, x, labels = torch.randn(2, 3, 5, 4), torch.randn(5, 6), torch.tensor([0, 1, 2, 3, 0])
    found = gradient_norms(logits, x, labels)
    torch.testing.assert_close(found[1, 2], gradient_norms(logits[1, 2], x, labels))


def test_sides_are_averaged_apart() -> None:
    values = torch.tensor([[1.0, 2.0, 5.0], [3.0, 7.0, 6.0], [10.0, 4.0, 9.0]])
    members = torch.tensor([[True, False, True], [True, True, True], [False, False, True]])
    inside, outside = by_side(values, members)
    assert inside.tolist() == pytest.approx([2, 7, 20 / 3])
    assert outside.tolist()[:2] == [10, 3] and bool(outside[2].isnan())


def slow_ranks(values: np.ndarray) -> np.ndarray:
    """Of those below, and half of the others that are equal."""
    below, equal = values[:, None] > values, values[:, None] == values
    return 1 + below.sum(1) + (equal.sum(1) - 1) / 2


def slow_spearman(a: np.ndarray, b: np.ndarray) -> float:
    first, second = (side - side.mean() for side in (slow_ranks(a), slow_ranks(b)))
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))


@pytest.mark.parametrize("values", [2, 5, 1_000])
def test_rank_correlation_by_its_definition_with_ties(values: int) -> None:
    random = np.random.default_rng(values)
    a = random.integers(values, size=40).astype(float)
    b = a + random.integers(values, size=40)
    np.testing.assert_allclose(ranks(a), slow_ranks(a))
    assert spearman(a, b).point == pytest.approx(slow_spearman(a, b), rel=1e-12)
    assert spearman(a, -(b**3)).point == pytest.approx(-spearman(a, b).point)


def test_the_interval_ranks_every_resample_anew() -> None:
    random = np.random.default_rng(0)
    a = random.integers(6, size=30).astype(float)
    b = a + random.normal(0, 2, 30).round()
    times = random.multinomial(30, np.full(30, 1 / 30), 50)
    repeated = [slow_spearman(a.repeat(often), b.repeat(often)) for often in times]
    np.testing.assert_allclose(_correlations([a, b], times.astype(float)), repeated)
    slow = [slow_spearman(a[rows], b[rows]) for rows in random.integers(30, size=(1_500, 30))]
    low, high = np.quantile(slow, [0.025, 0.975])
    found = spearman(a, b)
    assert found.low == pytest.approx(low, abs=0.08 * (high - low))
    assert found.high == pytest.approx(high, abs=0.08 * (high - low)) and found.n == 30


def test_a_sample_whose_resamples_may_all_tie_has_an_interval() -> None:
    found = spearman([0, 0, 1], [0, 1, 2])
    assert np.isfinite([found.low, found.high]).all() and found.low <= found.point <= found.high


@pytest.mark.parametrize("wrong", [[1.0, 1.0, 1.0], [1.0, np.nan, 2.0], [1.0, 2.0]])
def test_what_has_no_ranks_is_refused(wrong: list[float]) -> None:
    with pytest.raises(InputError, match="allowed"):
        spearman([1.0, 2.0, 3.0], wrong)


def test_shapes_and_labels_that_do_not_fit_are_refused() -> None:
    logits, x = torch.zeros(2, 3, 4), torch.zeros(3, 5)
    for given in (
        (logits, x, torch.tensor([0, 1])),
        (logits, x[:2], torch.tensor([0, 1, 2])),
        (logits, x, torch.tensor([0, 1, 4])),
        (logits[..., :1], x, torch.tensor([0, 0, 0])),
    ):
        with pytest.raises(InputError, match="allowed"):
            gradient_norms(*given)
    with pytest.raises(InputError, match="allowed"):
        by_side(torch.zeros(2, 3), torch.zeros(2, 3))
