"""One conformance test over the defences of split networks: each trains, comes back, and releases as told."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mipriv import draws, plugin, training
from mipriv.defenses import Batch, Defense
from mipriv.errors import InputError
from mipriv.models import weights
from mipriv.models.classifiers import build
from mipriv.models.split_classifier import SplitClassifier
from tests.science.toy_defenses import KNOBS, RECIPE, SHAPE, SMALL, SPLIT, bright, equal, hooks, parties

HOSTS = list(SPLIT)
STOCHASTIC = {"dropout"}  # also without noise
ALWAYS = {"info_bottleneck", "noise"}  # there is no such defence without noise
QUIET = [name for name in HOSTS if name not in STOCHASTIC | ALWAYS]


def host(name: str, **knobs: Any) -> Defense:
    made: Defense = plugin.load("defense", name, **{**SPLIT[name], **knobs})
    return made


def trained(plan: Defense, seed: int = 0) -> SplitClassifier:
    """The toy parties after two epochs, whatever torch's global generator was left at."""
    torch.rand(int(torch.randint(9, ())))
    model, pair = parties(), bright()
    history = training.train(model, pair, pair, RECIPE, plan, seed=seed)
    assert all(math.isfinite(epoch.loss) for epoch in history.epochs)
    return model


def released(model: SplitClassifier, plan: Defense, images: Tensor, key: int) -> Tensor:
    with torch.no_grad():
        return plan.release(model.client(images), draws.generator(key))


def test_every_defence_is_tested() -> None:
    around = {"cem"}  # goes around any of these: test_cem.py
    assert sorted({*SMALL, *SPLIT, *around}) == plugin.names("defense")


@pytest.mark.parametrize("name", HOSTS)
def test_same_seed_same_bytes_other_seed_other_bytes(name: str) -> None:
    one, two = (trained(host(name)) for _ in range(2))
    assert equal(one, two)
    assert not equal(one, trained(host(name), seed=1))
    prepared = parties()
    with draws.seeded(0, "defense"):
        host(name).prepare(prepared, SHAPE)
    for side, was in ((one.client, prepared.client), (one.server, prepared.server)):
        learnt = zip(side.parameters(), was.parameters(), strict=True)
        assert not any(torch.equal(a, b) for a, b in learnt if a.count_nonzero())


@pytest.mark.parametrize("name", HOSTS)
def test_one_plan_trains_twice_alike(name: str) -> None:
    """Nothing of the first training is left in it for the second."""
    plan = host(name)
    assert equal(trained(plan), trained(plan))


@pytest.mark.parametrize("name", HOSTS)
def test_no_hook_is_left_behind_not_even_by_an_error(name: str) -> None:
    model = trained(host(name))
    assert hooks(model) == 0 and model.release(torch.ones(2)).tolist() == [1, 1]

    def stop(done: int, of: int) -> None:
        raise RuntimeError("stopped")

    broken, pair = parties(), bright()
    with pytest.raises(RuntimeError, match="stopped"):
        training.train(broken, pair, pair, RECIPE, host(name), seed=0, progress=stop)
    assert hooks(broken) == 0 and broken.release(torch.ones(2)).tolist() == [1, 1]
    host(name).finish(broken)  # unprepared: nothing to do, and no error


@pytest.mark.parametrize("name", HOSTS)
def test_built_prepared_and_filled_it_is_the_same(name: str, tmp_path: Path) -> None:
    model = trained(host(name))
    weights.save(model, tmp_path / "model.safetensors")
    again, plan = parties(seed=5), host(name)
    torch.manual_seed(9)
    plan.prepare(again, SHAPE)
    weights.load_into(again, tmp_path / "model.safetensors")
    assert equal(model, again) and again.feature_shape == model.feature_shape
    images = bright()[0]
    sent = [released(m.eval(), p, images, 3) for m, p in ((model, host(name)), (again, plan))]
    assert torch.equal(*sent) and sent[0].shape[1:] == model.feature_shape
    with torch.no_grad():
        assert torch.equal(model.server(sent[0]), again.server(sent[0]))


