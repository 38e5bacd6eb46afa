"""LOMMA: its loss against a loop over models, its statistics against numpy, and whom its students see."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mipriv.attacks.inversion import Reconstructions
from mipriv.attacks.inversion.lomma import LOMMA, Learnt
from mipriv.attacks.search import students
from mipriv.attacks.search.students import Distillation, Surrogates
from mipriv.attacks.search.target_gan import TargetRecipe
from mipriv.errors import InputError
from mipriv.models import weights
from mipriv.models.classifiers import Classifier, build
from mipriv.models.classifiers.slim_resnet import SlimResNet
from mipriv.models.generators import Generator
from tests.science.conftest import CLASSES, SHAPE

SMALL = Distillation(students=("slim_resnet", "slim_densenet"), epochs=1, batch_size=16)
FEW = Distillation(students=("slim_densenet",), epochs=1, batch_size=16)
GAN = TargetRecipe(steps=2, critic_steps=1, batch_size=6, kernels=3, kernel_dim=2)
HOSTS = ["gmi", "kedmi"]


@pytest.fixture
def public(faces: Tensor) -> Tensor:
    return faces.double()


@pytest.fixture
def searched(host: str, request: pytest.FixtureRequest) -> Generator:
    """The prior of a host."""
    prior: Generator = request.getfixturevalue({"gmi": "prior", "kedmi": "gan"}[host])
    return prior


def attack(host: str, **knobs: object) -> LOMMA:
    small = {"keep": 2, "steps": 2, "chunk": 3, "distillation": FEW, "gan": GAN}
    return LOMMA(host=host, **{**small, **knobs})  # type: ignore[arg-type]


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def spreads(made: Surrogates) -> list[tuple[Tensor, Tensor]]:
    return [(spread.mean, spread.deviation) for spread in made.spreads]  # type: ignore[misc]


def test_statistics_are_means_and_deviations_of_public_features(victim: Classifier, public: Tensor) -> None:
    """True ones, of each model: released code saves deviations under the name of log variances."""
    made, logits, _ = students.learn(victim, public, SMALL, seed=1)
    assert torch.allclose(logits, victim(public), atol=1e-12)
    models = made.company(victim)
    assert len(models) == 3 and models[0] is victim
    for model, (mean, deviation) in zip(models, spreads(made), strict=True):
        with torch.no_grad():
            features = model.embed(public).numpy()
        assert np.allclose(mean.numpy(), features.mean(0), atol=1e-9)
        assert np.allclose(deviation.numpy(), features.std(0), atol=1e-9)


def test_statistics_are_of_so_many_images_at_most(victim: Classifier, public: Tensor) -> None:
    one = Distillation(students=(), images=1)
    ((mean, deviation),) = spreads(students.learn(victim, public, one, seed=1)[0])
    with torch.no_grad():
        features = victim.embed(public)
    assert (features - mean).abs().amax(1).min() < 1e-12, "one of the images"
    assert deviation.abs().max() == 0


def test_a_target_is_the_mean_or_a_draw_around_it_by_the_identity(victim: Classifier, public: Tensor) -> None:
    made, _, _ = students.learn(victim, public, FEW, seed=1)
    identities = torch.tensor([4, 0, 2])
    still = made.targets(identities, 3, sample=False)
    for table, (mean, _) in zip(still, spreads(made), strict=True):
        assert all(torch.equal(table[i], mean) for i in identities)
    drawn, again = (made.targets(identities, 3, sample=True) for _ in range(2))
    (alone, _), (other, _) = (made.targets(torch.tensor([2]), seed, sample=True) for seed in (3, 4))
    assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))
    assert torch.equal(drawn[0][2], alone[2]) and not torch.equal(alone[2], other[2])
    assert not torch.equal(drawn[0][2], drawn[0][4])
    many = made.targets(torch.arange(3000), 3, sample=True)
    for table, (mean, deviation) in zip(many, spreads(made), strict=True):
        assert torch.allclose(table.std(0), deviation, rtol=0.1, atol=1e-12)
        assert ((table.mean(0) - mean).abs() <= 5 * deviation / 3000**0.5 + 1e-12).all()


def test_the_identity_loss_is_a_loop_over_models(victim: Classifier, public: Tensor) -> None:
    made, _, _ = students.learn(victim, public, SMALL, seed=1)
    models = made.company(victim)
    images, labels = public[:4], torch.tensor([0, 5, 2, 2])
    tables = made.targets(labels, 3, sample=True)
    found = LOMMA(feature_weight=0.7).identity_loss(models, [t[labels] for t in tables], images, labels)
    for i, label in enumerate(labels.tolist()):
        total = 0.0
        for model, table in zip(models, tables, strict=True):
            h, f = model.embed(images)[i].tolist(), model(images)[i].tolist()
            distance = sum((a - b) ** 2 for a, b in zip(h, table[label].tolist(), strict=True)) / len(h)
            total += -f[label] + 0.7 * distance
        assert found[i].item() == pytest.approx(total / len(models), rel=1e-9)


@pytest.mark.parametrize("host", HOSTS)
def test_a_search_descends_the_loss_of_its_host(
    host: str, victim: Classifier, searched: Generator, public: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 * identity - realism of the space: that of the prior for gmi, of the victim's GAN for kedmi."""
    made = attack(host, regulariser="sample")
    known = made.study(victim, searched, public, seed=1).knowledge
    assert isinstance(known, Learnt)
    space = known.gan if host == "kedmi" else searched
    assert space is not None and (known.gan is None) is (host == "gmi")
    losses: list[Tensor] = []
    search = type(made._search())

    def spy(self: object, prior: Generator, identities: Tensor, objective, *args, **kwargs):  # type: ignore[no-untyped-def]
        assert prior is space
        z = torch.randn(2, prior.latent_dim, dtype=torch.float64)
        losses.extend((objective(z, prior(z), torch.tensor([3, 1])), z))
        return original(self, prior, identities, objective, *args, **kwargs)

    original = search.__call__
    monkeypatch.setattr(search, "__call__", spy)
    made(victim, searched, torch.tensor([3, 1]), knowledge=known, seed=5)
    loss, z = losses
    labels, images = torch.tensor([3, 1]), space.eval()(z)
    tables = known.surrogates.targets(labels, 5, sample=True)
    identity = made.identity_loss(
        known.surrogates.company(victim), [t[labels] for t in tables], images, labels
    )
    assert torch.allclose(loss, 100 * identity - space.realism(z, images), rtol=1e-9)


