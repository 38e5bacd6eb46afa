"""k-means over all classes against a plain loop over one, running moments against sums over all batches."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from mipriv import draws
from mipriv.analysis.cells import Cells, _blocks, fit, nearest
from mipriv.analysis.running_cells import RunningCells

CLASSES, CELLS, D = 4, 3, 5
KEY = ("toy", 7)


def images(
    sizes: tuple[int, ...] = (17, 0, 2, 30), dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Blobs in every class, far from the origin, in no order."""
    random = torch.Generator().manual_seed(1)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=random)]
    blob = torch.randint(3, (len(labels),), generator=random)
    noise = torch.randn(len(labels), D, generator=random, dtype=dtype)
    return 10 + labels[:, None] + 2 * blob[:, None] + noise, labels


def inertia(features: Tensor, labels: Tensor, found: Cells) -> float:
    return (features - found.centroids[labels, found.assignment]).square().sum().item()


def slow(features: Tensor, uniforms: list[float], iterations: int) -> tuple[list[list[float]], list[int]]:
    """One class by loops over its images; centroids and cells. No cell of it may run empty."""
    rows = features.tolist()
    direction = draws.normal((D,), *KEY, "order").tolist()
    order = sorted(
        range(len(rows)), key=lambda i: sum(a * b for a, b in zip(rows[i], direction, strict=True))
    )

    def apart(a: list[float], b: list[float]) -> float:
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))

    centroids: list[list[float]] = []
    for u in uniforms:
        mass = [min((apart(rows[i], c) for c in centroids), default=1.0) for i in order]
        if sum(mass) == 0:
            break
        target, passed = u * sum(mass), 0.0
        for i, m in zip(order, mass, strict=True):
            passed += m
            if passed > target:
                centroids.append(rows[i])
                break
    for _ in range(iterations):
        cell = [min(range(len(centroids)), key=lambda k: apart(row, centroids[k])) for row in rows]
        for k in range(len(centroids)):
            own = [row for row, at in zip(rows, cell, strict=True) if at == k]
            assert own
            centroids[k] = [sum(column) / len(own) for column in zip(*own, strict=True)]
    return centroids, cell


@pytest.mark.parametrize("iterations", [1, 2, 20])
def test_every_class_is_what_a_plain_loop_makes_of_it_alone(iterations: int) -> None:
    features, labels = images()
    found = fit(features, labels, CLASSES, CELLS, *KEY, iterations=iterations)
    uniforms = draws.uniform((CLASSES, CELLS), *KEY, "seeds").tolist()
    for c in (0, 2, 3):
        own = features[labels == c]
        centroids, cell = slow(own, uniforms[c], iterations)
        assert found.assignment[labels == c].tolist() == cell
        used = len(centroids)
        assert used == min(CELLS, len(own))
        assert torch.allclose(found.centroids[c, :used], torch.tensor(centroids, dtype=torch.float64))
        for k in range(CELLS):
            members = own[torch.tensor(cell) == k]
            assert found.counts[c, k] == len(members)
            if len(members):
                expected = members.var(0, correction=0)
                assert torch.allclose(found.variances[c, k], expected)


def test_a_class_alone_equals_the_class_among_many_and_blocks_change_nothing() -> None:
    features, labels = images((5, 8, 13))
    whole = fit(features, labels, 3, CELLS, *KEY)
    for other in (fit(features, labels, 3, CELLS, *KEY, block=1), fit(features, labels, 9, CELLS, *KEY)):
        assert torch.equal(other.assignment, whole.assignment)
        assert torch.allclose(other.centroids[:3], whole.centroids, rtol=0, atol=1e-10)
    alone = fit(features[labels == 1], labels[labels == 1], 3, CELLS, *KEY)
    assert torch.equal(alone.assignment, whole.assignment[labels == 1])
    assert torch.equal(alone.counts[[0, 2]], torch.zeros(2, CELLS, dtype=torch.int64))


