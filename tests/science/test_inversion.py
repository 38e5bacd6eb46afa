"""One conformance test over the folder of inversion attacks, then what is particular to each."""

import math

import pytest
import torch
from torch import Tensor, nn

from mipriv import plugin
from mipriv.attacks.inversion import Reconstructions, offer
from mipriv.attacks.inversion.gmi import GMI
from mipriv.attacks.inversion.ppa import PPA
from mipriv.attacks.search import rows as engine
from mipriv.attacks.search.identity import LOSSES, poincare
from mipriv.attacks.search.rows import Rows
from mipriv.attacks.search.students import Distillation
from mipriv.attacks.search.target_gan import TargetRecipe
from mipriv.data.augment import Augment
from mipriv.errors import InputError
from mipriv.models.classifiers import Classifier
from mipriv.models.decoders import ConvDecoder
from mipriv.models.generators import Generator
from tests.science.conftest import CLASSES, SHAPE

TINY_GAN = TargetRecipe(steps=2, critic_steps=1, batch_size=8, kernels=3, kernel_dim=2)
# Two steps of each attack on the toy victim: the knobs that make it small. A new attack adds a line.
SMALL = {
    "brepmi": {"restarts": 2, "start_samples": 600, "points": 8, "steps": 2, "chunk": 5},
    "gmi": {"restarts": 2, "steps": 2, "chunk": 3},
    "mirror": {"samples": 20, "population": 6, "steps": 2, "keep": 2, "chunk": 4},
    "plgmi": {
        "top": 5,
        "study_steps": 2,
        "critic_steps": 1,
        "batch_size": 8,
        "restarts": 2,
        "steps": 2,
        "chunk": 3,
    },
    "kedmi": {"draws": 2, "steps": 2, "chunk": 3, "gan": TINY_GAN},
    "lomma": {
        "host": "kedmi",
        "keep": 2,
        "steps": 2,
        "regulariser": "sample",
        "chunk": 3,
        "distillation": Distillation(students=("slim_vgg",), epochs=1, batch_size=8),
        "gan": TINY_GAN,
    },
    "ppa": {"samples": 20, "candidates": 3, "steps": 2, "keep": 2, "final_views": 2, "chunk": 4},
    "tl_aware": {
        "cut": "trunk.stage1",
        "decoder": ConvDecoder(width=8, steps=60, batch_size=8, lr=1e-2, augment=Augment()),
        "components": 8,
        "samples": 20,
        "candidates": 2,
        "steps": 2,
        "chunk": 3,
    },
}
# Knobs of a longer run, where they are not these.
LONGER: dict[str, object] = {"steps": 60, "lr": 0.1}
LONG: dict[str, dict[str, object]] = {
    "brepmi": {"steps": 60, "points": 32},
    "mirror": {"steps": 40, "stop": 1.0},
}
# Fixtures of the priors that attacks need which cannot use any.
PRIORS = {"kedmi": "gan", "lomma": "gan", "plgmi": "gan"}
# The toy victim calls images of its prior only these: who is shown labels alone can begin nowhere else.
NAMED = [2, 4]
ATTACKS = plugin.names("inversion")


STUDIED = [name for name in ATTACKS if hasattr(plugin.find("inversion", name), "study")]


@pytest.fixture
def searched(name: str, request: pytest.FixtureRequest) -> Generator:
    """The prior of an attack."""
    prior: Generator = request.getfixturevalue(PRIORS.get(name, "prior"))
    return prior


def public() -> Tensor:
    """Public images of the toy domain, in float64."""
    random = torch.Generator().manual_seed(4)
    return torch.rand(24, *SHAPE, dtype=torch.float64, generator=random)


def run(
    name: str, victim: nn.Module, prior: Generator, targets: list[int], **knobs: object
) -> Reconstructions:
    """The attack on what its access grants, after its study where it has one; queries of the call alone."""
    attack = plugin.load("inversion", name, **{**SMALL[name], **knobs})
    handed, known = offer(victim, attack.access), {}
    if name in STUDIED:
        known = {"knowledge": attack.study(handed, prior, public(), seed=7).knowledge}
        if isinstance(victim, Counting):
            victim.seen = 0
    found: Reconstructions = attack(handed, prior, torch.tensor(targets), seed=11, **known)
    return found


