"""A classifier in two parties computes what its parts do, and trains as its defence releases."""

import copy

import pytest
import torch
from torch import Tensor, nn

from mipriv import plugin, training
from mipriv.defenses import Batch, Defense
from mipriv.errors import InputError
from mipriv.models import classifiers
from mipriv.models.fold import folded
from mipriv.models.split_classifier import SplitClassifier, build
from mipriv.training import Recipe

SHAPE, KNOBS = (1, 16, 16), {"widths": (4, 5, 6, 6, 6), "hidden": 8}
CUT, NARROW = "trunk.stage2", "noRELU_C2S1"
RECIPE = Recipe(epochs=2, batch_size=6, optimizer="adam", lr=3e-3)


def made(bottleneck: str | None = NARROW, seed: int = 0, cut: str = CUT) -> SplitClassifier:
    return build(plugin.load("classifier", "vgg11", **KNOBS), 3, SHAPE, cut, bottleneck, seed)


@pytest.fixture
def model() -> SplitClassifier:
    return made()


@pytest.fixture
def x() -> Tensor:
    return torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def pair() -> training.Pair:
    """Three classes told apart by brightness."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(7)
    return (labels.view(-1, 1, 1, 1) / 3 + 0.2 * torch.rand(21, *SHAPE, generator=random)), labels


def state(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def alike(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


# The network.


@pytest.mark.parametrize("bottleneck", [None, "C3S1", "noRELU_C2S2", "K5C2S4"])
def test_forward_is_the_server_of_the_released_client(bottleneck: str | None, x: Tensor) -> None:
    model = made(bottleneck).eval()
    assert model.client(x).shape[1:] == model.feature_shape and model(x).shape == (5, model.num_classes)
    assert torch.equal(model(x), model.server(model.client(x)))
    model.release = lambda features: 2 - features.square()
    assert torch.equal(model(x), model.server(2 - model.client(x).square()))
    assert model.width == model.client(x)[0].numel()


def test_without_a_bottleneck_it_is_the_whole_network(x: Tensor) -> None:
    whole = classifiers.build(plugin.load("classifier", "vgg11", **KNOBS), 3, SHAPE, seed=0)
    model = made(None)
    torch.manual_seed(0)  # of dropout
    expected = whole(x)
    torch.manual_seed(0)
    assert torch.equal(model(x), expected)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    one = state(made())
    torch.manual_seed(2)
    assert alike(one, state(made()))
    assert not any(
        torch.equal(v, one[k]) for k, v in state(made(seed=1)).items() if k.endswith("conv1.weight")
    )


def test_what_was_sent_is_handed_over_once(model: SplitClassifier, x: Tensor) -> None:
    model.release = lambda features: features + 1
    model(x[:1].expand(2, -1, -1, -1))
    model(x)
    features, sent = model.take()
    assert features.shape == (5, 2, 4, 4) and torch.equal(sent, features + 1)
    (slope,) = torch.autograd.grad(sent.sum(), next(model.client.parameters()))
    assert slope.abs().sum() > 0, "with its graph"
    with pytest.raises(AssertionError, match="a forward pass comes first"):
        model.take()


def test_both_parties_follow_the_mode(model: SplitClassifier, x: Tensor) -> None:
    for mode in (True, False, True):
        model.train(mode)
        assert {part.training for part in model.modules()} == {mode}
        before = state(model)
        model(x)
        moved = {name for name, v in state(model).items() if not torch.equal(v, before[name])}
        sides = {name.partition(".")[0] for name in moved}
        assert sides == ({"client", "server"} if mode else set())


def test_a_copy_leaves_the_last_pass_behind(model: SplitClassifier, x: Tensor) -> None:
    """And stands on its own: a graph cannot be copied, and would be the attacker's if it could."""
    model.eval()(x)
    copied = copy.deepcopy(model)
    assert copied.features is None and copied.sent is None and model.features is not None
    assert torch.equal(copied(x), model(x)) and not places(copied) & places(model)
    fast = folded(model, SHAPE)
    assert torch.allclose(fast(x), model(x), rtol=1e-3, atol=1e-4)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fast.modules())


def places(model: nn.Module) -> set[int]:
    """Where they lie."""
    return {p.data_ptr() for p in model.parameters()}


@pytest.mark.parametrize(
    ("cut", "bottleneck", "said"),
    [
        ("trunk.stage9", NARROW, "cut: 'trunk.stage9' does not exist"),
        (CUT, "C2", "bottleneck: 'C2'; allowed: "),
        (CUT, "C2S8", r"bottleneck: features \[5, 4, 4\] at the cut; allowed: .* that 8 divides"),
        ("trunk.flatten", NARROW, r"bottleneck: features \[6\] at the cut; allowed: \[C, h, w\]"),
    ],
)
def test_what_cannot_be_built_is_refused(cut: str, bottleneck: str, said: str) -> None:
    with pytest.raises(InputError, match=f"^{said}"):
        made(bottleneck, cut=cut)


