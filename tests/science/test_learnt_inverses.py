"""Attacks that learn to undo a client: the affine map, decoders, the critic."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mipriv.attacks.reconstruction import Knowledge, offer
from mipriv.attacks.reconstruction.affine import Affine
from mipriv.attacks.reconstruction.decoder import Decoder
from mipriv.attacks.reconstruction.gan import GAN, Critic, critic_loss
from mipriv.errors import InputError
from mipriv.models import decoders
from mipriv.models.residual_decoder import ResidualDecoder
from tests.science.toy_clients import LEARNS, SMALL, TINY, Linear, Toy, blobs, known, mse, send


@pytest.mark.parametrize("features", [10, 25])
def test_affine_is_least_squares_where_nothing_is_noisy(features: int) -> None:
    client = Linear(0.0, features)
    training, targets = client.draw(60, 1), client.draw(4, 2)
    observed = send(client, targets)
    found = Affine(penalties=(0.0,), views=1)(
        client, Knowledge(training, client.draw(5, 3), False), observed, seed=0
    )
    with_one = np.column_stack([(training.flatten(1) @ client.map.T).numpy(), np.ones(60)])
    weights = np.linalg.lstsq(with_one, training.flatten(1).numpy(), rcond=None)[0]
    expected = np.column_stack([observed[:, 0].numpy(), np.ones(4)]) @ weights
    assert np.allclose(found.images.flatten(1).numpy(), expected, atol=1e-7)
    if features == 25:
        assert torch.allclose(found.images, targets, atol=1e-6), "as many features as pixels hide nothing"


@pytest.mark.parametrize("training", [30, 300])
def test_affine_is_ridge_regression_in_both_forms(training: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the normal equations written out; 30 images of 192 features take the dual form, in parts."""
    monkeypatch.setattr("mipriv.attacks.reconstruction.affine.CHUNK", 7)
    toy = Toy("still")
    images, targets = blobs(training, 1), blobs(3, 4)
    told = Knowledge(images, blobs(4, 2), False)
    observed = send(toy, targets)
    found = Affine(penalties=(0.01,), views=1)(offer(toy, "queries"), told, observed, seed=0)
    with torch.no_grad():
        f = toy.net(images).flatten(1)
    y = images.flatten(1)
    z, x = f - f.mean(0), y - y.mean(0)
    gram = z.T @ z + 0.01 * z.square().sum() / z.shape[1] * torch.eye(z.shape[1], dtype=torch.float64)
    expected = y.mean(0) + (observed[:, 0].flatten(1) - f.mean(0)) @ torch.linalg.solve(gram, z.T @ x)
    assert torch.allclose(found.images.flatten(1), expected, atol=1e-8)


def test_affine_comes_near_the_best_linear_estimate() -> None:
    client = Linear(0.3)
    targets, told = client.draw(400, 2), Knowledge(client.draw(600, 1), client.draw(100, 3), False)
    observed = send(client, targets, repeats=2)
    best = client.posterior(observed.mean(1), client.mean, client.root @ client.root.T, repeats=2)
    error = mse(Affine()(client, told, observed, seed=0).images, targets)
    floor = mse(client.mean, targets.flatten(1))
    assert error < 1.1 * mse(best, targets.flatten(1)) < 0.9 * floor


def test_affine_selects_its_penalty() -> None:
    """Few images and much noise: none at all is worst."""
    client = Linear(1.0)
    told = Knowledge(client.draw(14, 1), client.draw(200, 3), False)
    found = Affine(views=1)(client, told, send(client, client.draw(2, 2)), seed=0)
    kept = min(found.log, key=lambda row: row["validation_error"])
    assert found.validation_error == kept["validation_error"] < 0.5 * found.log[0]["validation_error"]


@pytest.mark.parametrize("network", ["residual", "plain"])
def test_an_epoch_that_overfits_is_not_kept(network: str) -> None:
    """All training images are bright: learning it improves on them and errs on the others."""
    toy, validation = Toy("still"), blobs(20, 2)
    attack = Decoder(network=network, width=8, blocks=0, epochs=10, batch_size=12, lr=2e-2)
    told = Knowledge(0.9 + 0.1 * blobs(24, 1), validation, True)
    found = attack(offer(toy, "queries"), told, send(toy, validation), seed=0)
    errors = [row["validation_error"] for row in found.log]
    assert found.validation_error == min(errors) < 0.8 * errors[-1]
    assert mse(found.images, validation) == pytest.approx(min(errors), rel=1e-9)
    assert found.log[-1]["training_error"] < 0.5 * found.log[0]["training_error"]