def test_a_block_holds_no_more_than_it_may() -> None:
    sizes, seen = torch.tensor([5, 0, 9, 4, 4, 1, 30]), []
    for these, most in _blocks(sizes, 20):
        assert most == sizes[these].max() and (len(these) == 1 or len(these) * most <= 20)
        seen += these.tolist()
    assert seen == [6, 2, 0, 3, 4, 5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_permuted_images_have_the_permuted_assignment(dtype: torch.dtype) -> None:
    features, labels = images(dtype=dtype)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(5))
    one = fit(features, labels, CLASSES, CELLS, *KEY)
    two = fit(features[order], labels[order], CLASSES, CELLS, *KEY)
    assert torch.equal(two.assignment, one.assignment[order])
    assert torch.equal(two.centroids, one.centroids) and torch.equal(two.counts, one.counts)


def test_a_key_decides_alone() -> None:
    features, labels = images((40,))
    one = fit(features, labels, 1, 8, *KEY, iterations=1)
    torch.rand(3)
    assert torch.equal(one.centroids, fit(features, labels, 1, 8, *KEY, iterations=1).centroids)
    assert not torch.equal(one.centroids, fit(features, labels, 1, 8, "other", iterations=1).centroids)


def test_an_absent_class_and_a_small_one_shift_no_index() -> None:
    features, labels = images()
    found = fit(features, labels, CLASSES, CELLS, *KEY)
    assert found.counts[1].tolist() == [0, 0, 0] and sorted(found.counts[2].tolist()) == [0, 1, 1]
    assert found.counts[2, 2] == 0  # the last cell has no image: the others keep their places
    assert found.counts.sum(1).tolist() == [17, 0, 2, 30]
    assert all(tensor.isfinite().all() for tensor in (found.centroids, found.variances))
    twice = fit(torch.ones(6, D), torch.zeros(6, dtype=torch.int64), 1, CELLS, *KEY)
    assert twice.counts.tolist() == [[6, 0, 0]]  # six times the same image is one image


def test_an_empty_cell_is_given_the_farthest_image() -> None:
    line = torch.tensor([0.0, 1.0, 2.0, 9.0, 30.0, 31.0])[:, None]
    none = torch.zeros(6, dtype=torch.int64)
    # The second and third begin where no image is nearest: 9 lies farthest from its centroid, 2 next.
    start = torch.tensor([[[0.0], [1e3], [-1e3], [30.5]]])
    first = fit(line, none, 1, 4, *KEY, start=start, iterations=1)
    assert first.assignment.tolist() == [0, 0, 2, 1, 3, 3]
    assert first.counts.tolist() == [[2, 1, 1, 2]]
    assert first.centroids[0].flatten().tolist() == [0.5, 9.0, 2.0, 30.5]


@pytest.mark.parametrize("start", [None, "far"])
def test_the_sum_of_squares_never_rises_and_no_cell_stays_empty(start: str | None) -> None:
    features, labels = images((60, 41, 9, 30))
    far = None
    if start:
        far = torch.full((CLASSES, 7, D), 1e3, dtype=torch.float64)
        far[:, 2] = 11  # six of seven cells begin empty
    found = [fit(features, labels, CLASSES, 7, *KEY, start=far, iterations=steps) for steps in range(1, 15)]
    sums = [inertia(features, labels, each) for each in found]
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(sums))
    assert sums[-1] < sums[0] and (found[-1].counts > 0).all()


def test_half_precision_is_widened() -> None:
    features, labels = images()
    narrow = features.bfloat16()
    found, wide = (fit(x, labels, CLASSES, CELLS, *KEY) for x in (narrow, narrow.float()))
    assert found.centroids.dtype == torch.float32 and torch.equal(found.centroids, wide.centroids)


def test_nearest_is_the_nearest_used_cell_of_the_own_class() -> None:
    random = torch.Generator().manual_seed(2)
    features, centroids = torch.randn(20, D, generator=random), torch.randn(3, CELLS, D, generator=random)
    labels, used = torch.arange(20) % 3, torch.tensor([[True, True, True], [False, True, True], [False] * 3])
    cell, squares = nearest(features, labels, centroids, used)
    for i in range(20):
        options = [
            (features[i] - centroids[labels[i], k]).square().sum().item() if used[labels[i], k] else math.inf
            for k in range(CELLS)
        ]
        assert squares[i].item() == pytest.approx(min(options))
        assert cell[i] == options.index(min(options))


