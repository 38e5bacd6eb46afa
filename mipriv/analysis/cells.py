"""k-means inside every class at once: the cells whose moments bound what features tell of an image.

Classes are independent of one another, so they are laid beside each other, [B, m, D], padded to the largest
of a block, and every step of the algorithm is one tensor operation over the block. A cell keeps its index
whatever happens to it: a cell without images has a count of 0, and no other takes its place.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mipriv import draws
from mipriv.draws import Key


@dataclass(frozen=True)
class Cells:
    """A partition of the images of every class.

    Attributes:
        centroids: [C, K, D], the means of the cells.
        variances: [C, K, D], mean squared deviations from them, dimension by dimension.
        counts: [C, K] int64, images; 0 of cells that are not used, whose centroids mean nothing.
        assignment: [n] int64, every image's cell within its own class.
    """

    centroids: Tensor
    variances: Tensor
    counts: Tensor
    assignment: Tensor


@torch.no_grad()
def fit(
    features: Tensor,
    labels: Tensor,
    classes: int,
    cells: int,
    *key: Key,
    start: Tensor | None = None,
    iterations: int = 20,
    block: int = 2**26,
) -> Cells:
    """Lloyd's iterations (IEEE Trans. Inf. Theory 28(2), 1982) from k-means++ seeds, in every class.

    Seeds are drawn with probabilities proportional to squared distances (Arthur & Vassilvitskii, SODA 2007).
    An empty cell is given the image farthest from its centroid in that class, two empty cells the two
    farthest, so that the sum of squared distances never rises. A class of fewer distinct images than cells
    uses as many cells as it has images.

    Args:
        features: [n, D] of any floating type; computed in float32 at least.
        labels: [n] int64, below `classes`.
        classes: C; a class may be absent.
        cells: K a class.
        key: of the draws; those of a class depend on its number, not on how many classes there are, nor on
            the order of the images.
        start: [C, K, D] to begin at, instead of drawn seeds.
        iterations: at most, from 1; fewer where nothing moves any more.
        block: numbers of padded features held at a time, at least those of one class.
    """
    wide = features if features.dtype == torch.float64 else features.float()
    order, counts = _order(wide, labels, key), torch.bincount(labels, minlength=classes)
    first = counts.cumsum(0) - counts
    uniforms = draws.uniform((classes, cells), *key, "seeds").to(wide.device)
    means, variances = (wide.new_zeros(classes, cells, wide.shape[1]) for _ in range(2))
    sizes = counts.new_zeros(classes, cells)
    assignment = torch.zeros_like(labels)
    for these, most in _blocks(counts, max(1, block // max(1, wide.shape[1]))):
        place = torch.arange(most, device=wide.device)
        real = place < counts[these, None]
        rows = order[(first[these, None] + place).clamp(max=len(order) - 1)]
        # Distances lose fewer digits about the mean of the class.
        centre = (wide[rows] * real[..., None]).sum(1, keepdim=True) / counts[these, None, None]
        x = (wide[rows] - centre) * real[..., None]
        if start is None:
            seeds, used = _seeds(x, real, uniforms[these])
        else:
            seeds, used = start[these].to(x) - centre, real.new_ones(len(these), cells)
        cell, centroids = _lloyd(x, real, seeds, used, iterations)
        members = _members(cell, real, cells).to(x)
        deviations = (x - _own(centroids, cell)).square() * real[..., None]
        sizes[these] = members.sum(1).long()
        means[these] = centroids + centre
        variances[these] = members.mT @ deviations / members.sum(1).clamp(min=1)[..., None]
        assignment[rows[real]] = cell[real]
    return Cells(means, variances, sizes, assignment)


def nearest(features: Tensor, labels: Tensor, centroids: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest used cell of an image's own class, and the squared distance to its centroid.

    Args:
        features: [n, D]; a batch: [n, K, D] numbers are held.
        labels: [n] int64.
        centroids: [C, K, D].
        used: [C, K] bool. Of a class without any, the cell is 0 and the distance infinite.

    Returns:
        [n] int64 and [n].
    """
    squares = (features[:, None] - centroids[labels]).square().sum(2)
    found = squares.masked_fill(~used[labels], torch.inf).min(1)
    return found.indices, found.values