@pytest.mark.parametrize("name", ATTACKS)
def test_shapes_and_ranges(name: str, victim: Classifier, searched: Generator) -> None:
    found = run(name, victim, searched, [4, 0, 2])
    n, k = found.scores.shape
    assert n == 3 and found.images.shape == found.start.shape == (n, k, 1, 16, 16)
    assert found.latents.shape == (n, k, searched.latent_dim)
    assert found.images.min() >= 0 and found.images.max() <= 1 and found.images.isfinite().all()
    if name not in STUDIED:  # what those search may be what they learnt
        assert torch.allclose(found.images.flatten(0, 1), searched(found.latents.flatten(0, 1)))
    assert (found.scores.diff(dim=1) <= 0).all(), "best first"
    assert not found.images.requires_grad and not found.latents.requires_grad


@pytest.mark.parametrize("name", ATTACKS)
def test_same_seed_same_result(name: str, victim: Classifier, searched: Generator) -> None:
    one, two = (run(name, victim, searched, [1, 3]) for _ in range(2))
    assert torch.equal(one.images, two.images) and torch.equal(one.scores, two.scores)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_a_row_alone_equals_the_row_among_many(
    name: str, chunk: int, victim: Classifier, searched: Generator
) -> None:
    together = run(name, victim, searched, [5, 1, 3], chunk=chunk)
    alone = run(name, victim, searched, [1])
    assert torch.allclose(together.latents[1], alone.latents[0], rtol=0, atol=1e-8)
    assert torch.allclose(together.images[1], alone.images[0], rtol=0, atol=1e-8)
    assert torch.allclose(together.scores[1], alone.scores[0], rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("training", [True, False])
def test_the_victim_is_left_as_it_was(
    name: str, training: bool, victim: Classifier, searched: Generator
) -> None:
    victim.train(training)
    victim.head.requires_grad_(False)
    before = {k: v.clone() for k, v in victim.state_dict().items()}
    wanted = [p.requires_grad for p in victim.parameters()]
    run(name, victim, searched, [0])
    assert all(torch.equal(v, before[k]) for k, v in victim.state_dict().items())
    assert [p.requires_grad for p in victim.parameters()] == wanted and victim.training is training
    assert all(p.grad is None for p in [*victim.parameters(), *searched.parameters()])


class Counting(Classifier):
    """Counts the images that it decides upon: an attack may evaluate it in parts, and ends at the head."""

    def __init__(self, inner: Classifier) -> None:
        super().__init__(inner.trunk, inner.head, inner.normalise)
        self.seen = 0
        inner.head.register_forward_pre_hook(self._count)

    def _count(self, head: nn.Module, features: tuple[Tensor]) -> None:
        self.seen += len(features[0])


@pytest.mark.parametrize("name", ATTACKS)
def test_queries_are_counted(name: str, victim: Classifier, searched: Generator) -> None:
    counting = Counting(victim)
    assert run(name, counting, searched, [4, 0]).queries == counting.seen


@pytest.mark.parametrize("name", ATTACKS)
def test_optimising_helps(name: str, victim: Classifier, searched: Generator) -> None:
    """By the victim's own belief, more steps end above where the search began."""
    access = plugin.load("inversion", name, **SMALL[name]).access
    identities = NAMED if access == "labels" else list(range(CLASSES))
    found = run(name, victim, searched, identities, **LONG.get(name, LONGER))
    targets = torch.tensor(identities).repeat_interleave(found.scores.shape[1])

    def belief(images: Tensor) -> float:
        logits: Tensor = victim(images.flatten(0, 1)).log_softmax(1)
        return logits.gather(1, targets[:, None]).mean().item()

    assert belief(found.images) > belief(found.start) + 0.1


def test_poincare_is_its_formula() -> None:
    logits = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 3, 6, 2, 2])
    for row, label, found in zip(logits, labels, poincare(logits, labels), strict=True):
        u = [x / sum(abs(y) for y in row.tolist()) for x in row.tolist()]
        v = [(1.0 if c == label else 0.0) - 1e-4 for c in range(7)]
        gap = sum((a - b) ** 2 for a, b in zip(u, v, strict=True))
        room = (1 - sum(a * a for a in u)) * (1 - sum(b * b for b in v))
        assert found.item() == pytest.approx(math.acosh(1 + 2 * gap / room), rel=1e-12)


def test_poincare_is_finite_where_one_logit_takes_the_whole_norm() -> None:
    logits = torch.tensor([[1e9, 0.0, 0.0], [0.0, 1e9, 0.0]], requires_grad=True)
    loss = poincare(logits, torch.tensor([0, 0]))
    loss.sum().backward()
    assert loss.isfinite().all() and logits.grad is not None and logits.grad.isfinite().all()
    assert loss[0] < loss[1]


