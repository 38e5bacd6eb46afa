"""One conformance test over the folder of auditors, and what each must not be fooled by."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from mipriv import draws, plugin
from mipriv.attacks.attributes import Known, Opened, Told
from mipriv.attacks.search.audits import DEAD, Scale
from mipriv.errors import InputError
from mipriv.metrics import attributes as metrics

AUDITORS = plugin.names("attributes")
FAST = ("knn", "logistic", "mlp", "svm")
CLOSED = [name for name in AUDITORS if plugin.find("attributes", name).access == "features"]  # type: ignore[attr-defined]
TRAIN, HELD = 700, 300


class Client(nn.Module):
    """Eight by eight images to maps, never trained."""

    def __init__(self) -> None:
        super().__init__()
        with draws.seeded(0, "client"):
            first, last = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, stride=2)
        self.net = nn.Sequential(first, nn.ReLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    """Images [1797, 1, 8, 8] and digits, in a drawn order."""
    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return torch.from_numpy(x / 16).float().view(-1, 1, 8, 8)[order], torch.from_numpy(y).long()[order]


def audit(
    name: str, features: Tensor, classes: Tensor, count: int, images: Tensor | None = None, **knobs: Any
) -> Told:
    """Of features [q, n, ...]: `TRAIN` to learn from, `HELD` to choose by, the rest targets."""
    parts = features.split([TRAIN, HELD, features.shape[1] - TRAIN - HELD], 1)
    own = classes.split([TRAIN, HELD, len(classes) - TRAIN - HELD])
    known = Known(parts[0], own[0], parts[1], own[1], count)
    auditor = plugin.load("attributes", name, **knobs)
    if auditor.access == "weights":
        assert images is not None
        opened = Opened(Client().eval(), images[:TRAIN], images[TRAIN : TRAIN + HELD])
        told: Told = auditor(known, parts[2], opened=opened, seed=3)
    else:
        told = auditor(known, parts[2], seed=3)
    return told


def accuracy(told: Told, classes: Tensor) -> float:
    targets = classes[TRAIN + HELD :]
    return float(metrics.balanced(metrics.hits(told.observed, targets), targets.numpy()))


def seen(images: Tensor) -> Tensor:
    with torch.no_grad():
        return Client().eval()(images)[None]


@pytest.mark.parametrize("name", AUDITORS)
def test_every_auditor_learns_an_attribute_by_its_seed_alone(
    name: str, digits: tuple[Tensor, Tensor]
) -> None:
    """Of two classes and of ten, of which it never saw one; other targets change nothing."""
    images, label = digits
    features, high = seen(images), (label >= 5).long()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    told = audit(name, features, high, 2, images)
    assert torch.equal(torch.get_rng_state(), before)
    again = audit(name, features, high, 2, images)
    assert torch.equal(told.observed, again.observed) and torch.equal(told.validation, again.validation)
    assert told.observed.shape == (797, 2) and told.validation.shape == (HELD, 2)
    assert told.observed.isfinite().all() and accuracy(told, high) > 0.88
    others = features.clone()
    others[:, TRAIN + HELD + 1 :] = 7.0
    alone = audit(name, others, high, 2, images)
    assert torch.allclose(alone.observed[0], told.observed[0], atol=1e-4)
    lacking = label.clone()
    lacking[: TRAIN + HELD][lacking[: TRAIN + HELD] == 9] = 4
    ten = audit(name, features, lacking, 10, images)
    assert ten.observed.shape == (797, 10) and ten.observed.isfinite().all()
    right = metrics.hits(ten.observed, label[TRAIN + HELD :])[(label[TRAIN + HELD :] < 9).numpy()]
    assert right.mean() > 0.8


@pytest.mark.parametrize("name", AUDITORS)
def test_a_constant_encoder_leaves_the_majority(name: str, digits: tuple[Tensor, Tensor]) -> None:
    images, label = digits
    rare = (label < 3).long()
    told = audit(name, torch.full((1, len(label), 8, 4, 4), 0.3), rare, 2, images)
    assert accuracy(told, rare) == 0.5 and len(told.observed.unique(dim=0)) == 1


@pytest.mark.parametrize("name", CLOSED)
def test_an_encoder_that_sends_the_label_leaves_the_floor_of_the_label(
    name: str, digits: tuple[Tensor, Tensor]
) -> None:
    """0.60 on digits: of the even ones two in five are five or more, of the odd ones three."""
    _, label = digits
    sent = nn.functional.one_hot(label % 2, 2).float()[None, :, :, None, None]
    high = (label >= 5).long()
    told = audit(name, sent, high, 2)
    guess = metrics.from_label(
        label[:TRAIN].numpy() % 2, high[:TRAIN].numpy(), label[TRAIN + HELD :].numpy() % 2, 2
    )
    targets = high[TRAIN + HELD :].numpy()
    floor = float(metrics.balanced((guess == targets).astype(float), targets))
    assert floor == pytest.approx(0.6, abs=0.03)
    assert accuracy(told, high) == pytest.approx(floor, abs=0.03)


@pytest.mark.parametrize("name", FAST)
def test_a_flipped_sign_fools_nobody(name: str, digits: tuple[Tensor, Tensor]) -> None:
    """What a simulated attacker has been turned away from is there for whoever looks anew."""
    images, label = digits
    high = (label >= 5).long()
    plain, turned = (audit(name, sign * seen(images), high, 2) for sign in (1, -1))
    assert accuracy(turned, high) == pytest.approx(accuracy(plain, high), abs=0.02)


def test_undefended_digits_are_told_to_097(digits: tuple[Tensor, Tensor]) -> None:
    images, label = digits
    high = (label >= 5).long()
    told = {name: audit(name, images[None], high, 2) for name in ("svm", "knn")}
    held = high[TRAIN : TRAIN + HELD]
    best = max(
        told, key=lambda n: float(metrics.balanced(metrics.hits(told[n].validation, held), held.numpy()))
    )
    assert accuracy(told[best], high) >= 0.97


@pytest.mark.parametrize("name", FAST)
def test_queries_that_are_averaged_tell_more_than_one(name: str, digits: tuple[Tensor, Tensor]) -> None:
    """Noise of a stochastic encoder is averaged out, before or after learning."""
    images, label = digits
    clean = seen(images)
    noise = torch.randn(16, *clean.shape[1:], generator=torch.Generator().manual_seed(0)) * clean.std()
    high = (label >= 5).long()
    one = accuracy(audit(name, clean + noise[:1], high, 2), high)
    for average in ("features", "scores"):
        few = 16 if average == "features" else 4
        assert accuracy(audit(name, clean + noise[:few], high, 2, average=average), high) > one + 0.02, (
            average
        )


def test_dead_channels_do_not_explode() -> None:
    """A deviation that is rounding alone is clamped: one target in a thousand with a spark is no outlier."""
    x = torch.randn(1, 50, 4, generator=torch.Generator().manual_seed(0))
    x[..., 3] = 1e-9 * x[..., 3]
    scale = Scale.of(x)
    assert scale.deviation[3] == pytest.approx(DEAD * float(x[..., :3].std()) * np.sqrt(3 / 4), rel=0.1)
    assert scale(x)[..., 3].abs().max() < 1e-5
    assert torch.allclose(scale(x)[..., :3].mean((0, 1)), torch.zeros(3), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": 1}, r"classes: 1; allowed: 2 or more"),
        ({"training_classes": torch.tensor([0, 2, 0])}, r"training_classes: from 0 to 2; allowed: 0 to 1"),
        (
            {"validation_classes": torch.zeros(3, dtype=torch.long)},
            r"validation_classes: \[3\]; allowed: \[2\]",
        ),
        ({"validation": torch.zeros(1, 2, 5)}, r"validation: .* \[1, 5\]; allowed: \[1, 4\]"),
        ({"training": torch.zeros(3, 4)}, r"training: \[3, 4\]; allowed: \[queries, images"),
    ],
)
def test_what_does_not_belong_together_is_refused(change: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {
        "training": torch.zeros(1, 3, 4),
        "training_classes": torch.tensor([0, 1, 0]),
        "validation": torch.zeros(1, 2, 4),
        "validation_classes": torch.tensor([0, 1]),
        "classes": 2,
    }
    with pytest.raises(InputError, match=said):
        Known(**{**given, **change})
    with pytest.raises(InputError, match=r"observed: \[2, 5, 4\]"):
        plugin.load("attributes", "knn")(Known(**given), torch.zeros(2, 5, 4), seed=0)
