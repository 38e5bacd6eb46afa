"""Moments of cells while the features move: averages over batches, every batch counting less as it ages.

Of J = C K cells, K a class, the tensors are flat, cell k of class c at c K + k. One step costs what its batch
costs, not what all cells would: cells without an image in it only lose weight.
"""

import torch
from torch import Tensor

from mipriv.analysis.cells import Cells, nearest


class RunningCells:
    """Weights, means and variances of cells.

    Args:
        cells: to begin with.
        momentum: what a weight keeps a step: about 1 / (1 - momentum) batches are remembered. Means and
            variances are those of the images so weighted, West's update (CACM 22(9), 1979) for one batch.

    Attributes:
        weights: [J], summing to 1; 0 of a cell that is not used.
        means: [J, D].
        variances: [J, D].
    """

    def __init__(self, cells: Cells, momentum: float) -> None:
        self.classes, self.cells = cells.counts.shape
        self.momentum = momentum
        self.weights = (cells.counts / cells.counts.sum()).to(cells.centroids).flatten()
        self.means, self.variances = cells.centroids.flatten(0, 1), cells.variances.flatten(0, 1)
        self._far = cells.centroids.new_zeros(self.classes, cells.centroids.shape[2])
        self._far_square = cells.centroids.new_zeros(self.classes)

    def assign(self, features: Tensor, labels: Tensor) -> Tensor:
        """Cells [n] of images, each the nearest of its class, from features [n, D] and labels [n]."""
        cell, _ = self._nearest(features, labels)
        return labels * self.cells + cell

    @torch.no_grad()
    def update(self, features: Tensor, cell: Tensor) -> None:
        """Take a batch in: features [n, D] and their cells [n]."""
        count, mean, variance = batch_moments(features, cell)
        self._watch(features, cell)
        gain = (1 - self.momentum) * count / len(cell)
        weight = self.momentum * self.weights[cell] + gain
        share = (gain / weight)[:, None]
        moved = mean - self.means[cell]
        grown = (1 - share) * self.variances[cell] + share * variance + share * (1 - share) * moved.square()
        # Rows of one cell write the same: that of its first image, so that rounding decides nothing.
        of = first(cell)
        self.weights.mul_(self.momentum)
        self.weights[cell] = weight[of]
        self.means[cell] = (self.means[cell] + share * moved)[of]
        self.variances[cell] = grown[of]

    @torch.no_grad()
    def reseed(self, share: float) -> int:
        """In every class give the lightest cell, if it runs empty, half of the cell that spreads most.

        It moves to the image that lay farthest from its cell of late, with the variances of the cell that
        it was taken from; what is left of its weight goes there too.

        Args:
            share: of its class's mean weight below which a cell has run empty.

        Returns:
            Cells moved.
        """
        if self.cells == 1:
            return 0
        weights = self.weights.view(self.classes, self.cells)
        base = torch.arange(self.classes, device=weights.device) * self.cells
        light = base + weights.argmin(1)
        heavy = base + (weights * self.variances.sum(1).view_as(weights)).argmax(1)
        starved = self.weights[light] < share * weights.mean(1)
        these = starved & (light != heavy) & (self._far_square > 0)
        light, heavy = light[these], heavy[these]
        half = (self.weights[light] + self.weights[heavy]) / 2
        self.weights[light] = self.weights[heavy] = half
        self.means[light] = self._far[these]
        self.variances[light] = self.variances[heavy]
        self._far_square[these] = 0
        return len(light)

    def unexplained(self) -> float:
        """Share of the variance within classes that is left within their cells; NaN where there is none."""
        weights = self.weights.view(self.classes, self.cells, 1)
        means = self.means.view(self.classes, self.cells, -1)
        tiny = torch.finfo(weights.dtype).tiny
        centre = (weights * means).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp(min=tiny)
        within = (self.weights[:, None] * self.variances).sum()
        between = (weights * (means - centre).square()).sum()
        return float(within / (within + between))

    def _nearest(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        means = self.means.view(self.classes, self.cells, -1)
        return nearest(features, labels, means, self.weights.view(self.classes, self.cells) > 0)

    def _watch(self, features: Tensor, cell: Tensor) -> None:
        """Remember every class's image farthest from the mean of its cell, for a while."""
        labels = cell // self.cells
        apart = (features - self.means[cell]).square().sum(1)
        rivals = torch.where(labels[:, None] == labels, apart, -1.0)
        farthest = rivals.argmax(1)
        self._far_square *= self.momentum
        beaten = (apart[farthest] > self._far_square[labels]) & (self.weights[cell[farthest]] > 0)
        self._far[labels] = torch.where(beaten[:, None], features[farthest], self._far[labels])
        self._far_square[labels] = torch.where(beaten, apart[farthest], self._far_square[labels])


def batch_moments(features: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of every image's cell within a batch: images [n], mean [n, D] and variance [n, D]."""
    same = (cell[:, None] == cell).to(features)
    count = same.sum(1)
    mean = same @ features / count[:, None]
    return count, mean, same @ (features - mean).square() / count[:, None]


def first(cell: Tensor) -> Tensor:
    """Every image's first fellow in a batch of cells [n]: its place [n], its own where it is the first."""
    place = torch.arange(len(cell), device=cell.device)
    return torch.where(cell[:, None] == cell, place, len(cell)).amin(1)
