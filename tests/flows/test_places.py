"""Places of a run: no free one stays idle, and what holds up most starts first."""

import random

from flows.places import Places


def places(count: int, sizes: dict[str, int], urgency: dict[str, float] | None = None) -> Places:
    return Places(count, lambda name: sizes.get(name, 1), lambda name: (urgency or {}).get(name, 0.0))


def test_a_stage_of_two_workers_starts_with_the_first_place_and_then_fills_two() -> None:
    ready = ["a", "b", "large", "other", "third"]
    two = places(2, {"large": 2}, {"a": 9, "b": 8, "large": 7})
    assert list(two.take(ready)) == ["a", "b"]
    two.give("a")
    assert list(two.take(ready)) == ["large"], "the place is not left idle until `b` ends"
    two.give("b")
    assert list(two.take(ready)) == [], "now it has its two"
    two.give("large")
    assert list(two.take(ready)) == ["other", "third"] and ready == []


def test_the_most_urgent_starts_first_and_equals_by_name() -> None:
    ready = ["c", "a", "urgent", "b"]
    one = places(1, {}, {"urgent": 2.0})
    started = []
    while ready:
        (name,) = one.take(ready)
        started.append(name)
        one.give(name)
    assert started == ["urgent", "a", "b", "c"]


def test_all_start_once_no_place_is_idle_and_none_starts_without_one() -> None:
    draw = random.Random(0)
    for _ in range(50):
        count = draw.randint(1, 5)
        sizes = {str(i): draw.randint(1, 7) for i in range(20)}
        some, ready, started, running = places(count, sizes), list(sizes), [], []
        while ready or running:
            before = sum(sizes[name] for name in running)
            taken = list(some.take(ready))
            started += taken
            running += taken
            filled = sum(sizes[name] for name in running)
            assert filled >= count or not ready, "a place is idle"
            assert not taken or before + sum(sizes[name] for name in taken[:-1]) < count
            assert len(running) <= count
            ended = running.pop(draw.randrange(len(running)))
            some.give(ended)
        assert sorted(started) == sorted(sizes)
