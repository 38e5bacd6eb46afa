"""KID and FID against explicit loops, known distances and known coverage."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from mipriv import stats
from mipriv.analysis.distribution_distance import frechet, kid
from mipriv.errors import InputError
from mipriv.metrics.distribution import frechet_distance, moments, polynomial_kernel

D = 4


def images(random: np.random.Generator, people: int, each: int, shift: float = 0.0, alike: float = 0.5):
    """Features of `each` images of people who differ: [people * each, D], and whose they are."""
    centres = random.normal(size=(people, 1, D)) * alike + shift
    features = (centres + random.normal(size=(people, each, D))).reshape(-1, D)
    return features, np.repeat(np.arange(people), each)


def kernel(x: np.ndarray, y: np.ndarray) -> float:
    return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3


def slow_mmd(fake, whose_fake, real, whose_real, drawn: dict[int, int]) -> float:
    """Over pairs of copies of identities: both in one copy, or in copies of different identities."""

    def mean(a, whose_a, b, whose_b, same: bool) -> float:
        copies_a = [(i, whose_a[i], c) for i in range(len(a)) for c in range(drawn[whose_a[i]])]
        copies_b = [(j, whose_b[j], c) for j in range(len(b)) for c in range(drawn[whose_b[j]])]
        found = []
        for i, g, c in copies_a:
            for j, h, e in copies_b:
                if (g == h and c != e) or (same and (i, c) == (j, e)):
                    continue
                found.append(kernel(a[i], b[j]))
        return sum(found) / len(found)

    within = mean(fake, whose_fake, fake, whose_fake, True) + mean(real, whose_real, real, whose_real, True)
    return within - 2 * mean(fake, whose_fake, real, whose_real, False)


def test_the_kernel_by_its_definition() -> None:
    a, b = np.random.default_rng(0).normal(size=(3, 5)), np.random.default_rng(1).normal(size=(4, 5))
    assert np.allclose(polynomial_kernel(a, b), [[kernel(x, y) for y in b] for x in a])


@pytest.mark.parametrize("apart", [0, 3, 100])
def test_kid_and_its_replicates_by_explicit_loops(monkeypatch: pytest.MonkeyPatch, apart: int) -> None:
    """People in both sets, in some, in none; unequal images a person; a Gram matrix in several slices."""
    random = np.random.default_rng(0)
    (fake, whose), (real, theirs) = images(random, 5, 3, 0.5), images(random, 5, 2)
    fake, whose, theirs = fake[:-2], whose[:-2], theirs + apart
    monkeypatch.setattr(stats, "RESAMPLES", 15)
    monkeypatch.setattr("mipriv.analysis.distribution_distance.GRAM_ROWS", 4)
    people = sorted({*whose, *theirs})
    drawn = stats.counts(len(people), 15, np.random.Generator(np.random.PCG64(3)))
    slow = [slow_mmd(fake, whose, real, theirs, dict(zip(people, row, strict=True))) for row in drawn]
    figure = kid(fake, whose, real, theirs, seed=3)
    assert figure.point == pytest.approx(slow_mmd(fake, whose, real, theirs, dict.fromkeys(people, 1)))
    assert (figure.low, figure.high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])))
    assert figure.n == 5


def test_an_image_is_not_paired_with_itself() -> None:
    """A set from itself: with those pairs exactly zero, without them below it."""
    features, whose = images(np.random.default_rng(0), 30, 4, alike=0.0)
    figure = kid(features * 3, whose, features * 3, whose)
    assert figure.point < 0


def test_replicates_lie_around_the_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """People who are much alike: pairs between two copies of one person would lift each replicate."""
    monkeypatch.setattr(stats, "interval", lambda replicates: (replicates.mean(), replicates.std()))
    random = np.random.default_rng(0)
    (fake, whose), (real, theirs) = images(random, 40, 5, alike=1.0), images(random, 40, 5, alike=1.0)
    figure = kid(fake, whose, real, theirs + 100)
    middle, spread = figure.low, figure.high
    assert abs(middle - figure.point) < 0.2 * spread


@pytest.mark.parametrize("shared", [True, False])
def test_one_distribution_is_no_distance(shared: bool) -> None:
    random = np.random.default_rng(1)
    (fake, whose), (real, theirs) = images(random, 40, 5, alike=0.2), images(random, 40, 5, alike=0.2)
    figure = kid(fake, whose, real, theirs + (0 if shared else 100))
    assert figure.low < 0 < figure.high and abs(figure.point) < 0.15


def third(mean: float, variance: float) -> list[np.ndarray]:
    """First three moment tensors of N(mean, variance I)."""
    m, unit = np.full(D, mean), np.eye(D)
    cubes = sum(np.einsum(f"{a},{b}{c}->ijk", m, variance * unit) for a, b, c in ("ijk", "jik", "kij"))
    return [m, np.multiply.outer(m, m) + variance * unit, np.einsum("i,j,k->ijk", m, m, m) + cubes]


def test_coverage_over_identities_is_close_to_nominal() -> None:
    """(x.y / d + 1)^3 expands into moments, whose differences give the true squared MMD."""
    pairs = zip((3, 3, 1), third(0.5, 1.25), third(0.0, 1.25), strict=True)
    truth = sum(c * np.square(a - b).sum() / D**p for p, (c, a, b) in enumerate(pairs, 1))
    inside, points = 0, []
    for trial in range(150):
        random = np.random.default_rng(trial)
        centres = random.normal(size=(20, 1, D)) * 0.5
        fake, real = (centres + random.normal(size=(20, 5, D)) + shift for shift in (0.5, 0.0))
        whose = np.repeat(np.arange(20), 5)
        figure = kid(fake.reshape(-1, D), whose, real.reshape(-1, D), whose, seed=trial)
        inside += figure.low <= truth <= figure.high
        points.append(figure.point)
    assert 0.88 <= inside / 150 <= 0.99
    assert np.mean(points) == pytest.approx(truth, abs=3 * np.std(points) / 150**0.5)


@pytest.mark.parametrize("measure", [kid, frechet])
def test_the_order_of_rows_and_the_names_of_people_change_nothing(measure) -> None:
    random = np.random.default_rng(2)
    (fake, whose), (real, theirs) = images(random, 12, 3, 0.3), images(random, 12, 4)
    i, j = random.permutation(len(fake)), random.permutation(len(real))
    a, b = measure(fake, whose, real, theirs), measure(fake[i], whose[i] * 7, real[j], theirs[j] * 7)
    assert (a.point, a.low, a.high) == pytest.approx((b.point, b.low, b.high))
    assert a == measure(fake, whose, real, theirs)


@pytest.mark.parametrize("measure", [kid, frechet])
def test_people_who_are_alike_widen_the_interval(measure) -> None:
    """As many images, each of its own person or ten of each."""
    features, whose = images(np.random.default_rng(3), 20, 10, 0.5, alike=1.0)
    real, theirs = images(np.random.default_rng(4), 200, 1)
    each = measure(features, np.arange(200), real, theirs + 1_000)
    ten = measure(features, whose, real, theirs + 1_000)
    assert ten.high - ten.low > 1.5 * (each.high - each.low) and ten.point == pytest.approx(each.point)


def test_frechet_by_the_complex_square_root() -> None:
    random = np.random.default_rng(0)
    for d in (1, 3, 8):
        fake, real = random.normal(size=(50, d)) @ random.normal(size=(d, d)), random.normal(size=(60, d)) + 1
        (m, s), (n, t) = ((x.mean(0), np.cov(x.T).reshape(d, d)) for x in (fake, real))
        slow = ((m - n) ** 2).sum() + np.trace(s + t - 2 * sqrtm(s @ t).real)
        fast = frechet_distance(
            *moments(fake, np.ones(50, dtype=int)), *moments(real, np.ones(60, dtype=int))
        )
        assert fast == pytest.approx(slow)


def test_moments_count_repeated_rows() -> None:
    features, times = np.random.default_rng(0).normal(size=(6, 3)), np.array([0, 2, 1, 3, 0, 1])
    mean, covariance = moments(features, times)
    repeated = features.repeat(times, axis=0)
    assert np.allclose(mean, repeated.mean(0)) and np.allclose(covariance, np.cov(repeated.T))


def test_frechet_of_a_set_from_itself_is_nothing_and_from_a_moved_one_the_move() -> None:
    features, whose = images(np.random.default_rng(0), 10, 4)
    assert frechet(features, whose, features, whose).point == pytest.approx(0, abs=1e-10)
    moved = frechet(features + 2, whose, features, whose)
    assert moved.point == pytest.approx(4 * D) and moved.low == pytest.approx(moved.high)


def test_frechet_is_biased_upwards_as_its_docstring_says() -> None:
    """16 dimensions, 4 samples a dimension; Gaussians of distance 0 and 1.25 a dimension."""
    d, n, random = 16, 64, np.random.default_rng(0)
    for shift, scale, truth, low, high in ((0, 1, 0.0, 0.14, 0.2), (1, 1.5, 1.25, 0.19, 0.33)):
        points = []
        for _ in range(100):
            fake, real = random.normal(size=(n, d)) * scale + shift, random.normal(size=(n, d))
            once = np.ones(n, dtype=int)
            points.append(frechet_distance(*moments(fake, once), *moments(real, once)))
        assert low < np.mean(points) / d - truth < high


def test_the_interval_of_frechet_lies_around_its_point() -> None:
    """Replicates are biased once more than the point: their own percentiles would lie above it."""
    (fake, whose), (real, theirs) = (images(np.random.default_rng(s), 40, 2) for s in (0, 1))
    figure = frechet(fake, whose, real, theirs + 100)
    assert figure.low < figure.point < figure.high and figure.n == 40


def test_frechet_refuses_few_samples_on_either_side() -> None:
    few, many = images(np.random.default_rng(0), 5, 3), images(np.random.default_rng(1), 5, 4)
    for sides in ((few, many), (many, few)):
        with pytest.raises(InputError) as refused:
            frechet(*sides[0], *sides[1])
        assert (
            str(refused.value) == "frechet: 15 samples of 4 dimensions; allowed: at least 16, 4 a dimension"
        )


@pytest.mark.parametrize("measure", [kid, frechet])
def test_what_cannot_be_measured_is_refused(measure) -> None:
    good = images(np.random.default_rng(0), 5, 4)
    one, narrow = np.zeros(20, dtype=int), (good[0][:, :2], good[1])
    broken = np.where(np.arange(20)[:, None] == 3, np.nan, good[0])
    for wrong in ((good[0], one), (good[0], good[1][:-1]), narrow, (broken, good[1]), (good[0][0], good[1])):
        with pytest.raises(InputError, match="allowed"):
            measure(*good, *wrong)
