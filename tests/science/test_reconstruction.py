"""One conformance test over the folder of reconstruction attacks, then what is particular to each."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv import plugin
from mipriv.attacks.reconstruction import Client, Knowledge, Recovered, offer
from mipriv.attacks.reconstruction.affine import Affine
from mipriv.attacks.reconstruction.decoder import Decoder
from mipriv.attacks.reconstruction.gan import GAN, Critic, critic_loss
from mipriv.attacks.reconstruction.optimise import Optimise
from mipriv.attacks.search.inverse import InverseRecipe
from mipriv.attacks.search.pixels import gaussian, total_variation
from mipriv.errors import InputError
from mipriv.models import decoders
from mipriv.models.residual_decoder import ResidualDecoder
from tests.science.conftest import SHAPE

ATTACKS = plugin.names("reconstruction")
TINY = InverseRecipe(width=4, blocks=1, epochs=2, batch_size=12, lr=1e-2)
# Knobs that make an attack small. A new attack adds a line.
SMALL: dict[str, dict[str, object]] = {
    "affine": {"views": 2},
    "decoder": vars(TINY),
    "gan": {"decoder": TINY, "epochs": 2, "batch_size": 12, "critic_width": 2, "critic_steps": 2},
    "optimise": {"steps": 4, "draws": 2, "selection": 2, "tv_weights": (0.0, 0.1), "chunk": 2},
}
LEARNS = InverseRecipe(width=8, blocks=0, epochs=12, batch_size=12, lr=2e-2)
# Of a longer run, where an attack is to be good.
LONG: dict[str, dict[str, object]] = {
    "affine": {},
    "decoder": vars(LEARNS),
    "gan": {"decoder": LEARNS, "epochs": 3, "batch_size": 12, "critic_width": 2, "critic_steps": 2},
    "optimise": {"steps": 40, "draws": 4, "prior": "gaussian", "lr": 0.1},
}
KINDS = ["still", "random"]


def blobs(count: int, seed: int) -> Tensor:
    """Smooth random images [count, *SHAPE] in [0, 1], in float64."""
    coarse = torch.randn(count, 1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, SHAPE[1:], mode="bicubic", align_corners=False).mul(1.5).sigmoid()


class Toy:
    """A client that counts and remembers how it was asked.

    Args:
        kind: `still`, or `random`: dropout masks and noise.
    """

    def __init__(self, kind: str, dtype: torch.dtype = torch.float64) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(5)
            layers = [nn.Conv2d(1, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
            self.net = nn.Sequential(*layers, nn.Conv2d(4, 3, 3, 1, 1), nn.Sigmoid()).to(dtype).eval()
            with torch.no_grad():
                self.net[4].weight.mul_(4)
        self.kind, self.seen = kind, 0
        self.states: list[bytes] = []
        self.gradients: list[bool] = []

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        self.seen += len(images)
        self.states.append(generator.get_state().numpy().tobytes())
        self.gradients.append(torch.is_grad_enabled() or images.requires_grad)
        features: Tensor = self.net(images)
        if self.kind == "still":
            return features
        masks = (torch.rand(features.shape, generator=generator) < 0.95).to(features)
        return features * masks + 0.1 * torch.randn(features.shape, generator=generator).to(features)


class Told:
    """A progress callback that remembers."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.calls.append((done, total))


def send(client: Client, images: Tensor, repeats: int = 1, seed: int = 77) -> Tensor:
    """What targets [n, ...] send, [n, r, ...]: every one with a generator of its own."""
    rows = []
    with torch.no_grad():
        for place, image in enumerate(images):
            random = torch.Generator().manual_seed(seed + place)
            rows.append(torch.cat([client(image[None], random) for _ in range(repeats)]))
    return torch.stack(rows)


def known(dtype: torch.dtype = torch.float64, bounded: bool = True) -> Knowledge:
    return Knowledge(blobs(48, 1).to(dtype), blobs(6, 2).to(dtype), bounded)


def run(
    name: str, client: Client, observed: Tensor, knobs: dict[str, dict[str, object]] = SMALL
) -> Recovered:
    attack = plugin.load("reconstruction", name, **knobs[name])
    found: Recovered = attack(offer(client, attack.access), known(observed.dtype), observed, seed=3)
    return found


