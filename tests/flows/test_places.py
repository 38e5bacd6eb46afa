"""Places of a run: as many as fit, in their order, and never more."""

import random

from flows.places import Places


def test_a_stage_fills_its_places_and_nobody_overtakes_it() -> None:
    ready = ["a", "b", "large", "c", "d"]
    places = Places(2, lambda name: 2 if name == "large" else 1)
    assert list(places.take(ready)) == ["a", "b"]
    places.give("a")
    assert list(places.take(ready)) == [], "half a place for `large`, and `c` waits behind it"
    places.give("b")
    assert list(places.take(ready)) == ["large"]
    assert list(places.take(ready)) == []
    places.give("large")
    assert list(places.take(ready)) == ["c", "d"] and ready == []


def test_what_wants_more_than_there_is_has_all_to_itself() -> None:
    ready = ["small", "huge", "small too"]
    places = Places(3, lambda name: 9 if name == "huge" else 1)
    assert list(places.take(ready)) == ["small"]
    places.give("small")
    assert list(places.take(ready)) == ["huge"]
    places.give("huge")
    assert list(places.take(ready)) == ["small too"]


def test_all_start_once_in_order_and_fill_no_more_than_there_is() -> None:
    draw = random.Random(0)
    for _ in range(50):
        count = draw.randint(1, 5)
        sizes = {str(i): draw.randint(1, 7) for i in range(20)}
        places, ready, started, running = Places(count, sizes.__getitem__), list(sizes), [], []
        while ready or running:
            taken = list(places.take(ready))
            started += taken
            running += taken
            assert running, "nothing runs and nothing starts"
            assert sum(min(sizes[name], count) for name in running) <= count
            ended = running.pop(draw.randrange(len(running)))
            places.give(ended)
        assert started == list(sizes)
