"""Splits over random plans, against what each plan asks for."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from mipriv.data.splits import PRIVATE, PUBLIC, SPLITS, SplitPlan, plan_splits, refuse_splits
from mipriv.errors import InputError

PLAN = SplitPlan(public=3, private=4, train=2, validation=1, test=2, public_validation=1, seed=0)


def labels_of(people: int, images: int) -> list[str]:
    return [f"p{i}" for i in range(people) for _ in range(images)]


def random_case(rng: np.random.Generator) -> tuple[list[str], SplitPlan]:
    people = int(rng.integers(1, 12))
    public = int(rng.integers(0, people + 1))
    train, validation, public_validation = (int(n) for n in rng.integers(0, 4, 3))
    test = int(rng.integers(-1, 4))
    least = max(train + validation + (1 if test == -1 else test), public_validation + 1)
    labels = [f"p{i}" for i in range(people) for _ in range(least + int(rng.integers(0, 5)))]
    private = None if rng.random() < 0.5 else int(rng.integers(0, people - public + 1))
    plan = SplitPlan(public, private, train, validation, test, public_validation, int(rng.integers(0, 2**32)))
    return [labels[i] for i in rng.permutation(len(labels))], plan


@pytest.mark.parametrize("case", range(150))
def test_random_plans(case):
    labels, plan = random_case(np.random.default_rng(case))
    splits = plan_splits(labels, plan)
    have = Counter(labels)

    assert tuple(splits) == SPLITS
    assert all(part.dtype == np.int64 and part.tolist() == sorted(part) for part in splits.values())
    used = [i for part in splits.values() for i in part.tolist()]
    assert len(used) == len(set(used))
    people = {
        pool: {labels[i] for name in names for i in splits[name]}
        for pool, names in (("public", PUBLIC), ("private", PRIVATE))
    }
    assert not people["public"] & people["private"]
    assert len(people["public"]) == plan.public

    counts = {name: Counter(labels[i] for i in part) for name, part in splits.items()}
    for person in people["public"]:
        assert counts["public/validation"][person] == plan.public_validation
        assert counts["public/train"][person] == have[person] - plan.public_validation
    expected = len(have) - plan.public if plan.private is None else plan.private
    asked = plan.train + plan.validation + abs(plan.test)
    assert len(people["private"]) == (expected if asked else 0)
    for person in people["private"]:
        left = have[person] - plan.train - plan.validation
        assert counts["private/train"][person] == plan.train
        assert counts["private/validation"][person] == plan.validation
        assert counts["private/test"][person] == (left if plan.test == -1 else plan.test)
    refuse_splits(splits, labels)


def named(labels: list[str], splits: dict[str, np.ndarray]) -> dict[str, set[tuple[str, int]]]:
    """Each split as (person, how many of the person's images come before)."""
    seen: Counter[str] = Counter()
    names = []
    for label in labels:
        names.append((label, seen[label]))
        seen[label] += 1
    return {name: {names[i] for i in part} for name, part in splits.items()}


def test_the_order_of_people_does_not_matter_and_the_seed_does():
    labels = labels_of(12, 6)
    splits = named(labels, plan_splits(labels, PLAN))
    shuffled = [labels[i] for i in np.random.default_rng(0).permutation(len(labels))]
    assert named(shuffled, plan_splits(shuffled, PLAN)) == splits
    other = named(labels, plan_splits(labels, replace(PLAN, seed=1)))
    assert all(other[name] != splits[name] for name in SPLITS)
    for pool in ("public/train", "private/train"):
        assert {person for person, _ in other[pool]} != {person for person, _ in splits[pool]}


def test_images_of_a_person_are_drawn_and_not_taken_in_order():
    labels = labels_of(40, 10)
    plan = replace(PLAN, public=0, private=None, train=5, test=-1)
    ranks = plan_splits(labels, plan)["private/train"] % 10
    assert len({tuple(row) for row in ranks.reshape(40, 5)}) > 20


def test_other_sizes_leave_the_rest_as_it_is():
    labels = labels_of(12, 9)
    splits = plan_splits(labels, PLAN)
    wider = plan_splits(labels, replace(PLAN, public=6))
    assert all((wider[name] == splits[name]).all() for name in PRIVATE)
    longer = plan_splits(labels, replace(PLAN, train=5))
    for name in ("private/validation", "private/test", *PUBLIC):
        np.testing.assert_array_equal(longer[name], splits[name])
    assert set(splits["private/train"]) < set(longer["private/train"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"public": 13}, "^split.public: 13 people; allowed: at most 12, all there are"),
        (
            {"private": 10},
            "private: 10 people; allowed: at most the 9 with 5 images that are not public, of 12",
        ),
        ({"train": 4}, "private: 4 people; allowed: at most the 0 with 7 images that are not public"),
        ({"train": 4, "private": None}, "has 6 images; needed: 7"),
        ({"public_validation": 6}, "has 6 images; needed: 7"),
        ({"train": 5, "test": -1, "private": None}, "has 6 images; needed: 7"),
    ],
)
def test_plans_that_ask_too_much(changed, message):
    with pytest.raises(InputError, match=message):
        plan_splits(labels_of(12, 6), replace(PLAN, **changed))