def run(made: LOMMA, victim: Classifier, prior: Generator, public: Tensor, who: list[int]) -> Reconstructions:
    known = made.study(victim, prior, public, seed=1).knowledge
    assert isinstance(known, Learnt)
    return made(victim, prior, torch.tensor(who), knowledge=known, seed=5)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("regulariser", ["mean", "sample"])
def test_a_row_alone_equals_the_row_among_many(
    host: str, regulariser: str, victim: Classifier, searched: Generator, public: Tensor
) -> None:
    """With either host: the conformance test knows one of them."""
    made = attack(host, regulariser=regulariser)
    together = run(made, victim, searched, public, [5, 1, 3])
    alone = run(made, victim, searched, public, [1])
    assert torch.allclose(together.latents[1], alone.latents[0], rtol=0, atol=1e-8)
    assert torch.allclose(together.scores[1], alone.scores[0], rtol=0, atol=1e-8)


@pytest.mark.parametrize("host", HOSTS)
def test_optimising_helps_with_either_host(
    host: str, victim: Classifier, searched: Generator, public: Tensor
) -> None:
    found = run(attack(host, steps=60, lr=0.1, chunk=100), victim, searched, public, [0, 1, 2])
    with torch.no_grad():
        ends, begins = (victim(x.flatten(0, 1)).log_softmax(1) for x in (found.images, found.start))
    targets = torch.arange(3).repeat_interleave(2)[:, None]
    assert ends.gather(1, targets).mean() > begins.gather(1, targets).mean() + 0.1


def test_students_come_nearer_to_the_victim(victim: Classifier, public: Tensor) -> None:
    recipe = Distillation(students=("slim_resnet",), epochs=6, batch_size=8)
    done: list[tuple[int, int]] = []
    made, logits, log = students.learn(victim, public, recipe, seed=1, progress=lambda *now: done.append(now))
    losses = [row["student_0_kl"] for row in log]
    assert losses[-1] < 0.5 * losses[0] and [row["step"] for row in log] == list(range(6))
    assert done == [(epoch, 6) for epoch in range(1, 7)]
    fresh = students.blank(victim, recipe, CLASSES, SHAPE)

    def divergence(surrogates: Surrogates) -> float:
        with torch.no_grad():
            said = surrogates.students[0](public).log_softmax(1)
        return nn.functional.kl_div(said, logits.softmax(1), reduction="batchmean").item()

    assert divergence(made) < 0.5 * divergence(fresh)


