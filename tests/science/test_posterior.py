"""The most probable image behind a release that draws, and what PEEL makes of it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mipriv.attacks.reconstruction import Knowledge, Recovered, Sender
from mipriv.attacks.reconstruction.peel import PEEL
from mipriv.attacks.search.channel import Channel, measured
from mipriv.attacks.search.pixels import gaussian
from mipriv.attacks.search.releases import Releases
from mipriv.attacks.search.stages import Descent, Level, Posterior
from mipriv.errors import InputError
from tests.science.toy_clients import Linear, Toy, blobs, known, mse, send

SHORT = {
    "levels": (Level(1e-4, 1, 3),),
    "descents": (Descent(3, 0.05, 0.1),),
    "polish": (Level(1e-8, 1, 2),),
    "near": 0.0,
}


def sender(client: Linear) -> Sender:
    """A linear client as a module."""
    layer = nn.Linear(client.map.shape[1], len(client.map), bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(client.map)
    return Sender(nn.Sequential(nn.Flatten(), layer).requires_grad_(False), client.release)


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("sigma", [0.05, 0.5])
def test_of_a_linear_client_it_is_the_posterior_mean(sigma: float, repeats: int) -> None:
    """In closed form, with the noise and the factor as measured: what is measured follows from the seed."""
    client = Linear(sigma)
    told = Knowledge(client.draw(200, 1), client.draw(4, 3), False)
    observed = send(client, client.draw(5, 2), repeats)
    found = PEEL()(sender(client), told, observed, seed=0)
    assert found.notes["solver"] == "most probable image"
    asked = Releases(sender(client), told, observed, 0)
    asked.mean(told.validation)
    channel = measured(asked, client.network, told.training)
    assert channel.noise == pytest.approx(sigma**2, rel=0.1) and channel.factor == pytest.approx(1, abs=0.05)
    client.sigma, client.map = channel.noise**0.5, channel.factor * client.map
    prior = gaussian(told.training)
    root = prior.pixels(torch.eye(len(prior.mean), dtype=torch.float64)) - prior.mean
    exact = client.posterior(observed.mean(1), prior.mean, root @ root.T, repeats)
    moved = (exact - prior.mean).norm(dim=1)
    assert ((found.images.flatten(1) - exact).norm(dim=1) < 1e-3 * moved).all()


def test_a_row_alone_equals_the_row_among_others() -> None:
    client = Linear(0.1)
    told = Knowledge(client.draw(60, 1), client.draw(4, 3), False)
    observed = send(client, client.draw(5, 2), 2)
    many = PEEL(chunk=4)(sender(client), told, observed, seed=0)
    alone = PEEL(chunk=32)(sender(client), told, observed[3:4], seed=0)
    assert torch.allclose(many.images[3], alone.images[0], rtol=0, atol=1e-8)
    assert many.validation_error == pytest.approx(alone.validation_error, rel=1e-10)


def test_the_noise_of_dropout_is_a_part_of_what_is_measured() -> None:
    toy, images = Toy("random"), blobs(20, 4)
    asked = Releases(toy, known(), send(toy, images[:1]), 0)
    channel = measured(asked, toy.net, images)
    with torch.no_grad():
        features = toy.net(images[:16])
        average = channel.through(toy.net)(images[:16])
    assert channel.factor == pytest.approx(0.95, abs=0.01) and torch.equal(average, channel.factor * features)
    drawn = 0.95 * 0.05 * features.square().mean().item() + 0.1**2
    assert channel.noise == pytest.approx(drawn, rel=0.05) and channel.noise > 1.2 * 0.1**2
    assert channel.random and not channel.exact


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_what_draws_nothing_has_no_noise(share: float) -> None:
    toy = Toy("still")
    quiet = Sender(toy.net, lambda features, _: share * features)
    asked = Releases(quiet, known(), share * send(toy, blobs(1, 4)), 0)
    channel = measured(asked, toy.net, blobs(3, 5))
    assert channel.noise == 0 and channel.factor == pytest.approx(share, rel=1e-12)
    assert channel.exact == (share == 1) and not channel.random
    assert Channel(1.0, 0.1).random and not Channel(1.0, 0.1).exact


def attack(release: Callable[[Tensor, torch.Generator], Tensor], **knobs: object) -> tuple[Recovered, Tensor]:
    """What PEEL makes of two targets of a toy with this release, and their images."""
    toy, truth = Toy("still"), blobs(2, 4)
    client = Sender(toy.net, release)
    return PEEL(**{**SHORT, **knobs})(client, known(), send(client, truth), seed=0), truth  # type: ignore[arg-type]


def noise(sigma: float, bias: float = 0.0) -> Callable[[Tensor, torch.Generator], Tensor]:
    return lambda f, g: f + bias + sigma * torch.randn(f.shape, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("sigma", [0.02, 0.2, 2.0])
def test_it_never_errs_more_than_the_mean_image_on_validation(sigma: float) -> None:
    found, _ = attack(noise(sigma))
    floor = mse(known().training.mean(0), known().validation)
    assert found.log[0]["validation_error"] == pytest.approx(floor, rel=1e-12)
    assert found.validation_error is not None and found.validation_error < floor
    # What is added to all features is not noise, and misleads every search.
    misled, truth = attack(noise(0.1, bias=40.0))
    assert misled.notes["solver"] == "mean image" and misled.validation_error == pytest.approx(floor)
    assert torch.equal(misled.images, known().training.mean(0).expand_as(truth))
    assert misled.log[1]["validation_error"] > floor


@pytest.mark.parametrize(
    ("release", "candidates", "drawn"),
    [(noise(0.1), 2, True), (noise(1e-5), 4, True), (lambda features, _: features, 2, False)],
)
def test_other_beliefs_are_tried_where_noise_leaves_less_than_met(
    release: Callable[[Tensor, torch.Generator], Tensor], candidates: int, drawn: bool
) -> None:
    """Mean and most probable image; then a level and a descent, which are all that a still release gets."""
    found, _ = attack(release)
    floor = mse(known().training.mean(0), known().validation)
    assert len(found.log) == candidates
    assert (found.log[0]["validation_error"] == pytest.approx(floor, rel=1e-12)) == drawn


def test_solvers_that_are_asked_for_by_name_stay_alone() -> None:
    found, _ = attack(noise(0.1), solver="adam")
    assert len(found.log) == 1 and str(found.notes["solver"]).startswith("adam")


@pytest.mark.parametrize("knob", ["outer", "inner"])
def test_a_search_of_no_step_is_refused(knob: str) -> None:
    with pytest.raises(InputError, match=f"{knob}: 0; allowed: 1 or more"):
        Posterior(**{knob: 0})
