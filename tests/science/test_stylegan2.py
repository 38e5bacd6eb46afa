"""StyleGAN2 as a prior: its search space, its training, its published sizes."""

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mipriv import plugin
from mipriv.errors import InputError
from mipriv.models import checkpoint
from mipriv.models.checkpoint import Card
from mipriv.models.generators import stylegan2
from mipriv.models.generators._style_generator import StyleGenerator, to_p
from mipriv.models.generators.stylegan2 import StyleGAN2

SHAPE = (1, 16, 16)
CPU = torch.device("cpu")
TINY = {"latent_dim": 5, "style_dim": 6, "mapping_layers": 2, "channel_base": 128, "channel_max": 8}
BRIEF = {**TINY, "steps": 2, "batch_size": 4, "group": 2, "r1_every": 1, "path_length_every": 2}


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(limit: float | None = None, shape: tuple[int, int, int] = SHAPE) -> StyleGenerator:
    """An untrained generator in float64 whose noise counts and whose P space has been measured."""
    torch.manual_seed(0)
    model = StyleGAN2(**TINY, limit=limit).build(shape).double()
    with torch.no_grad():
        for layer in model.synthesis.layers:
            layer.strength.fill_(0.5)
    model.mean_w.copy_(torch.randn(6, generator=random(7)))
    model.measure(random(1), whiten=False)
    return model.eval()


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=random(2), dtype=torch.float64)


@pytest.fixture(scope="module")
def public() -> Tensor:
    return torch.rand(12, *SHAPE, generator=random(3))


@pytest.mark.parametrize("shape", [SHAPE, (3, 8, 8)])
def test_rows_do_not_know_their_neighbours(shape: tuple[int, int, int]) -> None:
    model, z = tiny(limit=1.0, shape=shape), normal(5, 5)
    w = model.begin(z)
    images = model(w)
    scores = model.realism(w, images)
    assert images.shape == (5, *shape) and scores.shape == (5,)
    assert images.min() >= 0 and images.max() <= 1 and images.std() > 0
    for i in range(5):
        alone = slice(i, i + 1)
        assert torch.allclose(model.begin(z[alone]), w[alone], rtol=0, atol=1e-12)
        assert torch.allclose(model(w[alone]), images[alone], rtol=0, atol=1e-10)
        assert torch.allclose(model.realism(w[alone], images[alone]), scores[alone], rtol=0, atol=1e-10)


def test_generator_is_a_function_and_its_noise_counts() -> None:
    model, w = tiny(), normal(2, 6)
    assert torch.equal(model(w), model(w))
    before = model(w)
    model.synthesis.layers[2].noise.mul_(2)
    assert not torch.equal(model(w), before)


def test_search_begins_at_truncated_styles() -> None:
    model, z = tiny(), normal(4, 5)
    w = model.mapping(z)
    assert (model.noise_dim, model.latent_dim) == (5, 6)
    assert torch.allclose(model.begin(z), model.mean_w + 0.5 * (w - model.mean_w))
    model.truncation = 0.0
    assert torch.allclose(model.begin(z), model.mean_w.expand(4, 6), atol=1e-12)
    model.truncation = 1.0
    assert torch.allclose(model.begin(z), w)
    # z is normalised first: its length does not matter.
    assert torch.allclose(model.begin(10 * z), w, atol=1e-6)


@pytest.mark.parametrize("whiten", [False, True])
def test_p_space_clip(whiten: bool) -> None:
    model = tiny(limit=1.5)
    model.measure(random(1), whiten)
    p = to_p(model.mapping(torch.randn(10_000, 5, generator=random(1)).double())).detach()
    axes = torch.linalg.eigh(torch.cov(p.T)).eigenvectors.T if whiten else torch.eye(6).double()
    spread = (p @ axes.T).std(0, correction=0)
    near = model.mapping(normal(300, 5))
    far = 5 * normal(300, 6)
    for w in (near, far):
        clipped = model.bound(w)
        assert torch.allclose(model.bound(clipped), clipped, rtol=0, atol=1e-10)
        before = ((to_p(w) - p.mean(0)) @ axes.T / spread).abs()
        after = ((to_p(clipped) - p.mean(0)) @ axes.T / spread).abs()
        assert after.max() <= 1.5 + 1e-5
        inside = (before <= 1.5 - 1e-5).all(1)
        assert torch.equal(clipped[inside], w[inside])
        assert not (clipped == w).all(1)[(before > 1.5 + 1e-5).any(1)].any()
    assert inside.sum() == 0 and (near == model.bound(near)).all(1).any()


