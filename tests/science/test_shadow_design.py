"""Designs of shadows: halves that balance, pools that nest, and pools that share nothing."""

import pytest
import torch

from mipriv.errors import InputError
from mipriv.shadows.design import Pool, balanced, disjoint, pool

LABELS = torch.tensor([7, 3, 5, 3, 7, 5] * 12)  # 24 a class


@pytest.mark.parametrize(("models", "records"), [(2, 5), (16, 40), (256, 9)])
def test_every_record_is_in_exactly_half_of_the_models(models: int, records: int) -> None:
    members = balanced(models, records, 0)
    assert members.shape == (models, records) and members.dtype == torch.bool
    assert (members.sum(0) == models // 2).all()


def test_with_odd_models_a_record_is_in_one_half_or_the_other() -> None:
    counts = balanced(7, 4000, 0).sum(0)
    assert set(counts.tolist()) == {3, 4}
    assert abs((counts == 3).double().mean() - 0.5) < 0.05


def test_halves_are_independent_between_records_and_seeds() -> None:
    members = balanced(2000, 6, 0).double()
    assert (torch.corrcoef(members.T) - torch.eye(6)).abs().max() < 0.1
    assert 0.4 < (balanced(2000, 6, 1).double() == members).double().mean() < 0.6
    assert torch.equal(balanced(2000, 6, 0).double(), members)


def as_set(found: Pool) -> set[int]:
    return set(found.records.tolist())


@pytest.mark.parametrize(("classes", "per_class"), [(2, 3), (3, 3), (3, 5)])
def test_a_pool_holds_twice_as_many_of_each_class_and_the_rest_is_the_population(
    classes: int, per_class: int
) -> None:
    found = pool(LABELS, classes, per_class, 0)
    assert len(found.classes) == len(set(found.classes)) == classes
    for records, labels in [(found.records, found.labels), (found.population, found.population_labels)]:
        assert torch.equal(LABELS[records], torch.tensor(found.classes)[labels])
    assert torch.bincount(found.labels).tolist() == [2 * per_class] * classes
    of_classes = torch.isin(LABELS, torch.tensor(found.classes)).nonzero()[:, 0]
    both = torch.cat([found.records, found.population])
    assert torch.equal(both.sort().values, of_classes)


def test_pools_nest_over_records_and_over_classes() -> None:
    small, more, wide = (pool(LABELS, c, s, 4) for c, s in [(2, 3), (2, 8), (3, 8)])
    assert as_set(small) < as_set(more) < as_set(wide)
    assert wide.classes[:2] == more.classes == small.classes


def test_seeds_change_records_and_classes() -> None:
    found = [pool(LABELS, 2, 3, seed) for seed in range(6)]
    assert len({p.classes for p in found}) > 2
    assert as_set(pool(LABELS, 3, 3, 0)) != as_set(pool(LABELS, 3, 3, 1))


def test_disjoint_pools_share_no_record_with_each_other_nor_with_their_population() -> None:
    pools = disjoint(LABELS, 3, 2, 4, 0)
    assert torch.equal(pools[0].records, pool(LABELS, 3, 2, 0).records)
    every = [as_set(p) for p in pools]
    assert len(set.union(*every)) == sum(len(own) for own in every) == 4 * 12
    for p in pools:
        assert torch.equal(LABELS[p.records], torch.tensor(p.classes)[p.labels])
        assert not set.union(*every) & set(p.population.tolist())
        assert len(p.population) == len(LABELS) - 48


@pytest.mark.parametrize(
    ("classes", "per_class", "pools", "match"),
    [
        (4, 1, 1, "classes: 4; allowed: up to 3"),
        (3, 13, 1, "2 x 13 records .* in 1 pool.*up to 24"),
        (3, 4, 4, "2 x 4 records .* in 4 pool"),
        (1, 4, 1, "from 2, 1 and 1"),
        (2, 0, 1, "from 2, 1 and 1"),
        (2, 1, 0, "from 2, 1 and 1"),
    ],
)
def test_what_the_data_cannot_fill_is_refused(classes: int, per_class: int, pools: int, match: str) -> None:
    with pytest.raises(InputError, match=match):
        disjoint(LABELS, classes, per_class, pools, 0)


def test_a_design_of_no_models_is_refused() -> None:
    with pytest.raises(InputError, match="from 2 models"):
        balanced(1, 5, 0)
