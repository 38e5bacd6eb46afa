"""Cross-entropies of many heads at once, and their gradients, as a few large matrix products.

A head is a row of k x C x P numbers, the first of P for the bias (the last, of features that are nought, stay
nought). Either all heads see all N records, and those that are not a head's weigh nothing (*masked*: one
product of [k C, P] with [P, N]), or each sees its own n alone (*gathered*: k products of [C, P] with [P, n]).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

ROUND = 8  # bf16 kernels are a third slower where rows of matrices are not whole multiples


def widened(features: Tensor) -> Tensor:
    """[N, D] after a column of ones, and before as many of zeros as make P a whole multiple, [N, P]."""
    ones = F.pad(features, (1, 0), value=1.0)
    return F.pad(ones, (0, -ones.shape[1] % ROUND))


@dataclass
class Objective:
    """Weighted cross-entropies of k heads over records.

    Attributes:
        features: [N, P], or [k, n, P] where each head has its own.
        labels: [N] or [k, n].
        weights: [k, N] or [k, n] float, of each record in each head's sum.
        classes: C.
        precision: `bf16`: operands and results of the products are bfloat16, sums within them float32.
        rows: [k, n], which records each head has of its own; None: all.
    """

    features: Tensor
    labels: Tensor
    weights: Tensor
    classes: int
    precision: str = "fp32"
    rows: Tensor | None = None

    def __post_init__(self) -> None:
        self.dtype = self.weights.dtype
        if self.precision == "bf16":
            self.features = self.features.bfloat16()
        # Transposed once: a product with the transposed view packs it anew every time.
        self._columns = self.features.mT.contiguous() if self.precision == "bf16" else self.features.mT

    def times(self, w: Tensor) -> Tensor:
        """Logits [k, C, n] of heads [k, C, P]."""
        z = w.to(self.features.dtype).reshape(*self._rows(w), w.shape[-1]) @ self._columns
        return z.view(len(w), self.classes, -1).to(self.dtype)

    def transposed(self, r: Tensor) -> Tensor:
        """Sums over records [k, C, P] of features times r [k, C, n]."""
        g = r.to(self.features.dtype).reshape(*self._rows(r), r.shape[-1]) @ self.features
        return g.view(len(r), self.classes, -1).to(self.dtype)

    def loss(self, z: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Sums of weighted cross-entropies [j], and their gradients by the logits z [j, C, n].

        Args:
            at: [j], which of the k heads these are; None: all.
        """
        weights = self.weights if at is None else self.weights[at]
        labels = self.labels if at is None or self.labels.ndim == 1 else self.labels[at]
        labels = labels.expand(len(z), z.shape[2])[:, None]
        r = z.softmax(1)
        # log sum exp = the greatest logit less the log of its share, which is from 1/C: never of nought.
        total = z.amax(1) - r.amax(1).log()
        value = ((total - z.gather(1, labels)[:, 0]) * weights).sum(1)
        r *= weights[:, None]
        return value, r.scatter_add_(1, labels, -weights[:, None])

    def keep(self, going: Tensor) -> None:
        """Leave out all heads but those of a [k] mask."""
        self.weights = self.weights[going]
        if self.features.ndim == 3:
            self.features, self.labels = self.features[going], self.labels[going]
            self.rows = None if self.rows is None else self.rows[going]
            self._columns = self._columns[going] if self.precision == "bf16" else self.features.mT

    def _rows(self, of: Tensor) -> tuple[int, ...]:
        """All but the last of the sizes that a product takes."""
        return (len(of) * self.classes,) if self.features.ndim == 2 else (len(of), self.classes)


def masked(
    features: Tensor, labels: Tensor, members: Tensor, classes: int, precision: str = "fp32"
) -> Objective:
    """Mean cross-entropies of heads over their members [k, N], all over the same features [N, P]."""
    weights = members.to(features.dtype)
    return Objective(features, labels, weights / weights.sum(1, keepdim=True), classes, precision)


def gathered(
    features: Tensor, labels: Tensor, members: Tensor, classes: int, precision: str = "fp32"
) -> Objective:
    """The same over rows of each head's own: what fewer members leave empty weighs nothing."""
    counts = members.sum(1)
    rows = members.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, : int(counts.max())]
    weights = members.gather(1, rows).to(features.dtype) / counts[:, None]
    return Objective(features[rows], labels[rows], weights, classes, precision, rows)
