"""Balanced accuracy, areas and floors against slow oracles; choosing among auditors and intervals."""

from typing import Any

import numpy as np
import pytest

from mipriv import stats
from mipriv.errors import InputError
from mipriv.metrics import attributes as metrics
from mipriv.metrics.audit import Audit, Sample, share


def slow_auc(margin: Any, own: Any, times: Any) -> float:
    total = won = 0.0
    for i in np.flatnonzero(own):
        for j in np.flatnonzero(~own):
            pair = times[i] * times[j]
            total += pair
            won += pair * ((margin[i] > margin[j]) + 0.5 * (margin[i] == margin[j]))
    return won / total if total else float("nan")


@pytest.mark.parametrize(("n", "classes"), [(9, 2), (14, 3), (21, 4)])
def test_weighted_figures_are_those_of_repeated_images(n: int, classes: int) -> None:
    random = np.random.default_rng(n)
    labels = random.integers(classes, size=n)
    labels[:classes] = np.arange(classes)
    scores = random.integers(4, size=(n, classes)).astype(float)
    right = random.integers(2, size=(2, n)).astype(float)
    weights = stats.counts(n, 6, random).astype(float)
    told, area = metrics.balanced(right, labels, weights), metrics.auc(scores, labels, weights)
    for b, times in enumerate(weights.astype(int)):
        rows = np.repeat(np.arange(n), times)
        for a in range(2):
            recalls = [right[a, rows][labels[rows] == k].mean() for k in set(labels[rows].tolist())]
            assert told[a, b] == pytest.approx(np.mean(recalls))
        if classes == 2:
            assert area[b] == pytest.approx(
                slow_auc(scores[:, 1] - scores[:, 0], labels == 1, times), nan_ok=True
            )
        else:
            each = [slow_auc(scores[:, k], labels == k, times) for k in range(classes)]
            assert area[b] == pytest.approx(np.nanmean(each))
    assert metrics.balanced(right, labels) == pytest.approx(
        metrics.balanced(right, labels, np.ones((1, n)))[:, 0]
    )


def test_the_label_alone_is_the_best_table_of_all() -> None:
    """By trying every table of labels to classes."""
    random = np.random.default_rng(2)
    labels, classes = random.integers(3, size=60), random.integers(2, size=60)
    told = []
    for code in range(2**3):
        table = np.array([code >> at & 1 for at in range(3)])
        told.append(float(metrics.balanced((table[labels] == classes).astype(float), classes)))
    guess = metrics.from_label(labels, classes, labels, 2)
    assert float(metrics.balanced((guess == classes).astype(float), classes)) == pytest.approx(max(told))
    assert metrics.from_label(labels, classes, np.array([7]), 2).tolist() == [metrics.majority(classes)]


def sample(images: int = 200, seeds: int = 3, held: int = 100) -> Sample:
    own = np.arange(images)
    return Sample(own % 2, own, np.arange(held) % 2, np.arange(held), seeds)


def audited(accuracies: list[float], of: Sample, seed: int = 0, names: Any = None) -> Audit:
    """Auditors that are right by chance, independently, at given rates."""
    random = np.random.default_rng(seed)

    def scores(classes: Any) -> Any:
        found = np.zeros((len(accuracies), of.seeds, len(classes), 2), np.float32)
        right = random.random(found.shape[:3]) < np.array(accuracies)[:, None, None]
        np.put_along_axis(found, np.where(right, classes, 1 - classes)[..., None], 1.0, -1)
        return found

    return Audit(
        names or tuple(f"a{i}" for i in range(len(accuracies))), scores(of.classes), scores(of.held), of
    )


def test_validation_chooses_and_the_maximum_flatters() -> None:
    """Of nine that guess the best on the test images is above one half; what validation chose is not."""
    of = sample(300)
    chosen, most = [], []
    for seed in range(12):
        one = audited([0.5] * 9, of, seed)
        chosen.append(one.chosen[0])
        most.append(one.maximum[0])
    assert np.mean(chosen) == pytest.approx(0.5, abs=0.015)
    assert min(most) > 0.5 and np.mean(most) > np.mean(chosen) + 0.01
    good = audited([0.5, 0.9, 0.6], of)
    assert good.chosen_names == ["a1"] * 3
    figure = good.sample.figure(good.chosen)
    assert figure.low < 0.9 < figure.high and figure.n == 300 and figure.seeds == 3
    assert figure.high - figure.low < 0.1
    assert good.maximum[0] == max(one.point for one in good.each().values())


def test_an_interval_covers_what_a_new_choice_would_find() -> None:
    """Two auditors alike on validation, one a bad surprise on the test images."""
    of = sample(400, 1, 40)
    one = audited([0.8, 0.8], of)
    held, scores = one.held.copy(), one.scores.copy()
    held[1] = held[0]
    held[1, :, :2] = 1 - held[0, :, :2]
    scores[1] = np.eye(2, dtype=np.float32)[1 - of.classes]  # always wrong
    sure = Audit(("a",), scores[:1], held[:1], of)
    torn = Audit(("a", "b"), scores, held, of)
    told = [each.sample.figure(each.chosen) for each in (sure, torn)]
    assert torn.chosen_names == ["a"] or torn.chosen_names == ["b"]
    assert told[1].high - told[1].low > 3 * (told[0].high - told[0].low)


def test_people_are_drawn_whole() -> None:
    images = np.arange(200)
    apart = Sample(images % 2, images, images % 2, images, 1)
    together = Sample(images % 2, images // 20 * 1, images % 2, images // 20, 1)
    scores = np.zeros((1, 1, 200, 2), np.float32)
    right = images // 20 % 2 == 0  # every second person is always told
    np.put_along_axis(scores[0, 0], np.where(right, images % 2, 1 - images % 2)[:, None], 1.0, -1)
    widths = []
    for of in (apart, together):
        figure = of.figure(Audit(("a",), scores, scores, of).chosen)
        widths.append(figure.high - figure.low)
    assert widths[1] > 2 * widths[0] and together.units == 10


def test_a_share_pairs_and_is_withheld_over_a_narrow_gap() -> None:
    of = sample(400)
    open_, same = audited([0.95], of, 1), audited([0.95], of, 1)
    floor = of.accuracy((np.zeros_like(of.classes) == of.classes).astype(float)[None].repeat(3, 0))
    told = share(of, same.chosen, floor, open_.chosen)
    assert not isinstance(told, str) and told.point == 1
    weak = audited([0.55], of, 2)
    said = share(of, weak.chosen, floor, weak.chosen)
    assert isinstance(said, str) and "told from 0.1" in said
    half = share(of, audited([0.7], of, 3).chosen, floor, open_.chosen)
    assert not isinstance(half, str) and half.low < 0.2 / 0.45 < half.high


def test_scores_that_fit_no_sample_are_refused() -> None:
    of = sample(10)
    with pytest.raises(InputError, match="audit: scores"):
        Audit(("a",), np.zeros((1, 2, 10, 2), np.float32), np.zeros((1, 3, 100, 2), np.float32), of)