def test_the_person_with_too_few_images_is_named():
    with pytest.raises(InputError, match=r"^split: 'few' has 2 images; needed: 5"):
        plan_splits([*labels_of(3, 5), "few", "few"], replace(PLAN, public=0, private=None))


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("public", -1, "an integer from 0"),
        ("public", None, "an integer from 0"),
        ("private", -1, "an integer from 0, or null"),
        ("train", 1.0, "an integer from 0"),
        ("validation", True, "an integer from 0"),
        ("test", -2, "an integer from -1"),
        ("public_validation", "1", "an integer from 0"),
        ("seed", -1, "an integer from 0"),
        ("seed", "0", "an integer from 0"),
        ("seed", None, "an integer from 0"),
    ],
)
def test_figures_that_no_plan_has(field, value, allowed):
    with pytest.raises(InputError) as refused:
        replace(PLAN, **{field: value})
    assert str(refused.value) == f"split.{field}: {value!r}; allowed: {allowed}"


def test_splits_from_elsewhere_are_refused_unless_they_keep_the_promises():
    labels = ["a", "a", "b", "b", "b"]

    def refused(**changed: list[int]) -> str:
        given = {name.replace("/", "_"): [i] for i, name in enumerate(SPLITS)} | changed
        parts = {name.replace("_", "/"): np.array(part, np.int64) for name, part in given.items()}
        with pytest.raises(InputError) as error:
            refuse_splits(parts, labels)
        return str(error.value)

    assert "'a' is both public and private" in refused(public_validation=[], private_test=[1])
    assert "image 2 is held twice" in refused(private_test=[2])
    assert "image 4 is held twice" in refused(private_test=[4, 4])
    assert "split 'private/test': an index outside 0 to 4" in refused(private_test=[5])
    assert "split 'private/test': an index outside 0 to 4" in refused(private_test=[-1])
    assert "allowed: exactly" in refused(private_extra=[4])


def test_who_is_in_a_pool_of_the_source_serves_in_no_other():
    labels = labels_of(9, 6)
    pools = [{"p0": "public", "p1": "public", "p2": "private", "p3": "private"}.get(p) for p in labels]
    for seed in range(20):
        splits = plan_splits(labels, replace(PLAN, public=4, private=4, seed=seed), pools)
        public, private = ({labels[i] for name in names for i in splits[name]} for names in (PUBLIC, PRIVATE))
        assert len(public) == len(private) == 4 and not public & private
        assert not public & {"p2", "p3"} and not private & {"p0", "p1"}


def test_pools_of_a_source_bound_how_many_there_are():
    labels = labels_of(4, 6)
    pools = ["public" if label < "p2" else "private" for label in labels]
    with pytest.raises(InputError, match=r"public: 3 people; allowed: at most 2"):
        plan_splits(labels, replace(PLAN, public=3, private=1), pools)
    with pytest.raises(InputError, match=r"private: 3 people; allowed: at most the 2"):
        plan_splits(labels, replace(PLAN, public=1, private=3), pools)
    with pytest.raises(InputError, match="'p0' is in two pools"):
        plan_splits(labels, PLAN, ["public", "private", *pools[2:]])


def test_without_pools_nothing_changes():
    labels = labels_of(9, 6)
    one, two = plan_splits(labels, PLAN), plan_splits(labels, PLAN, [None] * len(labels))
    assert all(np.array_equal(one[name], two[name]) for name in SPLITS)


def test_a_given_number_of_private_people_are_drawn_among_those_with_enough_images():
    labels = [*labels_of(6, 5), *(f"few{i}" for i in range(6) for _ in range(2))]
    for seed in range(10):
        splits = plan_splits(labels, replace(PLAN, public=2, private=3, public_validation=0, seed=seed))
        people = {labels[i] for name in PRIVATE for i in splits[name]}
        assert len(people) == 3 and not any(person.startswith("few") for person in people)
