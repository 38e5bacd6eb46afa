"""How a head is trained: two declared algorithms, the same for a target and for its shadows.

They are not two ways to one result. Both lower the mean cross-entropy of a head over the records that it is
trained on, from weights and biases of nought; `Steps` stops where its steps end, `Converged` adds a penalty
and goes to the only minimum. A converged head gives away more, so none stands in for the other.
"""

from dataclasses import dataclass

from mipriv.errors import InputError
from mipriv.plugin import one_of


@dataclass(frozen=True)
class Steps:
    """Adam or SGD, step by step: (1/b) sum of -log p(y|x) over the batch, no penalty.

    Equal to a head trained alone by `torch.optim.Adam` or `torch.optim.SGD`. Where b divides no epoch evenly
    its last batch is smaller, and its mean is over what it holds.

    Attributes:
        steps: of the optimiser.
        lr: learning rate.
        optimizer: `adam` or `sgd`.
        batch_size: records a step, each model's own in an order of its own; None: all of them.
        momentum: of SGD, without dampening or Nesterov's form; Adam's first decay rate.
        second: Adam's second decay rate.
        epsilon: Adam's.
    """

    steps: int
    lr: float
    optimizer: str = "adam"
    batch_size: int | None = None
    momentum: float = 0.9
    second: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        one_of(self.optimizer, ("adam", "sgd"), "optimizer")
        _require(self.steps >= 1, "steps", self.steps, "from 1")
        _require(self.lr > 0, "lr", self.lr, "above 0")
        _require(self.batch_size is None or self.batch_size >= 1, "batch_size", self.batch_size, "from 1")
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "from 0, below 1")
        _require(0 <= self.second < 1, "second", self.second, "from 0, below 1")
        _require(self.epsilon > 0, "epsilon", self.epsilon, "above 0")

    @property
    def turns(self) -> bool:
        """Whether turning the features turns the heads and changes nothing else: of SGD, not of Adam."""
        return self.optimizer == "sgd"


@dataclass(frozen=True)
class Converged:
    """The minimum of (1/n) sum of -log p(y|x) + penalty/2 |W|^2 over the members; biases are not penalised.

    Biases that differ by one number for all classes are one head; theirs sum to nought.

    scikit-learn's `LogisticRegression` of C = 1 / (n penalty) has the same objective.

    Attributes:
        penalty: above 0, else heads of separable records have no minimum.
        tolerance: of the norm of a model's gradient, as a share of its own at the start or at nought,
            whichever is less: see `mipriv.solvers.lbfgs.Stop`.
        least_iterations: each model takes these however small its gradient.
        most_iterations: a model that takes these and is not done has not converged.
        warm: begin at the minimum over all records rather than at nought, with that minimum's curvature.
    """

    penalty: float
    tolerance: float = 1e-3
    least_iterations: int = 3
    most_iterations: int = 500
    warm: bool = True

    def __post_init__(self) -> None:
        _require(self.penalty > 0, "penalty", self.penalty, "above 0")
        _require(0 < self.tolerance < 1, "tolerance", self.tolerance, "above 0, below 1")
        _require(self.least_iterations >= 1, "least_iterations", self.least_iterations, "from 1")
        fits = self.most_iterations >= self.least_iterations
        _require(
            fits, "most_iterations", self.most_iterations, f"from least_iterations, {self.least_iterations}"
        )

    @property
    def turns(self) -> bool:
        """Whether turning the features turns the heads and changes nothing else: yes."""
        return True


Recipe = Steps | Converged


def _require(good: bool, name: str, value: object, allowed: str) -> None:
    if not good:
        raise InputError(f"{name}: {value}; allowed: {allowed}")
