"""KEDMI: its losses against loops, what its study asks and leaves, and rows that do not see each other."""

import math

import pytest
import torch
from torch import Tensor, nn

from mipriv import plugin
from mipriv.attacks.inversion.kedmi import KEDMI
from mipriv.attacks.search import target_gan
from mipriv.attacks.search.target_gan import Discriminator, TargetGAN, TargetRecipe, closeness
from mipriv.errors import InputError
from mipriv.models.classifiers import Classifier
from mipriv.models.generators import Generator
from mipriv.models.generators.gan import DCGAN
from tests.science.conftest import CLASSES, SHAPE

TINY = TargetRecipe(steps=2, critic_steps=2, batch_size=6, kernels=3, kernel_dim=2)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def public(faces: Tensor) -> Tensor:
    return faces.double()


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def lse(row: list[float]) -> float:
    return math.log(sum(math.exp(value) for value in row))


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


def test_the_discriminator_loss_is_its_formula() -> None:
    labelled, real, fake = normal(4, 3), normal(5, 3, seed=1), normal(6, 3, seed=2)
    answers = normal(4, 3, seed=3).softmax(1)
    classes = 0.0
    for row, soft in zip(labelled.tolist(), answers.tolist(), strict=True):
        for k in range(3):
            classes -= soft[k] * (row[k] - lse(row)) / 4
    known = sum(softplus(lse(row)) - lse(row) for row in real.tolist()) / 5
    made = sum(softplus(lse(row)) for row in fake.tolist()) / 6
    found = target_gan.discriminator_loss(labelled, answers, real, fake)
    assert found.item() == pytest.approx(classes + (known + made) / 2, rel=1e-12)


def test_the_generator_loss_is_its_formula() -> None:
    fake, real, logits = normal(4, 5), normal(6, 5, seed=1), normal(4, 3, seed=2)
    gap = 0.0
    for j in range(5):
        mean_fake, mean_real = (sum(row[j] for row in rows.tolist()) / len(rows) for rows in (fake, real))
        gap += abs(mean_fake - mean_real) / 5
    entropy = 0.0
    for row in logits.tolist():
        for value in row:
            p = math.exp(value - lse(row))
            entropy -= p * math.log(p)
    found = target_gan.generator_loss(fake, real, logits, 0.3)
    assert found.item() == pytest.approx(gap + 0.3 * entropy, rel=1e-12)


def test_closeness_is_its_formula_and_an_image_is_not_compared_with_itself() -> None:
    one, other = normal(3, 2, 4), normal(5, 2, 4, seed=1)
    found = closeness(one, other)
    for i in range(3):
        for j in range(5):
            for b in range(2):
                distance = sum(abs(one[i, b, c] - other[j, b, c]).item() for c in range(4))
                assert found[i, j, b].item() == pytest.approx(math.exp(-distance), rel=1e-12)
    net = Discriminator(nn.Flatten(), 4, 3, kernels=2, kernel_dim=4).double()
    images = normal(5, 1, 2, 2, seed=2)
    features, logits = net(images)
    among = [net.among(images[[i]], net.project(features[[j for j in range(5) if j != i]])) for i in range(5)]
    assert torch.allclose(logits, torch.cat(among), atol=1e-12)


def test_realism_is_the_prior_loss_and_a_row_does_not_see_its_neighbours(
    victim: Classifier, gan: DCGAN, public: Tensor
) -> None:
    learnt = KEDMI(gan=TINY).study(victim, gan, public, seed=1).knowledge
    assert isinstance(learnt, TargetGAN)
    images = public[:4]
    found = learnt.realism(normal(4, learnt.latent_dim), images)
    for i in range(4):
        logits = learnt.discriminator.among(images[[i]], learnt.reference)[0].tolist()
        assert found[i].item() == pytest.approx(lse(logits) - softplus(lse(logits)), rel=1e-9)
    alone = learnt.realism(normal(1, learnt.latent_dim), images[[2]])
    assert torch.allclose(found[2], alone[0], atol=1e-12)
    assert learnt.reference.abs().sum() > 0
    farther = copy_with_reference(learnt, learnt.reference + 5)
    assert not torch.allclose(found, farther.realism(normal(4, learnt.latent_dim), images), atol=1e-9)


def copy_with_reference(gan: TargetGAN, reference: Tensor) -> TargetGAN:
    import copy

    other = copy.deepcopy(gan)
    other.reference.copy_(reference)
    return other


@pytest.mark.parametrize("training", [True, False])
def test_the_study_leaves_victim_and_prior_and_does_not_see_their_modes(
    training: bool, victim: Classifier, gan: DCGAN, public: Tensor
) -> None:
    """Released codes never put the victim in evaluation mode: its statistics moved with the study."""
    attack = KEDMI(gan=TINY)
    expected = attack.study(victim.eval(), gan.eval(), public, seed=1).knowledge
    victim.train(training), gan.train(training)
    victim.head.requires_grad_(False)
    before = [{k: v.clone() for k, v in model.state_dict().items()} for model in (victim, gan)]
    wanted = [p.requires_grad for p in victim.parameters()]
    found = attack.study(victim, gan, public, seed=1)
    assert same(found.knowledge, expected), "same bytes whatever the mode"
    for model, was in zip((victim, gan), before, strict=True):
        assert all(torch.equal(v, was[k]) for k, v in model.state_dict().items())
        assert all(module.training is training for module in model.modules())
        assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in victim.parameters()] == wanted
    assert not found.knowledge.training and all(p.grad is None for p in found.knowledge.parameters())