def begun(momentum: float, sizes: tuple[int, ...] = (17, 0, 2, 30)) -> tuple[RunningCells, Tensor, Tensor]:
    features, labels = images(sizes)
    return RunningCells(fit(features, labels, CLASSES, CELLS, *KEY), momentum), features, labels


def test_running_moments_are_those_of_weighted_images() -> None:
    """Every image, of the fit or of a batch, with its weight: the moments of the weighted sample."""
    running, features, labels = begun(0.7)
    rows, cells = [features], [running.assign(features, labels)]
    weights = [torch.full((len(features),), 1 / len(features), dtype=torch.float64)]
    random = torch.Generator().manual_seed(3)
    for size in (6, 1, 9):
        these = torch.randint(len(features), (size,), generator=random)
        batch = features[these] + 0.3
        cell = running.assign(batch, labels[these])
        running.update(batch, cell)
        weights = [0.7 * w for w in weights] + [torch.full((size,), 0.3 / size, dtype=torch.float64)]
        rows.append(batch)
        cells.append(cell)
    x, at, w = torch.cat(rows), torch.cat(cells), torch.cat(weights)
    assert running.weights.sum().item() == pytest.approx(1)
    for j in range(CLASSES * CELLS):
        own = at == j
        assert running.weights[j].item() == pytest.approx(w[own].sum().item())
        if own.any():
            share = (w[own] / w[own].sum())[:, None]
            mean = (share * x[own]).sum(0)
            assert torch.allclose(running.means[j], mean)
            assert torch.allclose(running.variances[j], (share * (x[own] - mean).square()).sum(0))


def test_a_class_that_comes_late_gets_a_cell() -> None:
    running, _, _ = begun(0.9)
    late, label = torch.full((2, D), 3.0, dtype=torch.float64), torch.ones(2, dtype=torch.int64)
    late[0] += 1
    cell = running.assign(late, label)
    running.update(late, cell)
    assert running.weights[CELLS : 2 * CELLS].tolist() == pytest.approx([0.1, 0, 0])
    assert torch.allclose(running.means[CELLS], late.mean(0))
    assert torch.allclose(running.variances[CELLS], late.var(0, correction=0))


def test_a_cell_that_runs_empty_takes_half_of_the_one_that_spreads_most() -> None:
    running, features, labels = begun(0.5, (20, 20, 20, 20))
    assert running.reseed(0.05) == 0
    of = 2 * CELLS  # the first cell of the third class
    heavy = of + int((running.weights * running.variances.sum(1))[of : of + CELLS].argmax())
    light = of + (heavy + 1 - of) % CELLS
    running.weights[heavy] += running.weights[light] * 0.999
    running.weights[light] *= 0.001
    others, theirs = features[labels != 2], labels[labels != 2]
    others[0] += 100  # farther away, but of another class
    outlier = running.means[heavy : heavy + 1] + 2.5
    running.update(
        torch.cat([others, outlier]), torch.cat([running.assign(others, theirs), torch.tensor([heavy])])
    )
    before, spread = running.weights.clone(), running.variances[heavy].clone()
    assert before[light] < 0.05 * before[of : of + CELLS].mean()
    assert running.reseed(0.05) == 1
    assert torch.equal(running.means[light], outlier[0]) and torch.equal(running.variances[light], spread)
    half = (before[light] + before[heavy]).item() / 2
    assert running.weights[[light, heavy]].tolist() == pytest.approx([half, half])
    rest = [j for j in range(CLASSES * CELLS) if j not in (light, heavy)]
    assert torch.equal(running.weights[rest], before[rest])
    running.weights[light] *= 1e-6
    assert running.reseed(0.05) == 0  # the farthest image has been used


def test_unexplained_is_the_share_within_cells() -> None:
    running, features, labels = begun(0.9)
    within = total = 0.0
    cell = running.assign(features, labels)
    for c in (0, 2, 3):
        own = features[labels == c]
        total += (own - own.mean(0)).square().sum().item()
    for j in cell.unique():
        own = features[cell == j]
        within += (own - own.mean(0)).square().sum().item()
    assert running.unexplained() == pytest.approx(within / total)
