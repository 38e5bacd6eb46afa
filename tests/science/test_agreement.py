"""Agreement and false positives one image at a time."""

import pytest
import torch

from mipriv.errors import InputError
from mipriv.metrics.agreement import agreement, false_positives


def test_agreement_by_each_ones_best() -> None:
    random = torch.Generator().manual_seed(0)
    a, b = torch.randn(40, 3, generator=random), torch.randn(40, 3, generator=random)
    slow = [
        max(range(3), key=lambda k, row=x: row[k]) == max(range(3), key=lambda k, row=y: row[k])
        for x, y in zip(a.tolist(), b.tolist(), strict=True)
    ]
    found = agreement(a, b)
    assert found.dtype == torch.bool and found.tolist() == slow and 0 < sum(slow) < 40


def test_false_positives_are_accepted_and_another_ones() -> None:
    scores = torch.tensor([[3.0, 1.0], [1.0, 3.0], [1.0, 3.0], [3.0, 1.0], [2.0, 2.0]])
    accepted = torch.tensor([True, True, False, False, True])
    assert false_positives(accepted, scores, torch.tensor([0, 0, 0, 0, 1])).tolist() == [
        False,
        True,
        False,
        False,
        False,
    ]


def test_what_does_not_pair_is_refused() -> None:
    with pytest.raises(InputError, match="allowed: equal shapes"):
        agreement(torch.zeros(4, 3), torch.zeros(4, 2))
    scores, targets = torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)
    for accepted in (torch.ones(4), torch.ones(3, dtype=torch.bool)):
        with pytest.raises(InputError, match="allowed: bool"):
            false_positives(accepted, scores, targets)
