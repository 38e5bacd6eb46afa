"""Label smoothing of both signs against double loops, and its schedule."""

import math

import pytest
import torch
from torch import nn

from mipriv.defenses import Batch
from mipriv.defenses.label_smoothing import LabelSmoothing


def batch(epoch: int = 0, epochs: int = 1) -> Batch:
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (6,), generator=random)
    return Batch(torch.rand(6, 1, 2, 2), labels, torch.randn(6, 4, generator=random), epoch, epochs)


@pytest.mark.parametrize("alpha", [0.3, -0.05, -4.0, 0.0])
def test_label_smoothing_by_double_loop(alpha: float) -> None:
    given, total = batch(), 0.0
    for row, label in zip(given.logits.double(), given.labels.tolist(), strict=True):
        p = (row.exp() / row.exp().sum()).tolist()
        total -= (1 - alpha) * math.log(p[label])
        for k in range(4):
            total -= alpha * math.log(p[k]) / 4
    loss = LabelSmoothing(alpha, "constant").loss(given, 0)
    assert loss.item() == pytest.approx(total / 6, rel=1e-5)


def test_label_smoothing_as_torch_has_it_where_torch_has_it() -> None:
    given = batch()
    expected = nn.CrossEntropyLoss(label_smoothing=0.3)(given.logits, given.labels)
    assert torch.allclose(LabelSmoothing(0.3, "constant").loss(given, 0), expected)


@pytest.mark.parametrize(
    ("epoch", "share"), [(0, 0), (49, 0), (50, 1 / 50), (74, 25 / 50), (75, 1), (99, 1), (60, 11 / 50)]
)
def test_the_published_schedule(epoch: int, share: float) -> None:
    plan = LabelSmoothing(-0.05)
    assert plan.strength(epoch, 100) == pytest.approx(-0.05 * share)
    same = LabelSmoothing(-0.05 * share, "constant").loss(batch(), 0)
    assert torch.allclose(plan.loss(batch(epoch, 100), 0), same)
    assert LabelSmoothing(-0.05, "constant").strength(epoch, 100) == -0.05


@pytest.mark.parametrize("epochs", range(1, 30))
def test_the_schedule_of_any_length_grows_and_ends_at_full_strength(epochs: int) -> None:
    shares = [LabelSmoothing(-1.0).strength(e, epochs) / -1.0 for e in range(epochs)]
    assert shares == sorted(shares) and min(shares) >= 0 and max(shares) <= 1
    assert shares[-1] == (1 if epochs > 1 else 0)
    assert all(share == 0 for share in shares[: epochs // 2])
