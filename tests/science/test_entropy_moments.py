"""The bound from moments: gradients, cells that are empty, precision, shapes."""

import math

import pytest
import torch
from torch import Tensor

from mipriv.analysis.entropy_bound import Covariance, from_moments
from mipriv.errors import InputError

NOISE = 0.3


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


MOMENTS: dict[Covariance, tuple[int, ...]] = {"isotropic": (3,), "diagonal": (3, 4), "full": (3, 4, 4)}


def moments_of(covariance: Covariance) -> tuple[Tensor, Tensor]:
    values = normal(*MOMENTS[covariance], seed=9)
    return torch.tensor([0.5, 0.3, 0.2]).double(), values @ values.mT if covariance == "full" else values**2


@pytest.mark.parametrize("covariance", MOMENTS)
def test_gradients(covariance: Covariance) -> None:
    weights, moments = (tensor.requires_grad_() for tensor in moments_of(covariance))
    assert torch.autograd.gradcheck(lambda w, m: from_moments(w, m, NOISE, covariance, 4), (weights, moments))


@pytest.mark.parametrize("covariance", MOMENTS)
def test_the_forms_agree_where_they_can(covariance: Covariance) -> None:
    weights, variances = moments_of("isotropic")
    same = {
        "isotropic": variances,
        "diagonal": variances[:, None].expand(3, 4),
        "full": variances[:, None, None] * torch.eye(4),
    }
    found = from_moments(weights, same[covariance], NOISE, covariance, 4)
    by_hand = sum(
        w * (-math.log(w) + 2 * math.log(1 + v / NOISE))
        for w, v in zip(weights.tolist(), variances.tolist(), strict=True)
    )
    assert float(found) == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("covariance", MOMENTS)
@pytest.mark.parametrize("moment", [0.0, 7.0, math.nan, math.inf])
def test_a_cell_of_weight_zero_adds_nothing(covariance: Covariance, moment: float) -> None:
    weights, moments = moments_of(covariance)
    more = torch.cat([weights, torch.zeros(1)]).requires_grad_()
    wider = torch.cat([moments, torch.full_like(moments[:1], moment)]).requires_grad_()
    found = from_moments(more, wider, NOISE, covariance, 4)
    assert torch.equal(found, from_moments(weights, moments, NOISE, covariance, 4))
    by_weight, by_moment = torch.autograd.grad(found, (more, wider))
    assert by_weight.isfinite().all() and by_moment.isfinite().all()
    assert by_weight[3] == 0 and (by_moment[3] == 0).all()


def test_a_variance_that_is_not_a_number_is_not_hidden() -> None:
    moments = torch.tensor([[1.0, math.nan], [1.0, 1.0]])
    assert from_moments(torch.tensor([0.5, 0.5]), moments, NOISE, "diagonal").isnan()


def test_a_variance_below_zero_by_rounding_takes_nothing_off() -> None:
    moments = torch.tensor([[1.0, -1e-3]])
    found = from_moments(torch.ones(1), moments, 1.0, "diagonal")
    assert float(found) == pytest.approx(math.log(2) / 2)


@pytest.mark.parametrize("covariance", MOMENTS)
def test_half_precision_is_summed_in_single(covariance: Covariance) -> None:
    weights = torch.full((7,), 1 / 7).bfloat16()
    root = normal(7, 40, 40).float() / 6
    moments = {
        "isotropic": root[:, 0, 0] ** 2,
        "diagonal": root[:, 0] ** 2,
        "full": root @ root.mT,
    }[covariance].bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = from_moments(weights, moments, NOISE, covariance, 40)
    exact = from_moments(weights.double(), moments.double(), NOISE, covariance, 40)
    assert found.dtype == torch.float32 and exact.dtype == torch.float64
    assert float(found) == pytest.approx(float(exact), rel=1e-5)


@pytest.mark.parametrize(
    "weights, moments, covariance, dim",
    [
        ((3,), (3, 4), "full", None),
        ((3,), (2, 4), "diagonal", None),
        ((3,), (3, 4), "diagonal", 5),
        ((3,), (3,), "isotropic", None),
        ((3, 1), (3, 4), "diagonal", None),
        ((3,), (3, 4, 5), "full", None),
        ((3,), (3, 4), "round", None),
    ],
)
def test_moments_that_do_not_fit_are_refused(weights, moments, covariance, dim) -> None:
    with pytest.raises(InputError, match="allowed"):
        from_moments(torch.ones(weights), torch.ones(moments), NOISE, covariance, dim)