def test_ppa_starts_from_the_pool_rows_that_the_victim_believes_most(
    victim: Classifier, prior: Generator
) -> None:
    found = PPA(samples=15, candidates=2, keep=2, steps=1, lr=1e-12, final_views=1)(
        victim, prior, torch.tensor([3]), seed=2
    )
    from mipriv import draws

    pool = prior.bound(draws.normal((15, prior.latent_dim), 2, "pool"))
    with torch.no_grad():
        images = prior(pool)
        belief = [
            (victim(x[None]).softmax(1)[0, 3] + victim(x.flip(-1)[None]).softmax(1)[0, 3]) / 2 for x in images
        ]
    best = sorted(range(15), key=lambda i: -belief[i])[:2]
    assert torch.allclose(found.start[0], images[best])


def test_gmi_steps_by_nesterov(victim: Classifier, prior: Generator) -> None:
    """Against the textbook form: v' = m v - lr g, z += v' + m (v' - v), clamped after every step."""
    attack = GMI(restarts=1, steps=3, lr=0.02, clip=0.7)
    found = attack(victim, prior, torch.tensor([2]), seed=5)
    z = Rows.of(torch.tensor([2]), 1, 5).normal(prior.latent_dim, name="start").clamp(-0.7, 0.7)
    v = torch.zeros_like(z)
    victim.requires_grad_(False)
    for _ in range(3):
        z.requires_grad_()
        image = prior(z)
        loss = (
            100 * nn.functional.cross_entropy(victim(image), torch.tensor([2]))
            - prior.realism(z, image).sum()
        )
        (g,) = torch.autograd.grad(loss, z)
        new = 0.9 * v - 0.02 * g
        z = (z.detach() + new + 0.9 * (new - v)).clamp(-0.7, 0.7)
        v = new
    assert torch.allclose(found.latents[0], z, atol=1e-10)


@pytest.mark.parametrize(
    "knobs", [{"keep": 5, "candidates": 3}, {"candidates": 30, "samples": 20}, {"steps": 0}]
)
def test_ppa_refuses_impossible_counts(knobs: dict[str, int]) -> None:
    with pytest.raises(InputError, match="allowed: 1"):
        plugin.load("inversion", "ppa", **{**SMALL["ppa"], **knobs})


def test_keep_best_breaks_ties_by_place() -> None:
    assert engine.keep_best(torch.tensor([[1.0, 3.0, 3.0, 2.0]]), 3).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("name", LOSSES)
def test_an_identity_loss_is_its_formula_row_by_row(name: str) -> None:
    logits = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 3, 1, 2, 3])
    for row, label, found in zip(logits.tolist(), labels.tolist(), LOSSES[name](logits, labels), strict=True):
        others = [value for place, value in enumerate(row) if place != label]
        expected = {
            "cross_entropy": math.log(sum(math.exp(value) for value in row)) - row[label],
            "max_margin": max(others) - row[label],
            "logit": -row[label],
        }
        if name in expected:  # the distance of Poincaré has a test of its own
            assert found.item() == pytest.approx(expected[name], rel=1e-12)


@pytest.mark.parametrize("access", ["scores", "labels"])
def test_a_query_answers_with_what_is_granted_and_nothing_else(access: str, victim: Classifier) -> None:
    images = torch.rand(3, *SHAPE, dtype=torch.float64, requires_grad=True)
    victim.train()
    victim.trunk.eval()
    modes = [module.training for module in victim.modules()]
    answer = offer(victim, access)(images)  # type: ignore[arg-type, operator]
    assert [module.training for module in victim.modules()] == modes
    logits = victim.eval()(images)
    wanted = logits.softmax(1) if access == "scores" else logits.argmax(1)
    assert torch.equal(answer, wanted) and not answer.requires_grad


def test_ppa_averages_the_gradient_over_its_views(victim: Classifier, prior: Generator) -> None:
    """With views that change nothing the average is one view's; with random ones it is not."""
    still = Augment(flip=0.0)
    one, four = (run("ppa", victim, prior, [1], views=v, view=still).latents for v in (1, 4))
    assert torch.allclose(one, four, atol=1e-10)
    moving = Augment(flip=0.5, area=(0.5, 1.0))
    one, four = (run("ppa", victim, prior, [1], views=v, view=moving).latents for v in (1, 4))
    assert not torch.allclose(one, four, atol=1e-6)
