"""Students of LOMMA: their statistics against numpy, their distillation against its gradient by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mipriv.attacks.search import students
from mipriv.attacks.search.students import Distillation, Surrogates
from mipriv.models.classifiers import Classifier
from tests.science.conftest import CLASSES, SHAPE

SMALL = Distillation(students=("slim_resnet", "slim_densenet"), epochs=1, batch_size=16)
FEW = Distillation(students=("slim_densenet",), epochs=1, batch_size=16)


@pytest.fixture
def public(faces: Tensor) -> Tensor:
    return faces.double()


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


def test_the_published_students_are_found_and_built() -> None:
    names = [architecture.name for architecture in Distillation().architectures()]  # type: ignore[attr-defined]
    assert names == ["efficientnet_b0", "efficientnet_b1", "efficientnet_b2"]
    first = Distillation(students=Distillation().students[:1])
    with torch.no_grad():
        model = Surrogates(first, CLASSES, SHAPE, 8).eval().students[0]
        assert model(torch.rand(2, *SHAPE)).shape == (2, CLASSES)