def test_the_study_is_deterministic_and_its_seed_and_victim_count(
    victim: Classifier, gan: DCGAN, public: Tensor
) -> None:
    attack = KEDMI(gan=TINY)
    torch.manual_seed(0)
    one = attack.study(victim, gan, public, seed=1).knowledge
    torch.manual_seed(1)
    assert same(one, attack.study(victim, gan, public, seed=1).knowledge)
    assert not same(one, attack.study(victim, gan, public, seed=2).knowledge)
    with torch.no_grad():
        victim.head.weight.neg_()
    assert not same(one, attack.study(victim, gan, public, seed=1).knowledge)


class Constant(nn.Module):
    """A victim that says the same of every image, and counts them."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits, self.seen = logits, 0

    def forward(self, x: Tensor) -> Tensor:
        """[n, K]."""
        self.seen += len(x)
        return self.logits.repeat(len(x), 1)


def test_the_labels_are_the_victims_answers_asked_for_once(
    gan: DCGAN, public: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = target_gan.discriminator_loss

    def spy(labelled: Tensor, answers: Tensor, real: Tensor, fake: Tensor) -> Tensor:
        seen.append(answers)
        return original(labelled, answers, real, fake)

    monkeypatch.setattr(target_gan, "discriminator_loss", spy)
    victim = Constant(normal(CLASSES))
    studied = KEDMI(gan=TINY).study(victim, gan, public, seed=1)
    assert len(seen) == TINY.steps * TINY.critic_steps
    expected = victim.logits.softmax(0).expand(TINY.batch_size, CLASSES)
    assert all(torch.equal(answers, expected) for answers in seen), "soft labels, the victim's own"
    assert studied.queries == victim.seen == len(public)


def test_the_discriminator_learns_the_victims_classes_and_the_generator_goes_on_from_the_prior(
    victim: Classifier, gan: DCGAN, public: Tensor
) -> None:
    recipe = TargetRecipe(steps=40, critic_steps=1, batch_size=16, lr=2e-3, kernels=3, kernel_dim=2)
    blank = KEDMI(gan=recipe).blank(victim, gan, CLASSES, SHAPE)
    z = normal(5, gan.latent_dim)
    assert torch.equal(blank(z), gan(z)), "it begins as the prior"
    with torch.no_grad():
        answers = victim(public).softmax(1)
    learnt, log = target_gan.learn(gan, public, answers, recipe, seed=3)

    def divergence(model: TargetGAN) -> float:
        with torch.no_grad():
            told = model.discriminator(public)[1].log_softmax(1)
        return nn.functional.kl_div(told, answers, reduction="batchmean").item()

    assert divergence(learnt) < 0.5 * divergence(blank)
    assert not torch.allclose(learnt(z), gan(z))
    assert log[-1]["step"] == recipe.steps - 1 and {"discriminator_loss", "generator_loss"} < log[0].keys()


def test_a_blank_is_filled_with_what_was_learnt(victim: Classifier, gan: DCGAN, public: Tensor) -> None:
    attack = plugin.load("inversion", "kedmi", draws=2, steps=2, gan=TINY)
    learnt = attack.study(victim, gan, public, seed=1).knowledge
    blank = attack.blank(victim, gan, CLASSES, SHAPE)
    blank.load_state_dict(learnt.state_dict(), strict=True)
    one, two = (attack(victim, gan, torch.tensor([3]), knowledge=k, seed=2) for k in (learnt, blank))
    assert torch.equal(one.images, two.images)
    assert torch.allclose(one.images[0], learnt(one.latents[0])), "the GAN of the study is searched"


def test_a_row_descends_by_its_formula(victim: Classifier, gan: DCGAN, public: Tensor) -> None:
    """100 CE + [sp(lse D) - lse D] at mu + sigma eps, Adam on mu and log sigma^2 from 0 and 1."""
    from mipriv.attacks.search.rows import Rows

    attack = KEDMI(draws=1, steps=3, gan=TINY)
    learnt = attack.study(victim, gan, public, seed=1).knowledge
    found = attack(victim, gan, torch.tensor([2]), knowledge=learnt, seed=5)
    rows = Rows.of(torch.tensor([2]), 1, 5)
    noise, last = rows.normal(3, gan.latent_dim, name="noise")[0], rows.normal(gan.latent_dim, name="draw")
    mu = torch.zeros(1, gan.latent_dim, dtype=torch.float64, requires_grad=True)
    log_variance = torch.ones_like(mu).requires_grad_()
    adam = torch.optim.Adam([mu, log_variance], 0.02)
    victim.requires_grad_(False)
    for step in range(3):
        image = learnt(mu + (log_variance / 2).exp() * noise[step])
        evidence = learnt.discriminator.among(image, learnt.reference).logsumexp(1).squeeze()
        loss = 100 * nn.functional.cross_entropy(victim(image), torch.tensor([2]))
        loss = loss + (1 + evidence.exp()).log() - evidence
        mu.grad, log_variance.grad = torch.autograd.grad(loss, [mu, log_variance])
        adam.step()
    z = mu + (log_variance / 2).exp() * last
    assert torch.allclose(found.latents[0], z, atol=1e-9)


def test_what_it_cannot_use_is_refused(victim: Classifier, prior: Generator, public: Tensor) -> None:
    for call in (
        lambda: KEDMI(gan=TINY).study(victim, prior, public, seed=1),
        lambda: KEDMI(gan=TINY).blank(victim, prior, CLASSES, SHAPE),
    ):
        with pytest.raises(InputError, match=r"^prior: LinearGaussian; allowed: a gan$"):
            call()
    with pytest.raises(InputError, match="batch_size: 1; allowed: 2 or more"):
        TargetRecipe(batch_size=1)
    with pytest.raises(InputError, match="steps: 0; allowed: 1 or more"):
        KEDMI(steps=0)
