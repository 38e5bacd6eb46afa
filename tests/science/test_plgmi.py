"""PLG-MI: the choice of pseudo-labels, the conditional GAN against its formulas, and what a study may see."""

import pytest
import torch
from torch import Tensor, nn

from mipriv.attacks.inversion.plgmi import PLGMI
from mipriv.attacks.search import conditional_gan
from mipriv.attacks.search.conditional_gan import ConditionalGenerator, ProjectionCritic
from mipriv.attacks.search.identity import max_margin
from mipriv.attacks.search.rows import Rows
from mipriv.data.augment import Augment
from mipriv.errors import InputError
from mipriv.models.classifiers import Classifier
from mipriv.models.generators import Generator
from mipriv.models.generators.gan import DCGAN
from tests.science.conftest import CLASSES, SHAPE

STILL = Augment(flip=0.0)


def small(
    study_steps: int = 2, margin_weight: float = 0.2, view: Augment = STILL, restarts: int = 2, steps: int = 2
) -> PLGMI:
    """A study and a search of a few steps."""
    return PLGMI(
        top=4,
        study_steps=study_steps,
        critic_steps=2,
        batch_size=8,
        margin_weight=margin_weight,
        view=view,
        restarts=restarts,
        steps=steps,
    )


@pytest.fixture
def public(faces: Tensor) -> Tensor:
    """Public images, in float64."""
    return faces.double()


class Watched(nn.Module):
    """A victim that keeps what it was shown."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.shown: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        """As the inner model."""
        self.shown.append(images.detach().clone())
        logits: Tensor = self.inner(images)
        return logits


@pytest.mark.parametrize(("images", "top"), [(50, 7), (10, 7), (5, 7)])
def test_each_class_takes_its_most_believed_images_whatever_others_take(images: int, top: int) -> None:
    """Also with fewer images than top * K, and than top."""
    confidence = torch.rand(images, 6, generator=torch.Generator().manual_seed(images))
    chosen = conditional_gan.top_per_class(confidence, top)
    assert chosen.shape == (6, min(top, images))
    for k in range(6):
        ranked = sorted(range(images), key=lambda i: -confidence[i, k].item())
        assert chosen[k].tolist() == ranked[:top]


def test_hinge_losses_are_their_formulas() -> None:
    real, fake = [-2.0, 0.5, 3.0], [-3.0, -0.5, 0.25, 2.0]
    wanted = sum(max(0.0, 1 - s) for s in real) / 3 + sum(max(0.0, 1 + s) for s in fake) / 4
    found = conditional_gan.critic_hinge(torch.tensor(real), torch.tensor(fake))
    assert found.item() == pytest.approx(wanted)


def test_untrained_every_class_is_the_prior(gan: DCGAN, victim: Classifier) -> None:
    z = torch.randn(9, gan.latent_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    made = PLGMI().blank(victim, gan, CLASSES, SHAPE)
    assert not made.training
    for label in range(CLASSES):
        assert torch.allclose(made(z, torch.full((9,), label)), gan(z), rtol=0, atol=1e-12)
    gan.train(), made.train()
    assert torch.allclose(made(z, torch.arange(9) % CLASSES), gan(z), atol=1e-12), "nor by batch statistics"


def test_a_class_moves_by_its_own_gain_and_bias(gan: DCGAN) -> None:
    made = ConditionalGenerator(gan, 3).eval()
    z = torch.randn(4, gan.latent_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 1])
    before = made(z, labels)
    norm = made.up[0]
    with torch.no_grad():
        norm.gain[1] += 1  # type: ignore[operator]
    moved = (made(z, labels) - before).flatten(1).abs().amax(1) > 0
    assert moved.tolist() == [False, True, False, True]
    own = {name.rpartition(".")[2] for name, _ in norm.named_parameters()}
    assert own == {"gain", "bias"}, "no affine values that classes share"


def test_the_critic_projects_and_its_weights_have_norm_one() -> None:
    torch.manual_seed(0)
    critic = ProjectionCritic(SHAPE, 4, 5)
    images = torch.rand(6, *SHAPE)
    for _ in range(200):
        critic(images, torch.zeros(6, dtype=torch.long))  # power iterations
    critic.eval()
    weights = [critic.score.weight, critic.classes.weight, *(m.weight for m in critic.down[::2])]
    for weight in weights:
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-2)  # type: ignore[operator]
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    x = images
    for layer in critic.down:
        x = layer(x)
    for score, phi, label in zip(critic(images, labels), x.sum((2, 3)), labels, strict=True):
        wanted = critic.score.weight[0] @ phi + critic.score.bias[0] + critic.classes.weight[label] @ phi  # type: ignore[index]
        assert score.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_a_study_sees_public_images_and_what_it_made_itself(
    gan: DCGAN, victim: Classifier, public: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The victim: public images once, then fakes. The critic: public images as they are, and fakes."""
    judged: list[tuple[Tensor, Tensor]] = []
    plain = ProjectionCritic.forward

    def watched(self: ProjectionCritic, images: Tensor, labels: Tensor) -> Tensor:
        judged.append((images.detach().clone(), labels))
        return plain(self, images, labels)

    monkeypatch.setattr(ProjectionCritic, "forward", watched)
    asked = Watched(victim)
    studied = small(view=Augment(jitter=0.2, area=(0.5, 1.0))).study(asked, gan, public, seed=3)
    assert studied.queries == sum(map(len, asked.shown)) == len(public) + 2 * 8
    assert torch.equal(torch.cat(asked.shown)[: len(public)], public)
    members = conditional_gan.top_per_class(victim(public).softmax(1), 4)
    # Each step: critic twice on real and fake, then the generator's fakes.
    assert len(judged) == 2 * (2 * 2 + 1)
    for place, (images, labels) in enumerate(judged):
        real = place % 5 in (0, 2)
        for image, label in zip(images, labels, strict=True):
            rows = [i for i, other in enumerate(public) if torch.equal(image, other)]
            assert bool(rows) is real, "the critic sees public images without a view"
            assert not real or rows[0] in members[label].tolist(), "under labels that the victim gave"


