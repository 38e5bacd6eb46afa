"""One conformance test over the folder of defences, then what is particular to each."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mipriv import plugin, training
from mipriv.analysis import dependence
from mipriv.defenses import Batch, Defense
from mipriv.defenses.bido import BiDO
from mipriv.defenses.mid import MID, divergence
from mipriv.errors import InputError
from mipriv.models import checkpoint, heads
from mipriv.models.checkpoint import Card
from mipriv.models.classifiers import Classifier, build
from mipriv.models.freeze import Freeze
from tests.science.toy_defenses import KNOBS, LAYERS, RECIPE, SHAPE, SMALL, bright, equal, hooks

DEFENSES = list(SMALL)
FREEZING = [name for name in DEFENSES if "freeze" in plugin.knobs("defense", name)]


@pytest.fixture
def model() -> Classifier:
    return build(plugin.load("classifier", "slim_resnet", **KNOBS), 3, SHAPE, seed=0)


@pytest.fixture
def pair() -> training.Pair:
    return bright()


def defence(name: str, **knobs: Any) -> Defense:
    made: Defense = plugin.load("defense", name, **{**SMALL[name], **knobs})
    return made


def trained(model: Classifier, pair: training.Pair, plan: Defense, seed: int = 0) -> Classifier:
    """A copy of the model after two epochs, whatever torch's global generator was left at."""
    copied = copy.deepcopy(model)
    torch.rand(int(torch.randint(9, ())))
    history = training.train(copied, pair, pair, RECIPE, plan, seed=seed)
    assert all(math.isfinite(epoch.loss) for epoch in history.epochs)
    return copied


@pytest.mark.parametrize("name", DEFENSES)
def test_same_seed_same_bytes_other_seed_other_bytes(
    name: str, model: Classifier, pair: training.Pair
) -> None:
    one, two = (trained(model, pair, defence(name)) for _ in range(2))
    assert equal(one, two)
    assert not equal(one, trained(model, pair, defence(name), seed=1))
    assert not equal(one.trunk, model.trunk)


@pytest.mark.parametrize("name", DEFENSES)
def test_no_hook_is_left_behind_not_even_by_an_error(
    name: str, model: Classifier, pair: training.Pair
) -> None:
    assert hooks(trained(model, pair, defence(name))) == 0

    def stop(done: int, of: int) -> None:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        training.train(model, pair, pair, RECIPE, defence(name), seed=0, progress=stop)
    assert hooks(model) == 0
    defence(name).finish(model)  # unprepared: nothing to do, and no error


@pytest.mark.parametrize("name", DEFENSES)
def test_a_row_alone_equals_the_row_among_many(name: str, model: Classifier, pair: training.Pair) -> None:
    done = trained(model, pair, defence(name)).double()
    assert not done.training
    images = pair[0].double()
    with torch.no_grad():
        assert torch.allclose(done(images)[4:5], done(images[4:5]), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", DEFENSES)
def test_saved_and_loaded_again_it_is_the_same(
    name: str, model: Classifier, pair: training.Pair, tmp_path: Path
) -> None:
    done = trained(model, pair, defence(name))
    card = Card("classifier", "slim_resnet", KNOBS, SHAPE, 3, {}, heads.name(done.head))
    checkpoint.save(done, card, tmp_path)
    again = checkpoint.load_classifier(tmp_path)
    assert equal(done, again) and torch.equal(done(pair[0]), again(pair[0]))


@pytest.mark.parametrize("bn_mode", ["strict", "reference"])
@pytest.mark.parametrize("name", FREEZING)
def test_frozen_is_bit_identical_and_the_rest_is_not(
    name: str, bn_mode: str, model: Classifier, pair: training.Pair
) -> None:
    freeze = Freeze(cut="trunk.stage1", bn_mode=bn_mode)
    knobs = {"layers": ("trunk.stage2",)} if name == "bido" else {}
    frozen = {leaf.name for leaf in freeze.front(model, SHAPE)}
    after = trained(model, pair, defence(name, freeze=freeze, **knobs)).state_dict()
    buffers = {key for key, _ in model.named_buffers()}
    for key, value in model.state_dict().items():
        follows = bn_mode == "reference" and key in buffers
        if key in after:
            same = key.rpartition(".")[0] in frozen and not follows
            assert torch.equal(after[key], value) == same, key


@pytest.mark.parametrize("name", FREEZING)
def test_unknown_cuts_are_refused_before_training(name: str, model: Classifier, pair: training.Pair) -> None:
    before = copy.deepcopy(model.trunk)
    with pytest.raises(InputError, match=r"cut: 'trunk\.stage9' does not exist.*allowed: .*trunk\.stage2"):
        training.train(model, pair, pair, RECIPE, defence(name, freeze=Freeze(cut="trunk.stage9")), seed=0)
    assert equal(model.trunk, before) and hooks(model) == 0


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("bido", {"lambda_x": 0.0, "lambda_y": 0.0}),
        ("label_smoothing", {"alpha": 0.0}),
        ("label_smoothing", {"alpha": 0.0, "schedule": "constant"}),
    ],
)
def test_at_no_strength_it_is_plain_training_bit_for_bit(
    name: str, knobs: dict[str, Any], model: Classifier, pair: training.Pair
) -> None:
    assert equal(trained(model, pair, defence(name, **knobs)), trained(model, pair, Defense()))
    assert not equal(trained(model, pair, defence(name)), trained(model, pair, Defense()))


