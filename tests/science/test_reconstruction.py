"""One conformance test over the folder of reconstruction attacks."""

import itertools

import pytest
import torch

from mipriv import plugin
from mipriv.attacks.reconstruction import Knowledge, offer
from mipriv.errors import InputError
from tests.science.conftest import SHAPE
from tests.science.toy_clients import ATTACKS, KINDS, LONG, SMALL, Told, Toy, blobs, known, mse, run, send


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
    # One that stops where equations are met asks by need.
    assert changed.queries == many.queries or name == "peel"
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
