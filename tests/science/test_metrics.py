"""Per-image measures against one-by-one loops."""

import torch

from mipriv.metrics.inversion import hits, knn_distance


def test_hits_by_sorting_each_row() -> None:
    random = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(50, 7, generator=random), torch.randint(7, (50,), generator=random)
    for k in (1, 5, 9):
        slow = [
            int(t) in sorted(range(7), key=lambda c: -row[c])[:k]
            for row, t in zip(logits, targets, strict=True)
        ]
        assert hits(logits, targets, k).tolist() == slow


def test_knn_distance_is_squared_and_within_the_class() -> None:
    random = torch.Generator().manual_seed(0)
    features, private = torch.randn(9, 4, generator=random), torch.randn(15, 4, generator=random)
    targets, labels = torch.tensor([0, 1, 2] * 3), torch.tensor([0, 1, 2] * 5)
    slow = [
        min(((f - p) ** 2).sum() for p, y in zip(private, labels, strict=True) if y == t)
        for f, t in zip(features, targets, strict=True)
    ]
    assert torch.allclose(knn_distance(features, targets, private, labels), torch.stack(slow))
