"""What noisy features tell at most: against closed forms, Monte-Carlo truths and slow loops."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mipriv.analysis.entropy_bound import Covariance, NoBound, from_moments, information, population
from mipriv.analysis.entropy_limit import Reference, held_out
from mipriv.errors import InputError

NOISE = 0.3
FORMS: tuple[Covariance, ...] = ("isotropic", "diagonal", "full")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mixed(n: int = 90, dim: int = 5, cells: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated features whose spread and place differ by cell, not Gaussian, and their cells."""
    where = torch.randint(cells, (n,), generator=torch.Generator().manual_seed(seed))
    spread = normal(cells, dim, dim, seed=seed + 1)
    raw = normal(n, dim, seed=seed + 2)
    return torch.einsum("nd,nde->ne", raw + 0.3 * raw**3, spread[where]) + where[:, None], where


def slow(features: Tensor, cells: list, noise: float, covariance: str) -> float:
    """(1) cell by cell from numpy's own covariance and determinant."""
    rows, total = features.numpy(), 0.0
    for cell in set(cells):
        own = rows[[c == cell for c in cells]]
        share, dim = len(own) / len(rows), rows.shape[1]
        s = np.atleast_2d(np.cov(own.T, bias=True))
        if covariance == "diagonal":
            s = np.diag(np.diag(s))
        if covariance == "isotropic":
            s = np.eye(dim) * np.trace(s) / dim
        total += share * (-math.log(share) + np.linalg.slogdet(np.eye(dim) + s / noise)[1] / 2)
    return total


@pytest.mark.parametrize("covariance", FORMS)
def test_the_plug_in_is_that_of_a_loop_over_cells(covariance: Covariance) -> None:
    features, cells = mixed()
    found = information(features, cells, 3, NOISE, covariance).nats
    assert float(found) == pytest.approx(slow(features, cells.tolist(), NOISE, covariance), rel=1e-12)


@pytest.mark.parametrize("n", [4, 9, 40])
def test_cells_of_fewer_rows_than_dimensions_are_no_different(n: int) -> None:
    features, cells = normal(n + 2, 9) * 2, torch.tensor([1] * n + [0, 0])
    found = information(features, cells, 2, NOISE, "full").nats
    assert float(found) == pytest.approx(slow(features, cells.tolist(), NOISE, "full"), rel=1e-11)


def test_coarser_covariances_are_looser() -> None:
    features, cells = mixed()
    full, diagonal, isotropic = (
        float(information(features, cells, 3, NOISE, kind).nats) for kind in reversed(FORMS)
    )
    low = [float(information(features, cells, 3, NOISE, "lowrank", rank=k).nats) for k in range(6)]
    assert full < diagonal < isotropic
    assert low[0] == pytest.approx(isotropic, rel=1e-12) and low[5] == pytest.approx(full, rel=1e-12)
    assert low[:5] == sorted(low[:5], reverse=True) and low[4] < low[1] - 0.1


def test_low_rank_is_of_the_spectrum_with_its_rest_evened_out() -> None:
    features = normal(40, 6, seed=5) * torch.arange(1, 7)
    found = information(features, torch.zeros(40, dtype=torch.long), 1, NOISE, "lowrank", rank=2).nats
    spectrum = np.linalg.eigvalsh(np.cov(features.numpy().T, bias=True))
    spectrum[:4] = spectrum[:4].mean()
    assert float(found) == pytest.approx(np.log1p(spectrum / NOISE).sum() / 2, rel=1e-12)


def four_blobs(apart: float) -> tuple[Tensor, Tensor, Tensor, float, float]:
    """A mixture in two dimensions: weights, covariances, means; I(x; z) by Monte Carlo, and its error."""
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    means = apart * torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.float64)
    roots = normal(4, 2, 2, seed=6)
    covariances = roots @ roots.mT
    n = 200_000
    c = torch.multinomial(weights, n, True, generator=torch.Generator().manual_seed(7))
    noisy = covariances + NOISE * torch.eye(2)
    z = means[c] + torch.einsum("nde,ne->nd", torch.linalg.cholesky(noisy)[c], normal(n, 2, seed=8))
    density = torch.logsumexp(
        torch.stack([
            torch.distributions.MultivariateNormal(m, s).log_prob(z) + w.log()
            for m, s, w in zip(means, noisy, weights, strict=True)
        ]), 0,
    )  # fmt: skip
    surprise = -density - math.log(2 * math.pi * math.e * NOISE)
    return weights, covariances, means, float(surprise.mean()), float(surprise.std() / n**0.5)


@pytest.mark.parametrize("apart", [1.0, 4.0, 30.0])
def test_of_a_mixture_the_bound_is_above_the_truth_and_reaches_it_far_apart(apart: float) -> None:
    weights, covariances, _, truth, error = four_blobs(apart)
    bound = float(population(weights, covariances, NOISE).nats)
    assert bound > truth - 4 * error
    if apart == 30:
        assert bound == pytest.approx(truth, abs=4 * error)
    if apart == 1:
        assert bound > truth + 0.3