def test_a_study_leaves_prior_and_victim_and_moves_its_own(
    gan: DCGAN, victim: Classifier, public: Tensor
) -> None:
    before = {name: value.clone() for name, value in gan.state_dict().items()}
    victim.train()
    studied = small().study(victim, gan, public, seed=3)
    assert victim.training and all(torch.equal(v, before[k]) for k, v in gan.state_dict().items())
    knowledge = studied.knowledge
    assert not knowledge.training and all(p.grad is None for p in knowledge.parameters())
    z, zeros = torch.zeros(1, gan.latent_dim, dtype=torch.float64), torch.zeros(1, dtype=torch.long)
    assert not torch.allclose(knowledge(z, zeros), gan(z))
    assert [row["step"] for row in studied.log] == [0, 1]
    assert set(studied.log[0]) == {"step", "critic_loss", "generator_loss", "penalty"}


def test_a_study_sees_its_victim_in_evaluation_mode(gan: DCGAN, victim: Classifier, public: Tensor) -> None:
    """The knowledge is the same whatever mode the victim was left in."""
    one = small().study(victim.eval(), gan, public, seed=3).knowledge.state_dict()
    two = small().study(victim.train(), gan, public, seed=3).knowledge.state_dict()
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_knowledge_goes_through_its_weights(gan: DCGAN, victim: Classifier, public: Tensor) -> None:
    knowledge = small().study(victim, gan, public, seed=3).knowledge
    copy = small().blank(victim, gan, CLASSES, SHAPE)
    copy.load_state_dict(knowledge.state_dict(), strict=True)
    z = torch.randn(6, gan.latent_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(copy(z, torch.arange(6)), knowledge(z, torch.arange(6)))


def test_the_margin_draws_the_study_towards_the_victims_classes(
    gan: DCGAN, victim: Classifier, public: Tensor
) -> None:
    z = torch.randn(120, gan.latent_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(120) % CLASSES
    margin = {}
    for weight in (0.0, 5.0):
        knowledge = small(study_steps=40, margin_weight=weight).study(victim, gan, public, seed=3).knowledge
        with torch.no_grad():
            margin[weight] = max_margin(victim(knowledge(z, labels)), labels).mean().item()
    assert margin[5.0] < margin[0.0] - 0.1


def test_the_search_is_adam_on_the_margin_of_the_class(
    gan: DCGAN, victim: Classifier, public: Tensor
) -> None:
    attack = small(restarts=1, steps=3)
    knowledge = attack.study(victim, gan, public, seed=3).knowledge
    found = attack(victim, gan, torch.tensor([2, 5]), knowledge=knowledge, seed=8)
    labels = torch.tensor([2, 5])
    z = Rows.of(labels, 1, 8).normal(gan.latent_dim, name="start")
    mean, square = torch.zeros_like(z), torch.zeros_like(z)
    knowledge.requires_grad_(False)
    for step in range(1, 4):
        z.requires_grad_()
        # A view that moves nothing still samples by a grid: equal up to rounding.
        (slope,) = torch.autograd.grad(max_margin(victim(knowledge(z, labels)), labels).sum(), z)
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        move = (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
        z = (z - 0.1 * move).detach()
    assert torch.allclose(found.latents[:, 0], z, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(found.images[:, 0], knowledge(found.latents[:, 0], labels))
        assert torch.allclose(found.scores[:, 0], -max_margin(victim(found.images[:, 0]), labels))


def test_images_are_the_knowledge_of_their_own_identity(
    gan: DCGAN, victim: Classifier, public: Tensor
) -> None:
    attack = small(restarts=3)
    knowledge = attack.study(victim, gan, public, seed=3).knowledge
    found = attack(victim, gan, torch.tensor([4, 1]), knowledge=knowledge, seed=8)
    labels = torch.tensor([4, 4, 4, 1, 1, 1])
    with torch.no_grad():
        assert torch.allclose(found.images.flatten(0, 1), knowledge(found.latents.flatten(0, 1), labels))


def test_other_priors_are_refused(prior: Generator, victim: Classifier, public: Tensor) -> None:
    for call in (
        lambda: PLGMI().blank(victim, prior, CLASSES, SHAPE),
        lambda: small().study(victim, prior, public, seed=0),
    ):
        with pytest.raises(InputError, match="prior: LinearGaussian; allowed: a gan"):
            call()


def test_what_a_study_depends_on_are_knobs() -> None:
    assert set(PLGMI.learns) < set(PLGMI.__dataclass_fields__)
