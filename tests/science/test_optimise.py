"""Optimisation on the image, and its priors."""

import itertools

import pytest
import torch
from sklearn.covariance import ledoit_wolf

from mipriv.attacks.reconstruction import Knowledge, offer
from mipriv.attacks.reconstruction.optimise import Optimise
from mipriv.attacks.search.pixels import gaussian, total_variation
from mipriv.errors import InputError
from tests.science.conftest import SHAPE
from tests.science.toy_clients import Linear, Toy, blobs, known, mse, send


@pytest.mark.parametrize(("told_noise", "repeats"), [(None, 1), (0.3, 1), (0.3, 3)])
def test_optimise_reaches_the_posterior_mean(told_noise: float | None, repeats: int) -> None:
    """Of a linear client with noise; the noise is measured where it is not told, to within its error."""
    client = Linear(0.3)
    targets, training = client.draw(5, 2), client.draw(200, 1)
    observed = send(client, targets, repeats)
    attack = Optimise(prior="gaussian", noise=told_noise, shrinkage=0.1, steps=250, draws=16)
    found = attack(client, Knowledge(training, client.draw(2, 3), False), observed, seed=0)
    rows = training.flatten(1)
    sample = (rows - rows.mean(0)).T @ (rows - rows.mean(0)) / len(rows)
    level = sample.diagonal().mean() * torch.eye(len(sample), dtype=torch.float64)
    exact = client.posterior(observed.mean(1), rows.mean(0), 0.9 * sample + 0.1 * level, repeats)
    moved = mse(rows.mean(0).expand_as(exact), exact)
    assert mse(found.images.flatten(1), exact) < (3e-3 if told_noise else 1e-2) * moved
    assert found.validation_error is None


def test_optimise_without_noise_reaches_the_limit_it_assumes() -> None:
    client = Linear(0.0)
    training = client.draw(200, 1)
    targets = send(client, client.draw(3, 2))
    attack = Optimise(prior="gaussian", shrinkage=0.0, least_noise=0.01, steps=1_000)
    found = attack(client, Knowledge(training, training, False), targets, seed=0)
    rows = training.flatten(1)
    client.sigma = (0.01 * (rows @ client.map.T).var(0).mean().item()) ** 0.5
    exact = client.posterior(targets[:, 0], rows.mean(0), torch.cov(rows.T, correction=0))
    assert torch.allclose(found.images.flatten(1), exact, atol=1e-5)


def test_optimise_selects_its_weight_on_validation_images() -> None:
    toy = Toy("still")
    attack = Optimise(steps=30, selection=3, tv_weights=(0.0, 0.03, 1e4), lr=0.1)
    observed = send(toy, blobs(2, 4))
    found = attack(toy, known(), observed, seed=0)
    tried = [row for row in found.log if "tv_weight" in row]
    errors = {row["tv_weight"]: row["validation_error"] for row in tried}
    kept = min(errors, key=lambda weight: errors[weight])
    assert list(errors) == [0.0, 0.03, 1e4] and found.validation_error == errors[kept]
    alone = Optimise(steps=30, tv_weights=(kept,), lr=0.1)(toy, known(), observed, seed=0)
    assert torch.equal(alone.images, found.images) and alone.validation_error is None
    flat = Knowledge(known().training, torch.full((3, *SHAPE), 0.5, dtype=torch.float64), True)
    other = attack(toy, flat, observed, seed=0)
    weights = [row["tv_weight"] for row in other.log if "tv_weight" in row]
    least = min(range(3), key=lambda i: other.log[i]["validation_error"])
    assert weights[least] != kept, "flat images want another weight"


def test_optimise_begins_at_the_mean_and_averages_over_draws() -> None:
    """One step by hand: the sign of the gradient of the mean squared error over the draws, and TV's."""
    toy = Toy("random")
    told, observed = known(), send(toy, blobs(1, 4))
    found = Optimise(steps=1, draws=400, tv_weights=(0.0,), lr=0.01)(toy, told, observed, seed=0).images
    x = told.training.mean(0, keepdim=True).requires_grad_()
    # E|m f + n - z|^2 over masks of mean 0.95, but for what does not depend on f.
    f = toy.net(x)
    loss = (0.95 * f.square() - 2 * 0.95 * f * observed[:, 0]).mean()
    (slope,) = torch.autograd.grad(loss, x)
    step = found - x.detach()
    sure = slope.abs() > slope.abs().median()
    assert torch.allclose(step.abs(), torch.full_like(step, 0.01), atol=1e-4)
    assert ((step.sign() == -slope.sign()) | ~sure).all()


def test_optimise_shows_the_client_an_image_once_a_step_however_often_it_draws() -> None:
    seen = []
    for times in (1, 6):
        toy = Toy("random")
        observed = send(toy, blobs(2, 4))
        before = toy.seen
        found = Optimise(steps=5, draws=times, tv_weights=(0.0,), chunk=2)(toy, known(), observed, seed=0)
        assert found.queries == toy.seen - before
        seen.append(found.queries)
    assert seen[0] == seen[1]


def test_optimise_refuses_a_client_without_gradients() -> None:
    toy = Toy("still")
    with pytest.raises(InputError, match="no gradient"):
        Optimise(steps=1)(offer(toy, "queries"), known(), send(toy, blobs(1, 4)), seed=0)
    drawing = Toy("random")
    with pytest.raises(InputError, match="shows no network; allowed: a Sender"):
        Optimise(steps=1)(offer(drawing, "queries"), known(), send(drawing, blobs(1, 4)), seed=0)


def test_total_variation_is_its_sum() -> None:
    images = torch.rand(2, 2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for image, found in zip(images, total_variation(images), strict=True):
        total = 0.0
        for c, i, j in itertools.product(range(2), range(3), range(4)):
            if i:
                total += abs(image[c, i, j] - image[c, i - 1, j]).item()
            if j:
                total += abs(image[c, i, j] - image[c, i, j - 1]).item()
        assert found.item() == pytest.approx(total / 24, rel=1e-12)


@pytest.mark.parametrize("count", [7, 80])
def test_a_gaussian_has_the_covariance_of_ledoit_and_wolf(count: int) -> None:
    """Fewer images than pixels, and more."""
    images = torch.randn(count, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    images = images * torch.linspace(0.2, 2, 16, dtype=torch.float64).view(4, 4)
    found = gaussian(images)
    root = found.pixels(torch.eye(16, dtype=torch.float64)) - found.mean
    covariance, shrinkage = ledoit_wolf(images.flatten(1).numpy())
    assert found.shrinkage == pytest.approx(shrinkage, rel=1e-9) and 0 < shrinkage < 1
    assert torch.allclose(root @ root.T, torch.from_numpy(covariance), atol=1e-10)
    assert torch.allclose(found.mean, images.flatten(1).mean(0))