def test_a_decoder_of_unbounded_images_knows_their_scale() -> None:
    """Pixels around 500, and no sigmoid."""
    toy = Toy("still")
    images, targets = 500 + 100 * blobs(48, 1), 500 + 100 * blobs(6, 4)

    def client(x: Tensor, generator: torch.Generator) -> Tensor:
        return toy((x - 500) / 100, generator)

    told = Knowledge(images, 500 + 100 * blobs(6, 2), False)
    found = Decoder(**vars(LEARNS))(offer(client, "queries"), told, send(client, targets), seed=0)
    assert mse(found.images, targets) < 0.6 * mse(images.mean(0), targets)


def test_a_gan_without_a_step_of_its_generator_is_refused() -> None:
    toy = Toy("still")
    attack = GAN(decoder=TINY, epochs=2, batch_size=48, critic_steps=3)
    with pytest.raises(InputError, match="critic_steps: 3; allowed: 1 to 2"):
        attack(offer(toy, "queries"), known(), send(toy, blobs(1, 4)), seed=0)


def test_the_critic_loss_is_its_formula() -> None:
    """Of a quadratic critic, D(x) = sum w x^2, whose slope is 2 w x."""
    random = torch.Generator().manual_seed(0)
    real, fake, w = (torch.randn(3, 1, 2, 2, dtype=torch.float64, generator=random) for _ in range(3))
    mix = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    found = critic_loss(_Quadratic(w[0]), real, fake, mix, penalty=7.0)
    expected = 0.0
    for r, f, t in zip(real, fake, mix.tolist(), strict=True):
        score = ((w[0] * f * f).sum() - (w[0] * r * r).sum()).item()
        slope = (2 * w[0] * (t * r + (1 - t) * f)).square().sum().sqrt().item()
        expected += (score + 7.0 * (slope - 1) ** 2) / 3
    assert found.item() == pytest.approx(expected, rel=1e-12)


class _Quadratic(nn.Module):
    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = w

    def forward(self, images: Tensor) -> Tensor:
        return (self.w * images.square()).flatten(1).sum(1)


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 5, 9), (1, 64, 64)])
def test_a_critic_sees_every_image_by_itself(shape: tuple[int, int, int]) -> None:
    critic = Critic(shape, 2).double()
    images = torch.rand(3, *shape, dtype=torch.float64)
    assert sum(isinstance(m, nn.Conv2d) for m in critic.modules()) == 4
    assert torch.allclose(critic(images)[1:2], critic(images[1:2]), atol=1e-12)


def test_the_critic_moves_the_generator() -> None:
    """Without pixels in its loss the generator still learns, once in every `critic_steps` batches."""
    toy = Toy("still")
    observed = send(toy, blobs(2, 4))

    def recovered(**knobs: object) -> Tensor:
        attack = GAN(**{**SMALL["gan"], "epochs": 1, **knobs})  # type: ignore[arg-type]
        return attack(offer(toy, "queries"), known(), observed, seed=0).images

    begun = Decoder(**vars(TINY))(offer(toy, "queries"), known(), observed, seed=0).images
    slow, still = (recovered(image_weight=0.0, critic_steps=4, lr=rate) for rate in (1e-2, 1e-12))
    assert not torch.allclose(slow, still, atol=1e-4)
    assert not torch.allclose(recovered(image_weight=1e3, lr=1e-2), recovered(image_weight=0.0, lr=1e-2))
    assert mse(still, begun) < 1e-2, "it begins as the decoder; batch statistics alone have moved"


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("make", [ResidualDecoder, decoders.Decoder])
@pytest.mark.parametrize(
    ("features", "image"), [((5, 4, 4), (1, 16, 16)), ((5, 2, 2), (3, 9, 12)), ((7,), (1, 8, 8))]
)
def test_decoders_make_images_of_features_of_any_shape(
    features: tuple[int, ...],
    image: tuple[int, int, int],
    make: Callable[..., nn.Module],
    bounded: bool,
) -> None:
    model = make(features, image, width=3, bounded=bounded)
    images = model(torch.randn(4, *features, generator=torch.Generator().manual_seed(0)) * 50)
    assert images.shape == (4, *image)
    assert (images.min() >= 0 and images.max() <= 1) == bounded


def test_the_published_decoder_is_of_its_parts() -> None:
    """res_normN8C64 on 8x8 features: 10 blocks and two doublings."""
    model = ResidualDecoder((8, 8, 8), (3, 32, 32))
    doublings = [m for m in model.modules() if isinstance(m, nn.ConvTranspose2d)]
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(doublings) == 2 and all(m.out_channels == 64 for m in doublings)
    assert sum(m.kernel_size == (3, 3) for m in convolutions) == 20
