"""Residual networks inverted: the chain is the network, equations are one-sided, solvers recover images."""

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from mipriv import plugin
from mipriv.attacks.reconstruction import Knowledge, Recovered, Sender
from mipriv.attacks.reconstruction.peel import PEEL
from mipriv.attacks.search import blockwise
from mipriv.attacks.search.blockwise import Penalty
from mipriv.attacks.search.matching import Matching, before_relu, deterministic
from mipriv.attacks.search.stages import Descent, Level
from mipriv.errors import InputError
from mipriv.models import classifiers
from mipriv.models.chain import Chain
from mipriv.models.fold import folded
from mipriv.models.split import split
from tests.science.conftest import TOY
from tests.science.toy_clients import blobs, mse

COLOUR = (3, 32, 32)
NETWORKS = {
    "slim_resnet": ("slim_resnet", {"widths": (4, 6), "depth": 2}, "trunk.stage2"),
    "resnet20, zeros": ("resnet20", TOY["resnet20"], "trunk.stage2"),
    "resnet20, projection": ("resnet20", {**TOY["resnet20"], "shortcut": "B"}, "trunk.stage2"),
    "ir152": ("ir152", {**TOY["ir152"], "depths": [3, 1, 1, 1]}, "trunk.blocks.2"),
}


def network(name: str, image_shape: tuple[int, int, int] = COLOUR) -> nn.Module:
    """A client of random weights whose normalisation has seen images, in float64."""
    arch, knobs, cut = NETWORKS[name]
    whole = classifiers.build(plugin.load("classifier", arch, **knobs), 3, image_shape, 0).double()
    whole(torch.rand(8, *image_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    return split(whole.eval(), cut, image_shape).client


def through(chain: Chain, x: Tensor) -> Tensor:
    for layer in chain.stem:
        x = layer(x)
    for block in chain.blocks:
        x = block.shortcut(x) + block.branch(x)
        x = x.relu() if block.relu else x
    for layer in chain.tail:
        x = layer(x)
    return x


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_chain_computes_what_the_network_does(name: str, fold: bool) -> None:
    client = folded(network(name), COLOUR) if fold else network(name)
    images = torch.rand(2, *COLOUR, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(through(Chain.of(client), images), client(images), atol=1e-5 if fold else 1e-12)


@pytest.mark.parametrize(("make", "layers"), [(models.resnet18, 2), (models.resnet50, 3)])
def test_networks_of_torchvision_are_chains(make: type[nn.Module], layers: int) -> None:
    client = split(make().eval(), "layer2", (3, 64, 64)).client
    chain, images = Chain.of(client), torch.rand(1, 3, 64, 64)
    assert {len(block.affine) for block in chain.blocks} == {layers} and len(chain.stem) == 4
    assert [block.identity for block in chain.blocks].count(False) == (1 if layers == 2 else 2)
    with torch.no_grad():
        assert torch.allclose(through(chain, images), client(images), atol=1e-4)


def test_what_is_no_chain_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) + x

    with pytest.raises(InputError, match="'add' is no module of a chain"):
        Chain.of(Twice())


class Front(nn.Module):
    """A layer whose ReLU, where there is one, is told in one of several ways."""

    def __init__(self, relu: str) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Conv2d(1, 4, 3).double()
        self.relu, self.module = relu, nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x.relu())  # not the last
        if self.relu == "module":
            x = self.module(x)
        return {"function": torch.relu, "method": Tensor.relu}.get(self.relu, lambda y: y)(x)


@pytest.mark.parametrize("relu", ["module", "function", "method", "none"])
def test_what_goes_into_the_last_relu_is_found(relu: str) -> None:
    front, images = Front(relu), blobs(2, 0)
    before, found = before_relu(front, images)
    assert found == (relu != "none") and torch.equal(before, front.layer(images.relu()))
    assert torch.equal(before.relu() if found else before, front(images))


def test_equations_are_one_sided_behind_a_relu_and_never_blind() -> None:
    front, truth = Front("module"), blobs(2, 0)
    observed = front(truth).detach()
    match, at = Matching(front, observed, truth.shape[1:]), torch.arange(2)
    assert match(truth, at).abs().max() < 1e-12 and match.relative(truth).max() < 1e-12
    other = (1 - truth).requires_grad_()
    gaps, before = match(other, at), front.layer(other).flatten(1)
    unit, wanted = observed.flatten(1).norm(dim=1, keepdim=True), observed.flatten(1)
    dead = (before < 0) & (wanted > 0)
    assert dead.any() and torch.allclose(gaps[dead], ((before - wanted) / unit)[dead])
    met = (before < 0) & (wanted == 0)
    assert met.any() and (gaps[met] == 0).all()
    assert torch.allclose(match.relative(other), (front(other).flatten(1) - wanted).norm(dim=1) / unit[:, 0])
    # With noise a feature below zero is observed: then no feature says that something was not above zero.
    noisy = Matching(front, observed - 0.1, truth.shape[1:])
    assert torch.allclose(
        noisy(other, at) * (observed - 0.1).flatten(1).norm(dim=1, keepdim=True),
        front(other).flatten(1) - wanted + 0.1,
    )


@pytest.mark.parametrize(
    ("module", "what"),
    [(nn.BatchNorm2d(2), "normalises by its batch"), (nn.Dropout(0.5), "drops features")],
)
def test_what_computes_anew_every_time_is_refused(module: nn.Module, what: str) -> None:
    both = nn.Sequential(nn.Identity(), module)
    with pytest.raises(InputError, match=f"client: 1 {what}; allowed: evaluation mode"):
        deterministic(both.train(), "client")
    deterministic(both.eval(), "client")


def contracting() -> nn.Module:
    """A stem, a block that strides, and two blocks x + F(x) with PReLU, F small."""
    client = network("ir152")
    chain = Chain.of(client)
    assert [block.identity for block in chain.blocks] == [False, True, True]
    with torch.no_grad():
        for block in chain.blocks[1:]:
            block.affine[1][0].weight.mul_(0.3)
    return client


def test_a_fixed_point_undoes_an_identity_block_in_few_evaluations() -> None:
    block = Chain.of(contracting()).blocks[-1]
    x = torch.randn(4, 4, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = block.module(x)
    assert blockwise.contraction(block, y, 0).max() < 1
    found = blockwise.fixed_point(block, y, memory=5, iterations=60, tolerance=1e-9)
    assert found.converged.all() and (found.x - x).square().mean() < 1e-10 and found.evaluations.max() < 20
    for other in (Chain.of(network("slim_resnet")).blocks[0], Chain.of(contracting()).blocks[0]):
        with pytest.raises(InputError, match="allowed: x \\+ F\\(x\\) alone"):
            blockwise.fixed_point(other, y, memory=5, iterations=60, tolerance=1e-9)


def test_the_penalty_of_a_block_is_as_published() -> None:
    """One step of Adam from the start moves every unknown against the sign of the written-out gradient."""
    block = Chain.of(network("slim_resnet")).blocks[0]
    y = torch.rand(1, 4, 8, 8, dtype=torch.float64)
    knobs = Penalty(steps=1, lr=0.01)
    random = torch.Generator().manual_seed(3)
    x = (torch.randn(1, 4, 8, 8, generator=random, dtype=torch.float64) * 1e-3).requires_grad_()
    p, n = (torch.randn(1, 4, 8, 8, generator=random, dtype=torch.float64) * 1e-3 for _ in range(2))
    loss = (y - block.shortcut(x) - block.affine[1](p)).square().sum()
    loss = loss + 100 * (block.affine[0](x) - p + n).square().sum() + 100 * (n * p).sum().square()
    (slope,) = torch.autograd.grad(loss, x)
    found = blockwise._split(block, y, (4, 8, 8), knobs, torch.Generator().manual_seed(3), None)
    assert torch.allclose(found, x - 0.01 * slope.sign(), atol=1e-5)


def known(shape: tuple[int, ...] = COLOUR) -> Knowledge:
    images = torch.rand(6, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    return Knowledge(images[:3], images[3:5], bounded=True)


def targets(count: int) -> Tensor:
    """Smooth colour images."""
    return (
        torch.cat([blobs(count, seed) for seed in range(3)], 1)
        .repeat_interleave(2, 2)
        .repeat_interleave(2, 3)
    )


def attack(client: nn.Module, truth: Tensor, peel: PEEL) -> Recovered:
    sender = Sender(client, lambda features, _: features, truth)
    with torch.no_grad():
        observed = client(truth)[:, None]
    return peel(sender, known(), observed, seed=0)


QUICK = {
    "levels": (Level(1e-4, 4, 10), Level(1e-6, 6, 10), Level(1e-10, 10, 10)),
    "descents": (Descent(3, 0.05, 1e-4),),
    "polish": (Level(1e-8, 2, 5),),
}


def test_images_are_recovered_behind_the_first_stage_and_rows_do_not_mix() -> None:
    whole = classifiers.build(
        plugin.load("classifier", "slim_resnet", widths=(48, 48), depth=1), 3, COLOUR, 0
    )
    front = split(whole.double().eval(), "trunk.stage1", COLOUR).client  # 12,288 features of 3,072 values
    truth = targets(3)
    found = attack(front, truth, PEEL(**QUICK))
    assert (found.images - truth).square().flatten(1).mean(1).max() < 1e-10
    assert str(found.notes["solver"]).startswith("levenberg_marquardt")
    alone = attack(front, truth[1:2], PEEL(**QUICK))
    assert torch.allclose(alone.images[0], found.images[1], atol=1e-6)


def test_closing_blocks_that_contract_are_undone_first() -> None:
    client, truth = contracting(), targets(2)
    found = attack(client, truth, PEEL(**QUICK))
    assert found.notes["undone"] == 2 and 0 < found.notes["contraction"] < 1
    block = Chain.of(client).blocks[1]
    with torch.no_grad():
        block.affine[1][0].weight.mul_(40)
    assert attack(client, truth, PEEL(**QUICK)).notes["undone"] == 1  # the last; the one before it stays


@pytest.mark.parametrize(
    ("knobs", "levels", "polished"),
    [({"lost": 0.0}, 1, False), ({"lost": 1e9}, 3, False), ({"lost": 0.0, "near": 1e9}, 1, True)],
)
def test_auto_gives_up_what_stays_far_and_polishes_what_is_near(
    knobs: dict[str, float], levels: int, polished: bool
) -> None:
    """Every stage that ran left a candidate."""
    short = {
        "levels": (Level(1e-2, 1, 2),) * 3,
        "descents": (Descent(3, 0.05, 0.1), Descent(2, 0.05, 0.1)),
        "polish": (Level(1e-8, 1, 2),) * 2,
    }
    found = attack(network("slim_resnet"), targets(2), PEEL(**short, met=0.0, **{"near": 0.0, **knobs}))
    assert len(found.log) == levels + 2 + (2 if polished else 0)


def test_passes_over_the_network_are_counted() -> None:
    steps = (Descent(7, 0.05, 0.1), Descent(4, 0.05, 0.1))
    client, truth = network("slim_resnet"), targets(2)
    found = attack(client, truth, PEEL(solver="adam", descents=steps))
    assert found.notes["passes"] == 2 * 11, "forward and backward"
    level = PEEL(solver="levenberg_marquardt", levels=(Level(1e-2, 1, 5),))
    passes = attack(client, truth, level).notes["passes"]
    assert 3 + 2 + 1 <= passes <= 3 + 2 * 5 + 4, "a linearisation, products, steps that were tried"


def test_what_begins_strong_and_ends_weak_beats_a_weak_variation() -> None:
    """Deeper cuts leave fewer equations than unknowns: the prior has to lead there."""
    whole = classifiers.build(
        plugin.load("classifier", "slim_resnet", widths=(12, 24), depth=1), 3, COLOUR, 0
    )
    client = split(whole.double().eval(), "trunk.stage2", COLOUR).client
    truth = targets(3)
    errors = []
    for weights in ((0.3, 0.1), (1e-4, 1e-5)):
        descents = tuple(Descent(60, 0.05, weight) for weight in weights)
        found = attack(client, truth, PEEL(solver="adam", descents=descents))
        errors.append(mse(found.images, truth))
    assert errors[0] < 0.8 * errors[1]


def test_the_oracle_alone_is_shown_the_truth() -> None:
    """With it the blocks behind the first do not matter: what they are given is replaced."""
    client = network("slim_resnet")
    quick = Penalty(steps=5, stem_steps=30)
    truth = targets(2)
    oracle, honest = (
        attack(client, truth, PEEL(solver="penalty", penalty=quick, oracle_reset=reset))
        for reset in (True, False)
    )
    passes = 2 * (len(Chain.of(client).blocks) * 5 + 30)
    assert oracle.notes == {"solver": "penalty, oracle reset", "oracle_reset": "true", "passes": passes}
    assert honest.notes == {"solver": "penalty, honest chain", "oracle_reset": "false", "passes": passes}
    assert not torch.allclose(oracle.images, honest.images)
    blind = Sender(client, lambda features, _: features)
    with torch.no_grad():
        observed = client(truth)[:, None]
    with pytest.raises(InputError, match="shows no true images"):
        PEEL(solver="penalty", oracle_reset=True)(blind, known(), observed, seed=0)


def test_a_client_that_shows_no_network_is_refused() -> None:
    with pytest.raises(InputError, match="shows no network; allowed: a Sender"):
        PEEL()(lambda images, _: images, known(), torch.rand(1, 1, *COLOUR), seed=0)


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"solver": "newton"}, "solver: 'newton'"),
        ({"oracle_reset": True}, "oracle_reset: true with solver 'auto'; allowed: with 'penalty'"),
        ({"levels": ()}, "levels: none"),
        ({"starts": 0}, "starts: 0"),
    ],
)
def test_knobs_that_are_not_allowed(knobs: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as refused:
        PEEL(**knobs)  # type: ignore[arg-type]
    assert said in str(refused.value)
