"""LOMMA: its loss against a loop over models, its searches, and whom its students see."""

from pathlib import Path

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
