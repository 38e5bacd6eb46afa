"""Logistic regression on scaled features."""

import warnings
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from mipriv.attacks.search.audits import Learner, Predict, Rows, chosen, spread


@dataclass(frozen=True)
class Logistic(Learner):
    """Multinomial, with a ridge penalty of which the strength is chosen on validation.

    Attributes:
        penalties: inverse strengths C of scikit-learn that are tried.
        steps: of L-BFGS at most; it may stop short of the optimum, which costs the attacker little.
    """

    access: ClassVar[Literal["features"]] = "features"
    penalties: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0)
    steps: int = 100

    def _learn(self, rows: Rows, seed: int) -> tuple[Predict, dict[str, float]]:
        own = rows.flat
        return chosen(own, ((c, self._fitted(own, c)) for c in self.penalties), "C")

    def _fitted(self, rows: Rows, c: float) -> Predict:
        model = LogisticRegression(C=c, max_iter=self.steps, class_weight="balanced")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(rows.x.double().numpy(), rows.y.numpy())
        present = torch.from_numpy(model.classes_)
        return lambda x: spread(
            torch.from_numpy(model.predict_log_proba(x.flatten(1).double().numpy())), present, rows.classes
        )