def test_no_limit_no_clip() -> None:
    model, w = tiny(), 100 * normal(3, 6)
    assert torch.equal(model.bound(w), w)


def test_r1_on_a_quadratic() -> None:
    """D(x) = x A x / 2 has the slope A x at x."""
    a = normal(16, 16)
    a = a + a.T
    x = normal(3, 1, 4, 4)
    found = stylegan2.r1(lambda x: (x.flatten(1) @ a * x.flatten(1)).sum(1) / 2, x)
    assert torch.allclose(found, (x.flatten(1) @ a).square().sum(1))


def test_path_lengths_of_a_linear_generator() -> None:
    """x = sum over layers of J w_l: every layer's slope is J^T y / sqrt(pixels)."""
    j, styles, y = normal(6, 16), normal(2, 3, 6).requires_grad_(), normal(2, 1, 4, 4)
    images = (styles @ j).sum(1).view(2, 1, 4, 4)
    wanted = (y.flatten(1) @ j.T).norm(dim=1) / 4
    assert torch.allclose(stylegan2.path_lengths(images, styles, y), wanted)


def test_mixing_changes_the_later_layers_alone() -> None:
    model = tiny()
    number = model.synthesis.styles
    never = stylegan2._Training(StyleGAN2(**TINY, mixing=0.0), model, random()).styles(20)
    assert number == 2 * 3 and torch.equal(never, never[:, :1].expand(-1, number, -1))
    always = stylegan2._Training(StyleGAN2(**TINY, mixing=1.0), model, random()).styles(20)
    assert torch.equal(always[:, 0], never[:, 0]) and not (always[:, -1] == always[:, 0]).all(1).any()


def test_two_steps_change_every_network(public: Tensor) -> None:
    plan = StyleGAN2(**BRIEF)
    model, log = plan.fit(public, seed=0, device=CPU)
    start, _ = StyleGAN2(**{**BRIEF, "steps": 1, "lr": 1e-20}).fit(public, seed=0, device=CPU)
    for part in ("mapping", "synthesis", "critic"):
        pairs = zip(
            model.get_submodule(part).parameters(), start.get_submodule(part).parameters(), strict=True
        )
        # A bias behind a dead start may stay; no network may.
        assert any(not torch.equal(a, b) for a, b in pairs)
    assert not model.training and all(p.requires_grad for p in model.parameters())
    assert [row["step"] for row in log] == [0, 1] and {"r1", "path_length"} <= log[0].keys()
    assert all(torch.tensor(list(row.values())).isfinite().all() for row in log)
    assert model.mean_w.any() and not torch.equal(model.p_mean, torch.zeros(6))


def test_kept_generator_is_the_average(public: Tensor) -> None:
    """With a half-life of nothing it is the last one, with a long one almost the first."""
    gap = {}
    for images in (1e-3, 1e9):
        plan = StyleGAN2(**BRIEF, average_images=images)
        training = stylegan2._Training(plan, plan.build(SHAPE), random())
        first = training.model.synthesis.constant.detach().clone()
        for step in range(2):
            training.step(public, step)
        kept, now = training.kept.synthesis.constant, training.model.synthesis.constant
        gap[images] = (kept - now).abs().max().item(), (kept - first).abs().max().item()
    assert gap[1e-3][0] == 0 and gap[1e-3][1] > 1e-4
    assert gap[1e9][0] > 1e-4 and gap[1e9][1] < 1e-6


def test_lazy_penalties_correct_the_optimiser() -> None:
    plan = StyleGAN2(**TINY)
    training = stylegan2._Training(plan, plan.build(SHAPE), random())
    judge, maker = training.judge.param_groups[0], training.maker.param_groups[0]
    assert judge["lr"] == pytest.approx(0.002 * 16 / 17) and maker["lr"] == pytest.approx(0.002 * 4 / 5)
    assert judge["betas"] == (0.0, pytest.approx(0.99 ** (16 / 17)))