def _order(features: Tensor, labels: Tensor, key: tuple[Key, ...]) -> Tensor:
    """Images [n] by class, and in it along a drawn direction: an order that is no matter of their places."""
    direction = draws.normal((features.shape[1],), *key, "order").to(features.device)
    size = max(1, 2**24 // max(1, features.shape[1]))
    along = torch.cat([(part.double() * direction).sum(1) for part in features.split(size)])
    order = along.argsort(stable=True)
    return order[labels[order].argsort(stable=True)]


def _blocks(counts: Tensor, rows: int) -> Iterator[tuple[Tensor, int]]:
    """Classes [B] that are there, largest first so that little is padded, and the largest's images."""
    ordered = counts.sort(descending=True, stable=True)
    sizes = [size for size in ordered.values.tolist() if size]
    at = 0
    while at < len(sizes):
        width = min(max(1, rows // sizes[at]), len(sizes) - at)
        yield ordered.indices[at : at + width], sizes[at]
        at += width


def _seeds(x: Tensor, real: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Images [B, m, D] to seeds [B, K, D] and which of them are seeds: no image is left where one is not."""
    chosen: list[Tensor] = []
    used: list[Tensor] = []
    squares = real.double()
    for uniform in uniforms.unbind(1):
        mass = squares.cumsum(1)
        total = mass[:, -1:]
        at = torch.searchsorted(mass, uniform[:, None] * total, right=True).clamp(max=x.shape[1] - 1)
        seed = x.gather(1, at[..., None].expand(-1, -1, x.shape[2]))
        apart = (x - seed).square().sum(2).double() * real
        squares = torch.minimum(squares, apart) if chosen else apart
        chosen.append(seed)
        used.append(total > 0)
    return torch.cat(chosen, 1), torch.cat(used, 1)


def _lloyd(
    x: Tensor, real: Tensor, centroids: Tensor, used: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Cells [B, m] and their centroids [B, K, D]."""
    lengths = x.square().sum(2, keepdim=True)
    before = cell = torch.full_like(real, -1, dtype=torch.int64)
    for _ in range(iterations):
        apart = lengths - 2 * (x @ centroids.mT) + centroids.square().sum(2)[:, None]
        cell = apart.masked_fill(~used[:, None], torch.inf).argmin(2)
        sizes = _members(cell, real, centroids.shape[1]).sum(1)
        if bool((sizes == 0).any()):
            cell, used = _reseeded(x, real, centroids, cell, sizes, used)
        members = _members(cell, real, centroids.shape[1]).to(x)
        sums, sizes = members.mT @ x, members.sum(1)[..., None]
        centroids = torch.where(sizes > 0, sums / sizes.clamp(min=1), centroids)
        if torch.equal(cell, before):
            break
        before = cell
    return cell, centroids


def _reseeded(
    x: Tensor, real: Tensor, centroids: Tensor, cell: Tensor, sizes: Tensor, used: Tensor
) -> tuple[Tensor, Tensor]:
    """Cells [B, m] with the images farthest from their centroids moved to empty cells, and cells in use."""
    apart = (x - _own(centroids, cell)).square().sum(2) * real
    far = apart.topk(min(sizes.shape[1], x.shape[1]), dim=1)
    rank = (sizes == 0).cumsum(1) - 1  # the how-manieth empty cell of its class
    within = rank.clamp(0, far.indices.shape[1] - 1)
    moved = (sizes == 0) & (rank < far.indices.shape[1]) & (far.values.gather(1, within) > 0)
    # Cells that get no image write into a column that is dropped.
    to = torch.where(moved, far.indices.gather(1, within), x.shape[1])
    names = torch.arange(sizes.shape[1], device=x.device).expand_as(to)
    return F.pad(cell, (0, 1)).scatter(1, to, names)[:, :-1], used | moved


def _members(cell: Tensor, real: Tensor, cells: int) -> Tensor:
    """[B, m, K] int64, one where an image lies in a cell."""
    return F.one_hot(cell, cells) * real[..., None]


def _own(centroids: Tensor, cell: Tensor) -> Tensor:
    """Every image's centroid, [B, m, D]."""
    return centroids.gather(1, cell[..., None].expand(-1, -1, centroids.shape[2]))
