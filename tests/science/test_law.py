"""The law of images against dense covariances, SciPy and arithmetic by the pixel."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import multivariate_normal
from torch import Tensor

from mipriv.data.law import LAW, GaussianLaw
from mipriv.errors import InputError

SIGMA = 0.3


def drawn(d: int, k: int, seed: int = 0, noise: float = 0.2) -> GaussianLaw:
    """A law of d pixels and k components that point anywhere."""
    random = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(d, d, generator=random, dtype=torch.float64)).Q[:, :k].T
    return GaussianLaw(basis, 0.01 + torch.rand(k, generator=random, dtype=torch.float64), noise)


def client(rows: int, d: int) -> Tensor:
    return torch.randn(rows, d, generator=torch.Generator().manual_seed(rows), dtype=torch.float64)


def schur(covariance: Tensor, w: Tensor, sigma: float) -> Tensor:
    """Covariance of x given z, from that of both together."""
    d, both = len(covariance), torch.cat([torch.eye(len(covariance), dtype=torch.float64), w])
    joint = both @ covariance @ both.T
    joint[d:, d:] += sigma**2 * torch.eye(len(w), dtype=torch.float64)
    return joint[:d, :d] - joint[:d, d:] @ torch.linalg.inv(joint[d:, d:]) @ joint[d:, :d]


LAWS = [(1, 1), (7, 0), (7, 3), (7, 7), (24, 5)]
CLIENTS = [(1, 7, 3), (4, 7, 3), (7, 7, 7), (9, 7, 0), (40, 24, 5)]  # D, d, k


@pytest.mark.parametrize(("d", "k"), LAWS)
def test_the_covariance_is_that_of_components_and_noise(d, k):
    law = drawn(d, k)
    expected = torch.zeros(d, d, dtype=torch.float64)
    for a in range(d):
        expected[a, a] = law.noise**2
        for b in range(d):
            expected[a, b] += sum(law.variances[j] * law.basis[j, a] * law.basis[j, b] for j in range(k))
    torch.testing.assert_close(law.covariance(), expected, rtol=0, atol=1e-13)
    assert law.dim == d


@pytest.mark.parametrize(("d", "k"), LAWS)
def test_the_entropy_is_that_of_scipy(d, k):
    law = drawn(d, k)
    expected = multivariate_normal(cov=law.covariance().numpy()).entropy()
    assert law.entropy == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("rows", "d", "k"), CLIENTS)
def test_the_posterior_is_a_schur_complement(rows, d, k):
    law, w = drawn(d, k), client(rows, d)
    expected = schur(law.covariance(), w, SIGMA)
    found = law.posterior(w, SIGMA)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    assert found.dtype == torch.float64
    assert law.mmse(w, SIGMA) == pytest.approx(expected.trace().item() / d, rel=1e-11)


@pytest.mark.parametrize(("rows", "d", "k"), CLIENTS)
def test_the_information_is_what_noise_leaves_of_the_entropy_of_z(rows, d, k):
    law, w = drawn(d, k), client(rows, d)
    noise = SIGMA**2 * torch.eye(rows, dtype=torch.float64)
    z = multivariate_normal(cov=(w @ law.covariance() @ w.T + noise).numpy()).entropy()
    expected = z - multivariate_normal(cov=noise.numpy()).entropy()
    assert law.information(w, SIGMA) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 30.0])
@pytest.mark.parametrize(("rows", "d", "k"), CLIENTS)
def test_posterior_and_information_tell_the_same(rows, d, k, sigma):
    law, w = drawn(d, k), client(rows, d)
    volume = math.exp(torch.linalg.slogdet(law.posterior(w, sigma)).logabsdet.item() / d)
    left = math.exp(2 * (law.entropy - law.information(w, sigma)) / d) / (2 * math.pi * math.e)
    assert volume == pytest.approx(left, rel=1e-10)
    assert law.mmse(w, sigma) >= volume * (1 - 1e-12)  # means of eigenvalues, arithmetic and geometric


def test_the_best_guess_errs_by_the_mmse():
    """Draws of x and z: the regression of one on the other leaves the posterior, and no more."""
    law, w, n = drawn(6, 3), client(4, 6), 200_000
    random = torch.Generator().manual_seed(5)
    root = torch.linalg.cholesky(law.covariance())
    x = torch.randn(n, 6, generator=random, dtype=torch.float64) @ root.T
    z = x @ w.T + SIGMA * torch.randn(n, 4, generator=random, dtype=torch.float64)
    errors = (x - z @ torch.linalg.lstsq(z, x).solution).square().mean(1)
    assert abs(errors.mean().item() - law.mmse(w, SIGMA)) < 4 * errors.std().item() / n**0.5


@pytest.mark.parametrize(("noise", "sigma"), [(1e-7, 1e-1), (1e-1, 1e-9), (1e-6, 1e-6)])
def test_nothing_is_lost_where_noise_is_small(noise, sigma):
    """Pixels that are independent have posteriors of their own: 1 / (1/s + w^2/sigma^2) each."""
    variances, gains = [1.0, 1e-4], [1.0, 1e-3, 0.0, 2.0]
    law = GaussianLaw(torch.eye(4, dtype=torch.float64)[:2], torch.tensor(variances).double(), noise)
    prior = [v + noise**2 for v in (*law.variances.tolist(), 0.0, 0.0)]
    expected = [1 / (1 / s + (w / sigma) ** 2) for s, w in zip(prior, gains, strict=True)]
    told = sum(math.log1p(s * (w / sigma) ** 2) for s, w in zip(prior, gains, strict=True)) / 2
    encoder = torch.tensor(gains, dtype=torch.float64).diag()
    np.testing.assert_allclose(law.posterior(encoder, sigma).diag().numpy(), expected, rtol=1e-9)
    assert law.information(encoder, sigma) == pytest.approx(told, rel=1e-12)


def test_a_client_in_training_may_be_asked_about():
    law, w = drawn(7, 3), client(4, 7).float().requires_grad_()
    expected = law.posterior(w.detach().double(), SIGMA)
    torch.testing.assert_close(law.posterior(w, SIGMA), expected, rtol=0, atol=0)
    assert type(law.information(w, SIGMA)) is type(law.mmse(w, SIGMA)) is type(law.entropy) is float


@pytest.mark.parametrize("k", [0, 3])
def test_a_saved_law_comes_back(tmp_path, k):
    assert GaussianLaw.load(tmp_path) is None
    law = drawn(7, k)
    law.save(tmp_path)
    back = GaussianLaw.load(tmp_path)
    assert back is not None and back.noise == law.noise
    assert torch.equal(back.basis, law.basis) and torch.equal(back.variances, law.variances)


def damage(file: Path, what: str) -> None:
    if what == "cut":
        file.write_bytes(file.read_bytes()[:-8])
        return
    held = load_file(file)
    if what == "lost":
        del held["noise"]
    elif what == "many":
        held["noise"] = torch.ones(2, dtype=torch.float64)
    else:
        held["basis"] = held["basis"] * 1.01
    save_file(held, file)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("cut", "not a readable law"),
        ("lost", "not a readable law.*noise"),
        ("many", "not a readable law"),
        ("longer", r"law, basis: 2\.0e-02 from orthonormal; allowed: orthonormal rows"),
    ],
)
def test_a_damaged_law_is_refused(tmp_path, what, message):
    drawn(7, 3).save(tmp_path)
    damage(tmp_path / LAW, what)
    with pytest.raises(InputError, match=f"{LAW}': {message}") as refused:
        GaussianLaw.load(tmp_path)
    assert "\n" not in str(refused.value)


EYE, ONES = torch.eye(4, dtype=torch.float64)[:2], torch.ones(2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("basis", "variances", "noise", "message"),
    [
        (EYE.float(), ONES, 1.0, r"basis: float32 \[2, 4\]; allowed: float64 \[k, d\]"),
        (EYE[0], ONES, 1.0, r"basis: float64 \[4\]"),
        (EYE + 1, ONES, 1.0, r"basis: .* from orthonormal"),
        (EYE * math.nan, ONES, 1.0, r"basis: nan from orthonormal"),
        (EYE, ONES[:1], 1.0, r"variances: float64 \[1\]; allowed: float64 \[2\]"),
        (EYE, -ONES, 1.0, r"variances: \[-1.0, -1.0\]; allowed: finite, from 0"),
        (EYE, ONES * math.inf, 1.0, "variances: .* allowed: finite"),
        (EYE, ONES, 0.0, "noise: 0.0; allowed: finite, above 0"),
        (EYE, ONES, math.nan, "noise: nan; allowed"),
    ],
)
def test_what_is_no_law_is_refused(basis, variances, noise, message):
    with pytest.raises(InputError, match=f"^law, {message}"):
        GaussianLaw(basis, variances, noise)


@pytest.mark.parametrize("ask", ["information", "posterior", "mmse"])
def test_questions_are_checked(ask):
    law = drawn(7, 3)
    with pytest.raises(InputError, match=r"law, encoder: float64 \[4, 6\]; allowed: \[D, 7\]"):
        getattr(law, ask)(client(4, 6), SIGMA)
    for sigma in (0.0, -1.0, math.nan):
        with pytest.raises(InputError, match=r"law, sigma: .*; allowed: finite, above 0"):
            getattr(law, ask)(client(4, 7), sigma)
