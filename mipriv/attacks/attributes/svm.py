"""A support vector machine with a Gaussian kernel."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from sklearn.svm import SVC
from torch import Tensor

from mipriv.attacks.search.audits import Learner, Predict, Rows, chosen, spread

SHARPEN = 3.0  # from votes and margins to scores; the order of classes is what matters


@dataclass(frozen=True)
class SVM(Learner):
    """Kernel exp(-gamma |x - x'|^2), its width and the penalty of slack chosen on validation.

    Distances are computed once for all choices.

    Attributes:
        penalties: C that are tried.
        widths: gamma that are tried, in units of 1 / (number of features * their mean square).
        rows: at most this many are learnt from, the first; the cost grows with their square.
    """

    access: ClassVar[Literal["features"]] = "features"
    penalties: tuple[float, ...] = (1.0, 10.0)
    widths: tuple[float, ...] = (0.25, 1.0)
    rows: int = 4000

    def _learn(self, rows: Rows, seed: int) -> tuple[Predict, dict[str, float]]:
        own = rows.flat
        x, y = own.x[: self.rows].double(), own.y[: self.rows]
        if len(y.unique()) == 1:
            x, y = own.x.double(), own.y
        unit = 1 / (x.shape[1] * float(x.square().mean().clamp_min(1e-12)))
        squares = torch.cdist(x, x).square()
        options = (
            (c * 1000 + width, self._fitted(x, y, squares, c, width * unit, own.classes))
            for c in self.penalties
            for width in self.widths
        )
        predict, notes = chosen(own, options, "choice")
        c, width = divmod(notes["choice"], 1000)
        return predict, {"C": c, "gamma": width * unit}

    def _fitted(self, x: Tensor, y: Tensor, squares: Tensor, c: float, gamma: float, classes: int) -> Predict:
        model = SVC(C=c, kernel="precomputed", class_weight="balanced", decision_function_shape="ovr")
        model.fit(torch.exp(-gamma * squares).numpy(), y.numpy())
        present = torch.from_numpy(model.classes_)

        def predict(of: Tensor) -> Tensor:
            kernel = torch.exp(-gamma * torch.cdist(of.flatten(1).double(), x).square())
            margins = torch.from_numpy(model.decision_function(kernel.numpy()))
            if margins.ndim == 1:
                margins = torch.stack([-margins, margins], 1)
            return spread((SHARPEN * margins).log_softmax(-1), present, classes)

        return predict