@pytest.mark.parametrize(
    ("name", "knobs", "said"),
    [
        ("bido", {"measure": "hsci"}, r"measure: 'hsci'.*allowed: coco, hsic"),
        ("bido", {"kernel": "imq"}, "kernel: 'imq'.*allowed: gaussian, linear"),
        ("bido", {"lambda_x": -0.1}, "lambda_x: -0.1; allowed: from 0"),
        ("bido", {"eps": 0.0}, "eps: 0.0; allowed: above 0"),
        ("mid", {"beta": -1.0}, "beta: -1.0; allowed"),
        ("mid", {"dim": 0}, "dim: 0; allowed"),
        ("label_smoothing", {"alpha": 1.0}, "alpha: 1.0; allowed: below 1"),
        ("label_smoothing", {"schedule": "cosine"}, "schedule: 'cosine'.*allowed: constant, ppa"),
    ],
)
def test_wrong_knobs_are_refused(name: str, knobs: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        defence(name, **knobs)


def batch() -> Batch:
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (6,), generator=random)
    return Batch(torch.rand(6, *SHAPE), labels, torch.randn(6, 4, generator=random), 0, 1)


def test_the_loop_tells_a_defence_the_epoch_and_how_many(model: Classifier, pair: training.Pair) -> None:
    seen = set()

    class Watch(Defense):
        def loss(self, batch: Batch, step: int) -> Tensor:
            seen.add((batch.epoch, batch.epochs))
            return super().loss(batch, step)

    trained(model, pair, Watch())
    assert seen == {(0, 2), (1, 2)}


def test_divergence_against_torch() -> None:
    random = torch.Generator().manual_seed(0)
    mu = torch.randn(5, 3, dtype=torch.float64, generator=random)
    sigma = torch.rand(5, 3, dtype=torch.float64, generator=random) + 1e-3
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mu, sigma), normal(0.0, 1.0)).sum(1)
    assert torch.allclose(divergence(mu, sigma), expected)
    assert divergence(torch.zeros(2, 3), torch.ones(2, 3)).tolist() == [0, 0]
    assert divergence(torch.zeros(1, 1), torch.zeros(1, 1)).isfinite().all()


def test_mid_adds_the_mean_divergence_of_the_batch(model: Classifier) -> None:
    losses = []
    for beta in (0.0, 0.5):
        plan, tried = MID(beta=beta, dim=3), copy.deepcopy(model)
        torch.manual_seed(0)
        plan.prepare(tried, SHAPE)
        given = batch()
        tried(given.images)
        losses.append(plan.loss(given, 0).item())
        h = tried.head.encode(tried.embed(given.images)).double()  # type: ignore[union-attr]
    slow = 0.0
    for row in h.tolist():
        for mu, s in zip(row[:3], row[3:], strict=True):
            sigma = math.log1p(math.exp(s - 5))
            slow += (mu * mu + sigma * sigma - 1) / 2 - math.log(sigma)
    assert losses[1] - losses[0] == pytest.approx(0.5 * slow / 6, rel=1e-4)