@pytest.mark.parametrize("name", QUIET)
def test_without_noise_a_row_alone_equals_the_row_among_many(name: str) -> None:
    plan = host(name, sigma=0.0)
    model, images = trained(plan).double(), bright()[0].double()
    assert not model.training
    many, alone = released(model, plan, images, 0), released(model, plan, images[4:5], 1)
    assert torch.allclose(many[4:5], alone, rtol=0, atol=1e-8)
    with torch.no_grad():
        assert torch.allclose(model.server(many)[4:5], model.server(alone), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", HOSTS)
def test_noise_is_added_to_whatever_else_a_release_does(name: str) -> None:
    """The same draws at twice the strength make twice the difference to the release without noise."""
    features = torch.rand(40, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    before = features.clone()
    weak, strong = (host(name, sigma=s).release(features, draws.generator(1)) for s in (0.25, 0.5))
    assert torch.equal(features, before)
    noise = (strong - weak) / 0.25
    assert abs(noise.mean()) < 0.05 and noise.std().item() == pytest.approx(1, abs=0.05)
    clean = weak - 0.25 * noise
    if name in STOCHASTIC:
        assert not torch.allclose(clean, features, atol=1e-5)
    else:
        assert torch.allclose(clean, features, atol=1e-5)


@pytest.mark.parametrize("name", HOSTS)
def test_release_draws_from_the_generator_alone_and_afresh(name: str) -> None:
    plan, features = host(name, sigma=0.1), torch.ones(2, 4, 8, 8)
    random = draws.generator(0)
    before = torch.random.get_rng_state()
    first, second = plan.release(features, random), plan.release(features, random)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(plan.release(features, draws.generator(0)), first)


@pytest.mark.parametrize("name", HOSTS)
def test_gradients_pass_through_the_release(name: str) -> None:
    features = torch.rand(2, 4, 8, 8).requires_grad_()
    host(name, sigma=0.1).release(features, draws.generator(0)).sum().backward()
    assert features.grad is not None and features.grad.unique().tolist() in ([1.0], [0.0, 1.0])


@pytest.mark.parametrize("name", HOSTS)
def test_a_whole_network_is_refused_in_one_line_and_left_as_it_was(name: str) -> None:
    model = build(plugin.load("classifier", "slim_resnet", **KNOBS), 3, SHAPE, seed=0)
    before, pair = copy.deepcopy(model), bright()
    with pytest.raises(InputError, match=f"{name}.*: Classifier sends no features; allowed: a split") as said:
        training.train(model, pair, pair, RECIPE, host(name), seed=0)
    assert "\n" not in str(said.value) and equal(model, before)


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("sigma", [-0.1, math.nan, math.inf])
def test_no_noise_of_negative_or_unbounded_strength(name: str, sigma: float) -> None:
    with pytest.raises(InputError, match=r"sigma: .*; allowed: (from|above) 0"):
        host(name, sigma=sigma)


@pytest.mark.parametrize("name", sorted(ALWAYS))
def test_what_lives_by_noise_wants_some(name: str) -> None:
    with pytest.raises(InputError, match=r"sigma: 0\.0; allowed: above 0"):
        host(name, sigma=0.0)
    with pytest.raises(InputError, match="missing sigma"):
        plugin.load("defense", name)


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("adversarial", {"weight": 0.0}),
        ("dropout", {"rate": 0.0}),
        ("info_bottleneck", {"weight": 0.0}),
        ("nopeek", {"weight": 0.0}),
        ("none", {}),
        ("patrol", {"weight": 0.0, "lipschitz": 0.0, "extra": 0, "prune": 0.0}),
    ],
)
def test_at_no_strength_it_is_noise_alone_bit_for_bit(name: str, knobs: dict[str, Any]) -> None:
    plain = trained(host("noise", sigma=0.2)).state_dict()
    bare = trained(host(name, sigma=0.2, **knobs)).state_dict()
    assert all(torch.equal(bare.pop(key), value) for key, value in plain.items())
    assert all(key.endswith(".kept") for key in bare)


@pytest.mark.parametrize("name", [n for n in HOSTS if n not in ("none", "noise")])
def test_at_its_strength_it_is_not(name: str) -> None:
    strong = {"adversarial": {"floor": -0.9}, "nopeek": {"weight": 1.0}}.get(name, {})
    plain, other = (trained(host(n, sigma=0.2, **k)) for n, k in (("noise", {}), (name, strong)))
    assert not equal(plain, other)


@pytest.mark.parametrize(
    ("name", "knobs", "said"),
    [
        ("adversarial", {"measure": "lpips"}, "measure: 'lpips'.*allowed: mse, ssim"),
        ("adversarial", {"measure": "mse", "floor": 0.0}, "floor: 0.0; allowed: below 0, the best mse"),
        ("adversarial", {"floor": 1.0}, "floor: 1.0; allowed: below 1, the best ssim"),
        ("adversarial", {"restart": -1}, "restart: -1; allowed: from 0"),
        ("adversarial", {"lr": 0.0}, "lr: 0.0; allowed: above 0"),
        ("bottleneck", {"shape": "C8"}, "bottleneck: 'C8'; allowed: "),
        ("dropout", {"rate": 1.0}, "rate: 1.0; allowed: from 0, below 1"),
        ("info_bottleneck", {"lr": -1.0}, "lr: -1.0; allowed: above 0"),
        ("info_bottleneck", {"weight": -1.0}, "weight: -1.0; allowed: from 0"),
        ("nopeek", {"on": "images"}, "on: 'images'.*allowed: features, sent"),
        ("nopeek", {"weight": math.inf}, "weight: inf; allowed: from 0"),
        ("patrol", {"prune": 1.0}, "prune: 1.0; allowed: from 0, below 1"),
        ("patrol", {"extra": -1}, "extra: -1; allowed: from 0"),
        ("patrol", {"weight": -1.0}, "weight: -1.0; allowed: from 0"),
    ],
)
def test_wrong_knobs_are_refused(name: str, knobs: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        host(name, **knobs)


@pytest.mark.parametrize(
    ("name", "knobs", "said"),
    [
        ("adversarial", {"warmup": 2}, "warmup: 2 of 2 epochs; allowed: fewer than all"),
        ("bottleneck", {"shape": "C4S1"}, "shape: 'C4S1' sends 256; allowed: fewer numbers than the 256"),
        ("patrol", {"prune_epoch": 2}, "prune_epoch: 2; allowed: below 2"),
    ],
)
def test_what_would_do_nothing_is_refused(name: str, knobs: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        trained(host(name, **knobs))


def test_the_loop_hands_over_clean_features_and_what_was_sent() -> None:
    seen: list[bool] = []

    class Watch(Defense):
        sigma = 0.1

        def loss(self, batch: Batch, step: int) -> Tensor:
            assert batch.features is not None and batch.sent is not None
            seen.append(torch.equal(batch.features, batch.sent))
            return super().loss(batch, step)

    trained(Watch())
    assert seen and not any(seen)
