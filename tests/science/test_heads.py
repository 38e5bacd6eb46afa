"""Heads, the cards that name them, and taps on hidden outputs."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv import plugin
from mipriv.errors import InputError
from mipriv.models import checkpoint, cut, heads, taps
from mipriv.models.checkpoint import Card
from mipriv.models.classifiers import Classifier, build
from mipriv.models.fold import folded
from mipriv.models.heads import VariationalHead, posterior
from mipriv.models.taps import Taps

SHAPE, KNOBS = (1, 16, 16), {"widths": (4, 8), "depth": 1}


@pytest.fixture
def model() -> Classifier:
    """A bottleneck of 3 between 8 features and 5 classes; normalisation has seen some data."""
    made = build(plugin.load("classifier", "slim_resnet", **KNOBS), 5, SHAPE, seed=0)
    made.head = heads.make("variational:3", made.head.in_features, 5)
    with torch.no_grad():
        made(torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(0)))
    return made


def test_the_posterior_by_hand() -> None:
    encoded = torch.tensor([[1.0, -2.0, 0.0, 7.0]])
    mu, sigma = posterior(encoded)
    assert mu.tolist() == [[1.0, -2.0]]
    assert sigma[0].tolist() == pytest.approx([math.log1p(math.exp(-5)), math.log1p(math.exp(2))], rel=1e-5)


def test_the_mean_decides_in_evaluation_and_noise_of_the_right_size_in_training() -> None:
    head = VariationalHead(4, 2, 3)
    h = torch.randn(1, 4).expand(20_000, 4)
    mu, sigma = posterior(head.encode(h[:1]))
    mean = F.linear(mu, head.decide.weight, head.decide.bias)
    head.eval()
    assert torch.allclose(head(h[:7]), mean.expand(7, 3), atol=1e-6)
    head.train()
    with torch.no_grad():
        head.encode.bias[2:] += 5  # a visible spread
        _, sigma = posterior(head.encode(h[:1]))
        torch.manual_seed(0)
        drawn = head(h)
    spread = (head.decide.weight.square() @ sigma[0].square()).sqrt()
    assert torch.allclose(drawn.mean(0), mean[0], atol=0.03)
    assert torch.allclose(drawn.std(0), spread, rtol=0.03)


def test_everything_knows_the_variational_head(model: Classifier, tmp_path: Path) -> None:
    assert model.num_classes == 5 and heads.name(model.head) == "variational:3"
    order = [leaf.name for leaf in cut.execution_order(model, SHAPE)]
    assert order[-2:] == ["head.encode", "head.decide"]
    x = torch.rand(4, *SHAPE)
    assert torch.allclose(folded(model, SHAPE)(x), model.eval()(x), rtol=1e-3, atol=1e-4)
    card = Card("classifier", "slim_resnet", KNOBS, SHAPE, 5, {}, heads.name(model.head))
    checkpoint.save(model, card, tmp_path)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    again = checkpoint.load_classifier(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state), "reading a model draws from nobody's generator"
    assert torch.equal(again(x), model(x)) and isinstance(again.head, VariationalHead)


def test_a_card_of_before_there_were_heads_is_a_linear_one(tmp_path: Path) -> None:
    plain = build(plugin.load("classifier", "slim_resnet", **KNOBS), 5, SHAPE, seed=0).eval()
    checkpoint.save(plain, Card("classifier", "slim_resnet", KNOBS, SHAPE, 5, {}), tmp_path)
    values = json.loads((tmp_path / checkpoint.CARD).read_text())
    assert values.pop("head") == "linear"
    (tmp_path / checkpoint.CARD).write_text(json.dumps(values))
    x = torch.rand(2, *SHAPE)
    assert torch.equal(checkpoint.load_classifier(tmp_path)(x), plain(x))


def test_weights_under_a_card_of_another_head_are_refused(model: Classifier, tmp_path: Path) -> None:
    for head in ("linear", "variational:4"):
        checkpoint.save(model, Card("classifier", "slim_resnet", KNOBS, SHAPE, 5, {}, head), tmp_path)
        with pytest.raises(InputError, match="tensor 'head"):
            checkpoint.load_classifier(tmp_path)


@pytest.mark.parametrize("name", ["variational", "variational:0", "variational:-1", "variational:x", "mlp"])
def test_unknown_heads_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="allowed: linear, variational:k with k from 1"):
        heads.make(name, 4, 2)


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


class Overwriting(nn.Module):
    """A linear layer whose output the activation behind it overwrites; one layer is never reached."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.idle = nn.Linear(4, 3), nn.Linear(3, 2), nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 1, 2, 2] to [n, 2]."""
        out: Tensor = self.second(F.relu(self.first(x.flatten(1)), inplace=True))
        return out


def test_a_tap_gives_what_the_module_put_out_once_and_leaves() -> None:
    model, x = Overwriting(), torch.randn(6, 1, 2, 2)
    kept = Taps(model, ["first"])
    model(x)
    with torch.no_grad():
        model(torch.zeros(1, 1, 2, 2))
    output = kept.take()["first"]
    assert torch.equal(output, model.first(x.flatten(1))) and output.min() < 0
    output.sum().backward()
    assert model.first.weight.grad is not None
    assert kept.take().keys() <= {"first"}
    kept.remove()
    model(x)
    assert not hooks(model)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "allowed: one or more"),
        (["first", "first"], "each once"),
        (["frist"], r"'frist' does not exist \(did you mean 'first'\?\); allowed: first, idle, second"),
        ([""], "'' does not exist"),
        (["idle"], "'idle' puts out no tensor"),
    ],
)
def test_a_probe_refuses_what_no_tap_could_read(names: list[str], said: str) -> None:
    model = Overwriting()
    with pytest.raises(InputError, match=said):
        taps.probe(model, names, (1, 2, 2))
    assert not hooks(model)


def test_a_probe_leaves_the_model_alone(model: Classifier) -> None:
    model.trunk.eval()
    modes = [m.training for m in model.modules()]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        outputs = taps.probe(model, ["trunk.stem", "head"], SHAPE)
    assert outputs["trunk.stem"].shape == (1, 4, 8, 8) and outputs["head"].requires_grad
    assert [m.training for m in model.modules()] == modes and not hooks(model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