def test_penalties_fall_due_lazily_and_weigh_for_the_steps_between(
    public: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gamma / 2 times the mean squared slope, times the steps until the next (section 2.1)."""
    losses: list[float] = []
    monkeypatch.setattr(stylegan2, "_update", lambda _, loss: losses.append(loss.item()) or 0.0)
    plan = StyleGAN2(**{**BRIEF, "r1_every": 3, "path_length_every": 2}, r1=7.0)
    training = stylegan2._Training(plan, plan.build(SHAPE), random())
    counts = []
    for step in range(7):
        losses.clear()
        row = training.step(public, step)
        counts.append(len(losses))
        assert ("r1" in row) == (step % 3 == 0) and ("path_length" in row) == (step % 2 == 0)
        if "r1" in row:
            assert losses[1] == pytest.approx(7 / 2 * 3 * row["r1"])
    assert counts == [4, 2, 3, 3, 3, 2, 4]


def test_every_style_is_read_and_the_last_by_the_last_image_alone() -> None:
    model = tiny().requires_grad_(False)
    styles = normal(1, model.synthesis.styles, 6).requires_grad_()
    (slope,) = torch.autograd.grad(model.synthesis(styles).square().sum(), styles)
    assert (slope.abs().sum((0, 2)) > 0).all()
    other = styles.detach().clone()
    other[:, -1] += 1
    model.synthesis.images[-1].conv.weight.zero_()
    assert torch.equal(model.synthesis(styles), model.synthesis(other))


def test_fit_is_a_function_of_its_seed(public: Tensor) -> None:
    plan = StyleGAN2(**BRIEF, path_length=0.0)
    one, two, other = (plan.fit(public, seed=seed, device=CPU)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    assert not torch.equal(one["synthesis.constant"], other["synthesis.constant"])


def test_discriminator_learns_to_tell_real_from_made() -> None:
    real = 0.5 + 0.4 * torch.sin(torch.linspace(0, 12, 16))[None, None, :, None] * torch.ones(16, *SHAPE)
    plan = StyleGAN2(**{**BRIEF, "steps": 25, "batch_size": 8, "r1": 0.1, "path_length": 0.0})
    model, _ = plan.fit(real, seed=0, device=CPU)
    noise = torch.rand(16, *SHAPE, generator=random())
    with torch.no_grad():
        w = torch.zeros(16, 6)
        assert model.realism(w, real).mean() > model.realism(w, noise).mean()


def test_checkpoint_gives_the_same_images(public: Tensor, tmp_path: Path) -> None:
    knobs = {**BRIEF, "limit": 1.0}
    model, _ = plugin.load("prior", "stylegan2", **knobs).fit(public, seed=0, device=CPU)
    checkpoint.save(model, Card("prior", "stylegan2", knobs, SHAPE, None, {}), tmp_path)
    again, z = checkpoint.load_prior(tmp_path), torch.randn(3, 5, generator=random())
    assert torch.equal(again.begin(z), model.begin(z))
    assert torch.equal(again(again.begin(z)), model(model.begin(z)))


@pytest.mark.parametrize("shape", [(1, 48, 48), (1, 32, 64), (3, 4, 4), (2, 16, 16), (3, 2048, 2048)])
def test_images_that_it_cannot_make_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="allowed: 1 or 3 channels, square, a power of two") as error:
        StyleGAN2().build(shape)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("knob", "value", "said"),
    [
        ("batch_size", 6, "a multiple of group"),
        ("truncation", 1.5, "0 to 1"),
        ("steps", 0, "1 or more"),
        ("limit", 0.0, "above 0, or null"),
        ("lr", 0.0, "above 0"),
    ],
)
def test_bad_knobs_are_one_line(knob: str, value: float, said: str) -> None:
    with pytest.raises(InputError, match=f"{knob}: {value}; allowed: {said}"):
        StyleGAN2(**{knob: value})


@pytest.mark.parametrize(
    ("side", "base", "made", "judged", "styles"),
    [(1024, 32_768, 30_370_060, 29_012_513, 18), (256, 16_384, 24_767_458, 24_001_089, 14)],
)
def test_published_sizes(side: int, base: int, made: int, judged: int, styles: int) -> None:
    """As counted layer by layer from the paper's table of channels: 30.4M at 1024, 24.8M at 256."""
    with torch.device("meta"):
        model = StyleGAN2(channel_base=base).build((3, side, side))
    widths = [min(base // 2**i, 512) for i in range(2, side.bit_length())]
    affine = lambda c: 512 * c + c  # noqa: E731
    pairs = [(widths[0], widths[0])]
    for before, after in itertools.pairwise(widths):
        pairs += [(before, after), (after, after)]
    # A layer: its style, 3x3 weights, bias and noise strength. A toRGB: its style, 1x1 weights and bias.
    layers = sum(affine(a) + 9 * a * b + b + 1 for a, b in pairs)
    images = sum(affine(c) + 3 * c + 3 for c in widths)
    mapping = 8 * (512 * 512 + 512)
    count = lambda *parts: sum(p.numel() for part in parts for p in part.parameters())  # noqa: E731
    assert count(model.mapping, model.synthesis) == mapping + 16 * widths[0] + layers + images == made
    assert count(model.critic) == judged and model.synthesis.styles == styles
