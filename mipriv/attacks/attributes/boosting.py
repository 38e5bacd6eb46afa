"""Gradient boosting of small trees on histograms."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor

from mipriv.attacks.search.audits import Learner, Predict, Rows, spread


@dataclass(frozen=True)
class Boosting(Learner):
    """scikit-learn's, on the leading principal components; the number of trees is chosen on validation.

    Attributes:
        components: of the scaled features, at most; trees look at one at a time.
        trees: a class, at most.
        lr: shrinkage.
        leaves: of a tree, at most.
        bins: of a component.
    """

    access: ClassVar[Literal["features"]] = "features"
    components: int = 32
    trees: int = 60
    lr: float = 0.2
    leaves: int = 8
    bins: int = 32

    def _learn(self, rows: Rows, seed: int) -> tuple[Predict, dict[str, float]]:
        own = rows.flat
        _, _, v = torch.linalg.svd(own.x.double(), full_matrices=False)
        axes = v[: self.components].T

        def seen(x: Tensor) -> NDArray[np.float64]:
            found: NDArray[np.float64] = (x.flatten(1).double() @ axes).numpy()
            return found

        model = HistGradientBoostingClassifier(
            max_iter=self.trees,
            learning_rate=self.lr,
            max_leaf_nodes=self.leaves,
            max_bins=self.bins,
            min_samples_leaf=max(1, min(20, len(own.y) // 20)),
            class_weight="balanced",
            early_stopping=False,
            random_state=seed,
        ).fit(seen(own.x), own.y.numpy())
        present = torch.from_numpy(model.classes_)

        def scores(probabilities: NDArray[np.float64]) -> Tensor:
            return spread(torch.from_numpy(probabilities).log(), present, own.classes)

        ranks = [own.rank(scores(stage)) for stage in model.staged_predict_proba(seen(own.held_x))]
        kept = max(range(len(ranks)), key=lambda at: (ranks[at], -at))

        def predict(x: Tensor) -> Tensor:
            stages = model.staged_predict_proba(seen(x))
            return scores(next(stage for at, stage in enumerate(stages) if at == kept))

        return predict, {"trees": kept + 1.0}