# Training.


class Noise(Defense):
    """Gaussian noise of some deviation, and a record of the batches that its loss saw."""

    def __init__(self, sigma: float) -> None:
        self.sigma, self.seen = sigma, list[Batch]()

    def loss(self, batch: Batch, step: int) -> Tensor:
        """See `Defense.loss`."""
        self.seen.append(batch)
        return super().loss(batch, step)


def trained(pair: training.Pair, sigma: float, seed: int = 0) -> dict[str, Tensor]:
    """Weights after training, whatever torch's global generator was left at."""
    model = made()
    training.train(model, pair, pair, RECIPE, Noise(sigma), seed=seed)
    return state(model)


def test_training_with_noise_depends_on_the_seed_alone(pair: training.Pair) -> None:
    torch.manual_seed(1)
    one = trained(pair, 0.5)
    torch.manual_seed(2)
    assert alike(one, trained(pair, 0.5))
    assert not alike(one, trained(pair, 0.5, seed=1)) and not alike(one, trained(pair, 0.0))


def test_noise_is_drawn_by_the_seed(pair: training.Pair) -> None:
    """Itself, not only the weights, which follow the order of images as well."""
    noises = []
    for seed in (0, 0, 1):
        plan = Noise(0.5)
        training.train(made(), pair, pair, RECIPE, plan, seed=seed)
        first = plan.seen[0]
        assert first.sent is not None and first.features is not None
        noises.append((first.sent - first.features).detach())
    assert torch.equal(noises[0], noises[1])
    assert (noises[0] - noises[2]).abs().mean() > 0.1


def test_the_loss_sees_features_and_what_was_sent_of_them(
    model: SplitClassifier, pair: training.Pair
) -> None:
    plan = Noise(0.5)
    training.train(model, pair, pair, RECIPE, plan, seed=0)
    noises = []
    for batch in plan.seen:
        assert batch.features is not None and batch.sent is not None
        assert batch.features.shape == batch.sent.shape == (len(batch.images), *model.feature_shape)
        assert batch.features.min() > 0 and batch.features.max() < 1
        noises.append((batch.sent - batch.features).detach())
    noise = torch.cat(noises)
    assert noise.std() == pytest.approx(0.5, rel=0.05) and noise.mean().abs() < 0.05
    assert len({part[0, 0, 0, 0].item() for part in noises}) == len(noises), "fresh at every step"


def test_a_loss_on_the_features_trains_the_client_alone(model: SplitClassifier, pair: training.Pair) -> None:
    class Dim(Defense):
        """Wants small features, and nothing else."""

        def loss(self, batch: Batch, step: int) -> Tensor:
            """See `Defense.loss`."""
            assert batch.features is not None
            return batch.features.mean()

    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    history = training.train(model, pair, pair, Recipe(8, 7, "adam", 1e-2, select="last"), Dim(), seed=0)
    assert history.epochs[-1].loss < 0.8 * history.epochs[0].loss
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {name.partition(".")[0] for name in moved} == {"client"} and "client.1.0.weight" in moved


def test_a_whole_network_has_no_features(pair: training.Pair) -> None:
    whole, plan = classifiers.build(plugin.load("classifier", "vgg11", **KNOBS), 3, SHAPE, seed=0), Noise(0.5)
    training.train(whole, pair, pair, RECIPE, plan, seed=0)
    assert plan.seen and all(batch.features is None and batch.sent is None for batch in plan.seen)


class Mute(Defense):
    """Sends zeros; may fail at its first loss."""

    def __init__(self, fails: bool) -> None:
        self.fails = fails

    def release(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """See `Defense.release`."""
        return 0 * features

    def loss(self, batch: Batch, step: int) -> Tensor:
        """See `Defense.loss`."""
        if self.fails:
            raise ArithmeticError("as arranged")
        return super().loss(batch, step)


def test_validation_sees_what_is_sent_and_release_is_restored(
    model: SplitClassifier, pair: training.Pair
) -> None:
    """A server that is sent zeros answers all images alike: it is right about a third."""
    before = model.release
    history = training.train(model, pair, pair, RECIPE, Mute(fails=False), seed=0)
    assert [epoch.validation_accuracy for epoch in history.epochs] == pytest.approx([1 / 3, 1 / 3])
    assert model.release is before and model(pair[0]).std(0).max() > 0
    with pytest.raises(ArithmeticError, match="as arranged"):
        training.train(model, pair, pair, RECIPE, Mute(fails=True), seed=0)
    assert model.release is before