def test_an_epoch_of_distillation_is_kl_from_victim_to_student_by_sgd() -> None:
    """One batch, one step, a linear student: the gradient of KL(p || q) in its logits is q - p."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(5, 4, dtype=torch.float64, generator=random)
    logits = torch.randn(5, 3, dtype=torch.float64, generator=random)
    student = nn.Linear(4, 3, bias=False).double()
    before = student.weight.detach().clone()
    recipe = Distillation(students=(), epochs=1, batch_size=5, lr=0.3)
    (loss,) = students.distil(student, x, logits, recipe, torch.Generator().manual_seed(1))
    p, q = logits.softmax(1), (x @ before.T).softmax(1)
    expected = sum(p[i, k] * (p[i, k] / q[i, k]).log() for i in range(5) for k in range(3)) / 5
    assert loss == pytest.approx(float(expected), rel=1e-9)
    assert torch.allclose(student.weight, before - 0.3 * (q - p).T @ x / 5, atol=1e-12)


def test_students_see_public_images_and_nothing_else(
    victim: Classifier, public: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Tensor] = []
    original = Classifier.embed

    def spy(self: Classifier, x: Tensor) -> Tensor:
        shown.append(x.detach())
        return original(self, x)

    monkeypatch.setattr(Classifier, "embed", spy)
    studied = LOMMA(distillation=SMALL).study(victim, nn.Identity(), public, seed=1)  # type: ignore[arg-type]
    known = {image.numpy().tobytes() for image in public}
    assert {image.numpy().tobytes() for batch in shown for image in batch} == known
    assert studied.queries == len(public)


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("host", HOSTS)
def test_each_victim_has_its_own_statistics_and_nothing_is_kept_between_studies(
    host: str,
    victim: Classifier,
    searched: Generator,
    public: Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Released code keeps statistics by data set and architecture: a defended victim got another's."""
    monkeypatch.chdir(tmp_path)
    made = attack(host)
    other = build(SlimResNet(widths=(4, 8), depth=1), CLASSES, SHAPE, seed=4).double().eval()
    one = made.study(victim, searched, public, seed=1).knowledge
    two = made.study(other, searched, public, seed=1).knowledge
    assert isinstance(one, Learnt) and isinstance(two, Learnt)
    for (mean, deviation), (mean_2, deviation_2) in zip(
        spreads(one.surrogates), spreads(two.surrogates), strict=True
    ):
        assert not torch.equal(mean, mean_2) and not torch.equal(deviation, deviation_2)
    assert same(one, made.study(victim, searched, public, seed=1).knowledge), "after another victim, too"
    assert not files(tmp_path)


@pytest.mark.parametrize("training", [True, False])
def test_the_study_leaves_the_victim_and_does_not_see_its_mode(
    training: bool, victim: Classifier, gan: Generator, public: Tensor
) -> None:
    made = attack("kedmi")
    expected = made.study(victim.eval(), gan, public, seed=1).knowledge
    victim.train(training)
    before = {k: v.clone() for k, v in victim.state_dict().items()}
    torch.manual_seed(3)
    found = made.study(victim, gan, public, seed=1).knowledge
    assert same(found, expected), "same bytes whatever the mode, and whatever was drawn before"
    assert all(torch.equal(v, before[k]) for k, v in victim.state_dict().items())
    assert all(module.training is training for module in victim.modules())
    assert all(p.grad is None for p in [*victim.parameters(), *gan.parameters(), *found.parameters()])
    assert not any(module.training for module in found.modules())


@pytest.mark.parametrize("host", HOSTS)
def test_what_was_learnt_survives_a_file(
    host: str, victim: Classifier, searched: Generator, public: Tensor, tmp_path: Path
) -> None:
    made = attack(host)
    done: list[tuple[int, int]] = []
    known = made.study(victim, searched, public, seed=1, progress=lambda *now: done.append(now)).knowledge
    assert done[-1][0] == done[-1][1] == {"gmi": 1, "kedmi": 3}[host] and done == sorted(done)
    weights.save(known, tmp_path / "knowledge.safetensors")
    blank = made.blank(victim, searched, CLASSES, SHAPE)
    weights.load_into(blank, tmp_path / "knowledge.safetensors")
    assert same(known, blank) and not any(module.training for module in blank.modules())


def test_the_published_students_are_found_and_built() -> None:
    names = [architecture.name for architecture in Distillation().architectures()]  # type: ignore[attr-defined]
    assert names == ["efficientnet_b0", "efficientnet_b1", "efficientnet_b2"]
    first = Distillation(students=Distillation().students[:1])
    with torch.no_grad():
        model = Surrogates(first, CLASSES, SHAPE, 8).eval().students[0]
        assert model(torch.rand(2, *SHAPE)).shape == (2, CLASSES)


def test_what_it_cannot_use_is_refused(victim: Classifier, prior: Generator, public: Tensor) -> None:
    unembedded = nn.Sequential(nn.Flatten(), nn.Linear(256, CLASSES))
    for call in (
        lambda: attack("gmi").study(unembedded, prior, public, seed=1),
        lambda: attack("gmi").blank(unembedded, prior, CLASSES, SHAPE),
    ):
        with pytest.raises(InputError, match=r"^victim: Sequential; allowed: a Classifier, which embeds$"):
            call()
    for call in (
        lambda: attack("kedmi").study(victim, prior, public, seed=1),
        lambda: attack("kedmi").blank(victim, prior, CLASSES, SHAPE),
    ):
        with pytest.raises(InputError, match=r"^prior: LinearGaussian; allowed: a gan$"):
            call()
    for knobs, message in (
        ({"host": "ppa"}, r"host: 'ppa' does not exist; allowed: gmi, kedmi"),
        ({"regulariser": "median"}, "regulariser: 'median' does not exist"),
        ({"steps": 0}, "steps: 0; allowed: 1 or more"),
    ):
        with pytest.raises(InputError, match=message):
            LOMMA(**knobs)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="classifier: 'slim_reznet' does not exist"):
        Distillation(students=("slim_reznet",))
    with pytest.raises(InputError, match="torchvision model: 'efficientnet_b99' does not exist"):
        Distillation(students=("torchvision:efficientnet_b99",))