def mse(images: Tensor, truth: Tensor) -> float:
    return (images - truth).square().mean().item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ATTACKS)
def test_shapes_range_and_log(name: str, kind: str) -> None:
    for dtype, bounded in ((torch.float32, True), (torch.float64, False)):
        toy, told = Toy(kind, dtype), Told()
        attack = plugin.load("reconstruction", name, **SMALL[name])
        observed = send(toy, blobs(3, 4).to(dtype), repeats=2)
        handed = offer(toy, attack.access)
        found = attack(handed, known(dtype, bounded), observed, seed=3, progress=told)
        assert found.images.shape == (3, *SHAPE) and found.images.dtype == dtype
        assert found.images.isfinite().all() and not found.images.requires_grad
        assert not bounded or (found.images.min() >= 0 and found.images.max() <= 1)
        assert found.validation_error is None or found.validation_error > 0
        assert found.log and all("step" in row for row in found.log)
        done, totals = zip(*told.calls, strict=True)
        assert all(0 < a < b for a, b in itertools.pairwise(done)) and set(totals) == {done[-1]}


@pytest.mark.parametrize("name", ATTACKS)
def test_the_seed_alone_decides(name: str) -> None:
    """Not torch's global generator, which also stays where it was."""
    toy = Toy("random")
    observed, found = send(toy, blobs(2, 4)), []
    for global_seed in (0, 1):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        found.append(run(name, toy, observed))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found[0].images, found[1].images) and found[0].log == found[1].log
    attack = plugin.load("reconstruction", name, **SMALL[name])
    other = attack(offer(toy, attack.access), known(), observed, seed=4)
    assert not torch.equal(other.images, found[0].images)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ATTACKS)
def test_a_target_alone_equals_the_target_among_any_others(name: str, kind: str) -> None:
    """Nor do other targets take part in what is selected or reported."""
    toy = Toy(kind)
    observed = send(toy, blobs(3, 4), repeats=2)
    others = observed.clone()
    others[[0, 2]] = torch.rand(others[[0, 2]].shape, dtype=torch.float64) * 5
    many, changed, alone = (run(name, toy, rows) for rows in (observed, others, observed[1:2]))
    for found in (changed, many):
        assert torch.allclose(found.images[1], alone.images[0], rtol=0, atol=1e-8)
        assert found.validation_error == pytest.approx(alone.validation_error, rel=1e-10)
    assert changed.queries == many.queries
    assert not torch.allclose(changed.images[0], many.images[0], atol=1e-3)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_client_is_left_as_it_was(name: str) -> None:
    toy = Toy("random")
    observed = send(toy, blobs(2, 4))
    before = {key: value.clone() for key, value in toy.net.state_dict().items()}
    run(name, toy, observed)
    assert all(torch.equal(value, before[key]) for key, value in toy.net.state_dict().items())
    assert not any(module.training for module in toy.net.modules())
    assert all(p.grad is None and p.requires_grad for p in toy.net.parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ATTACKS)
def test_queries_are_counted_and_each_has_fresh_randomness(name: str, kind: str) -> None:
    toy = Toy(kind)
    observed = send(toy, blobs(3, 4), repeats=2)
    toy.seen, toy.states = 0, []
    assert run(name, toy, observed).queries == toy.seen > 0
    assert kind == "still" or len(set(toy.states)) == len(toy.states)


@pytest.mark.parametrize("name", ATTACKS)
def test_who_may_query_never_asks_for_gradients(name: str) -> None:
    toy = Toy("still")
    observed = send(toy, blobs(2, 4))
    attack = plugin.load("reconstruction", name, **SMALL[name])
    toy.gradients = []
    plain = attack(toy, known(), observed, seed=3)
    assert any(toy.gradients) == (attack.access == "weights")
    with torch.no_grad():
        assert torch.equal(attack(toy, known(), observed, seed=3).images, plain.images)