def test_classes_are_part_of_the_cell() -> None:
    weights, covariances, means, truth, _ = four_blobs(30.0)
    c = torch.multinomial(weights, 40_000, True, generator=torch.Generator().manual_seed(1))
    f = means[c] + torch.einsum("nde,ne->nd", torch.linalg.cholesky(covariances)[c], normal(40_000, 2))
    found = information(f, c % 2, 2, NOISE, "full", classes=c // 2)
    assert float(found.nats) == pytest.approx(truth, abs=0.02)
    pairs = list(zip((c // 2).tolist(), (c % 2).tolist(), strict=True))
    assert float(found.nats) == pytest.approx(slow(f, pairs, NOISE, "full"), rel=1e-10)


def test_of_coinciding_features_classes_cost_their_entropy() -> None:
    features, cells = torch.zeros(8, 3), torch.zeros(8, dtype=torch.long)
    classes = torch.tensor([0, 0, 2, 2, 2, 2, 5, 5])
    entropy = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)
    found = information(features, cells, 1, NOISE, classes=classes).nats
    assert float(found) == pytest.approx(entropy, rel=1e-12)


def test_halved_features_are_those_numbers() -> None:
    features, cells = mixed()
    coarse = (features + 100).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = information(coarse, cells, 3, NOISE, "full").nats
    assert float(found) == pytest.approx(slow(coarse.double(), cells.tolist(), NOISE, "full"), rel=1e-10)


# --- what must not matter, and what must


@pytest.mark.parametrize("covariance", FORMS)
def test_neither_order_nor_names_nor_empty_cells_matter(covariance: Covariance) -> None:
    features, cells = mixed()
    point = float(information(features, cells, 3, NOISE, covariance).nats)
    order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(2))
    renamed = torch.tensor([9, 0, 5])[cells]
    for f, c, j in ((features[order], cells[order], 3), (features, renamed, 12)):
        assert float(information(f, c, j, NOISE, covariance).nats) == pytest.approx(point, rel=1e-12)


@pytest.mark.parametrize("covariance", FORMS)
def test_more_noise_tells_less_until_the_cell_alone_is_left(covariance: Covariance) -> None:
    features, cells = mixed()
    found = [float(information(features, cells, 3, 10.0**k, covariance).nats) for k in range(-4, 9)]
    assert found == sorted(found, reverse=True) and found[0] > found[-1] + 10
    shares = cells.bincount() / len(cells)
    assert found[-1] == pytest.approx(float(torch.special.entr(shares).sum()), abs=1e-5)


def test_without_noise_there_is_no_figure() -> None:
    features, cells = mixed()
    reference = Reference.fit(features, cells, 3)
    for call in (
        lambda v: from_moments(torch.ones(1), torch.ones(1, 2), v, "diagonal"),
        lambda v: information(features, cells, 3, v),
        lambda v: population(torch.ones(1), torch.eye(2)[None], v),
        lambda v: held_out(features, cells, reference, v),
    ):
        with pytest.raises(NoBound, match="no bound"):
            call(0.0)
        for wrong in (-1.0, math.nan, math.inf):
            with pytest.raises(InputError, match="allowed") as raised:
                call(wrong)
            assert not isinstance(raised.value, NoBound)


# --- what certifies


@pytest.mark.parametrize("each, full, diagonal", [(100, True, True), (99, False, True), (19, False, False)])
def test_too_few_rows_certify_nothing(each: int, full: bool, diagonal: bool) -> None:
    features, cells = normal(each + 500, 5), torch.tensor([0] * each + [2] * 500)
    found = {kind: information(features, cells, 3, NOISE, kind, rank=5) for kind in (*FORMS, "lowrank")}
    certifies = {kind: bound.certifies for kind, bound in found.items()}
    assert certifies == {"full": full, "diagonal": diagonal, "isotropic": diagonal, "lowrank": False}
    assert all(bound.certifies == (not bound.why_not) for bound in found.values())
    assert full or f"{each} rows" in found["full"].why_not


def test_a_sample_covariance_of_few_rows_lies_far_below_the_truth() -> None:
    """512 independent dimensions, of which the truth is 890 nats."""
    dim, ratio = 512, math.expm1(2 * 890 / 512)
    for n, full, diagonal in ((50, 140, 880), (100, 247, 885), (500, 706, 889)):
        features, cells = normal(n, dim, seed=n) * ratio**0.5, torch.zeros(n, dtype=torch.long)
        found = [information(features, cells, 1, 1.0, kind) for kind in ("full", "diagonal")]
        assert [float(bound.nats) for bound in found] == pytest.approx([full, diagonal], abs=2.5)
        assert [bound.certifies for bound in found] == [False, True]


# --- what is refused


def test_matrices_that_are_no_covariances_are_refused() -> None:
    with pytest.raises(InputError, match="negative eigenvalues"):
        from_moments(torch.ones(1), -torch.eye(3)[None], 0.5, "full")
    with pytest.raises(InputError, match="summing to 1"):
        population(torch.tensor([0.5, 0.6]), torch.eye(3).expand(2, 3, 3), NOISE)


@pytest.mark.parametrize(
    "change",
    [
        {"cells": torch.tensor([0, 3])},
        {"cells": torch.tensor([-1, 0])},
        {"cells": torch.tensor([0])},
        {"cells": torch.tensor([0.0, 1.0])},
        {"features": torch.tensor([[math.nan], [1.0]])},
        {"features": torch.ones(2)},
        {"covariance": "round"},
        {"covariance": "lowrank"},
        {"covariance": "lowrank", "rank": 2},
        {"classes": torch.tensor([0])},
        {"classes": torch.tensor([0, -1])},
    ],
)
def test_rows_that_do_not_fit_are_refused(change: dict) -> None:
    sound = {"features": torch.ones(2, 1), "cells": torch.tensor([0, 1]), "num_cells": 3}
    information(**sound, noise_variance=NOISE)
    with pytest.raises(InputError, match="allowed"):
        information(**{**sound, **change}, noise_variance=NOISE)