def test_mid_halves_the_features_and_wants_a_head(model: Classifier) -> None:
    MID().prepare(model, SHAPE)
    assert heads.name(model.head) == "variational:4" and model.num_classes == 3
    with pytest.raises(InputError, match="mid: Linear; allowed: a classifier"):
        MID().prepare(nn.Linear(2, 2), SHAPE)


@pytest.mark.parametrize("measure", ["hsic", "coco"])
@pytest.mark.parametrize("kernel", ["linear", "gaussian"])
def test_bido_loss_by_its_equation(measure: str, kernel: str, model: Classifier) -> None:
    plan = BiDO(LAYERS, lambda_x=0.3, lambda_y=0.7, measure=measure, kernel=kernel, width=0.5, eps=0.1)
    plan.prepare(model, SHAPE)
    given = batch()
    model(given.images)
    found = plan.loss(given, 0)
    plan.finish(model)

    def gram(a: Tensor) -> Tensor:
        flat = a.flatten(1)
        linear = kernel == "linear"
        return dependence.linear_kernel(flat) if linear else dependence.gaussian_kernel(flat, 0.5)

    def d(a: Tensor, b: Tensor) -> float:
        value = dependence.coco(a, b) if measure == "coco" else dependence.normalised_hsic(a, b, 0.1)
        return value.item()

    stage1 = model.trunk[:2](model.normalise(given.images))
    hidden = [gram(stage1), gram(model.trunk[2](stage1))]
    x, y = gram(given.images), dependence.linear_kernel(torch.eye(4)[given.labels])
    expected = Defense().loss(given, 0).item()
    expected += sum(0.3 * d(x, z) - 0.7 * d(z, y) for z in hidden)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    found.backward()
    assert all(p.grad.isfinite().all() for p in model.trunk.parameters() if p.grad is not None)


@pytest.mark.parametrize("measure", ["hsic", "coco"])
def test_bido_moves_both_dependences_where_it_should(
    measure: str, model: Classifier, pair: training.Pair
) -> None:
    """Against plain training: less of the image by lambda_x alone, more of the label by lambda_y alone."""

    def value(done: Classifier, other: Tensor) -> float:
        z = dependence.gaussian_kernel(done.trunk[:3](done.normalise(pair[0])).flatten(1), 5.0)
        d = dependence.coco(z, other) if measure == "coco" else dependence.normalised_hsic(z, other, 1e-5)
        return d.item()

    x = dependence.gaussian_kernel(pair[0].flatten(1), 5.0)
    y = dependence.linear_kernel(torch.eye(3)[pair[1]])
    strength = 3000.0 if measure == "coco" else 3.0
    plain = trained(model, pair, Defense())
    less = trained(model, pair, BiDO(LAYERS[1:], strength, 0.0, measure))
    more = trained(model, pair, BiDO(LAYERS[1:], 0.0, strength, measure))
    assert value(less, x) < value(plain, x) and value(more, y) > value(plain, y)


@pytest.mark.parametrize(
    ("layers", "freeze", "said"),
    [
        (("trunk.stage7",), None, r"layers: 'trunk\.stage7' does not exist.*allowed: .*trunk\.stage2"),
        ((), None, "allowed: one or more names of modules"),
        (("trunk.stage1", "trunk.stage1"), None, "each once"),
        (("trunk.stage2", "trunk.stage1"), Freeze(cut="trunk.stage1"), r"'trunk\.stage1' lies in the frozen"),
        (("trunk.pool",), Freeze(cut="trunk"), r"'trunk\.pool' lies in the frozen front"),
    ],
)
def test_bido_refuses_layers_that_it_could_not_use(
    layers: tuple[str, ...], freeze: Freeze | None, said: str, model: Classifier, pair: training.Pair
) -> None:
    before = copy.deepcopy(model)
    with pytest.raises(InputError, match=said):
        training.train(model, pair, pair, RECIPE, BiDO(layers, freeze=freeze), seed=0)
    assert equal(model, before) and hooks(model) == 0