@pytest.mark.parametrize("name", ATTACKS)
def test_it_beats_the_mean_image_and_repeats_help_against_noise(name: str) -> None:
    truth, mean = blobs(6, 4), known().training.mean(0)
    floor = mse(mean, truth)
    toy = Toy("still")
    assert mse(run(name, toy, send(toy, truth), LONG).images, truth) < 0.6 * floor
    noisy = Toy("random")
    once, often = (mse(run(name, noisy, send(noisy, truth, r), LONG).images, truth) for r in (1, 8))
    assert often < 0.9 * once


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "optimise"])
def test_what_is_kept_errs_as_little_as_reported(name: str) -> None:
    """Validation images, attacked as targets, are recovered with the least of the errors logged."""
    toy, validation = Toy("still"), known().validation
    found = run(name, toy, send(toy, validation))
    errors = [row["validation_error"] for row in found.log if "critic_loss" in row or name != "gan"]
    assert found.validation_error == min(errors) and len(set(errors)) > 1
    assert mse(found.images, validation) == pytest.approx(found.validation_error, rel=1e-9)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("spoil", ["training", "validation", "observed", "features", "integers"])
def test_what_cannot_be_used_is_refused_in_one_line(name: str, spoil: str) -> None:
    toy = Toy("still")
    told, observed = known(), send(toy, blobs(2, 4))
    if spoil == "training":
        told = Knowledge(told.training[:1], told.validation, True)
    elif spoil == "validation":
        told = Knowledge(told.training, told.validation[..., 1:], True)
    else:
        observed = {
            "observed": observed[:, :0],
            "features": observed[:, :, :2],
            "integers": observed.to(torch.int64),
        }[spoil]
    attack = plugin.load("reconstruction", name, **SMALL[name])
    with pytest.raises(InputError, match="allowed:") as refusal:
        attack(offer(toy, attack.access), told, observed, seed=0)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("affine", {"penalties": ()}),
        ("affine", {"penalties": (-1.0,)}),
        ("affine", {"views": 0}),
        ("decoder", {"network": "deep"}),
        ("decoder", {"batch_size": 1}),
        ("decoder", {"final_lr": 1.0}),
        ("decoder", {"blocks": -1}),
        ("gan", {"critic_steps": 0}),
        ("gan", {"critic_lr": 0.0}),
        ("optimise", {"prior": "flat"}),
        ("optimise", {"tv_weights": ()}),
        ("optimise", {"noise": -1.0}),
        ("optimise", {"shrinkage": 2.0}),
    ],
)
def test_impossible_knobs_are_refused(name: str, knobs: dict[str, object]) -> None:
    with pytest.raises(InputError, match="allowed: "):
        plugin.load("reconstruction", name, **knobs)


# A linear client of Gaussian images, of which all is known in closed form.
SIDE, FEATURES = 5, 12


class Linear:
    """x ~ N(mean, root root'), z = map x + sigma noise."""

    def __init__(self, sigma: float, features: int = FEATURES) -> None:
        random = torch.Generator().manual_seed(8)
        d = SIDE**2
        self.sigma, self.mean = sigma, torch.rand(d, generator=random, dtype=torch.float64)
        self.root = torch.randn(d, d, generator=random, dtype=torch.float64) / d**0.5
        self.map = torch.randn(features, d, generator=random, dtype=torch.float64) / d**0.5

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        features = images.flatten(1) @ self.map.T
        return features + self.sigma * torch.randn(
            features.shape, generator=generator, dtype=torch.float64
        ).to(features)

    def draw(self, count: int, seed: int) -> Tensor:
        random = torch.Generator().manual_seed(seed)
        u = torch.randn(count, len(self.mean), generator=random, dtype=torch.float64)
        return (self.mean + u @ self.root.T).view(count, 1, SIDE, SIDE)

    def posterior(self, sent: Tensor, mean: Tensor, covariance: Tensor, repeats: int = 1) -> Tensor:
        """E[x | mean of `repeats` releases] by the textbook, for images N(mean, covariance)."""
        noise = self.sigma**2 / repeats * torch.eye(len(self.map), dtype=torch.float64)
        gain = covariance @ self.map.T @ torch.linalg.inv(self.map @ covariance @ self.map.T + noise)
        return mean + (sent - mean @ self.map.T) @ gain.T


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


def test_optimise_refuses_a_client_without_gradients() -> None:
    toy = Toy("still")
    with pytest.raises(InputError, match="no gradient"):
        Optimise(steps=1)(offer(toy, "queries"), known(), send(toy, blobs(1, 4)), seed=0)


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
