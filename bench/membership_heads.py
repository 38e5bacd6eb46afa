"""Shadow heads all at once against one by one: ``python -m bench.membership_heads``.

Scikit-learn's digits through fixed ReLU random features, standardised; balanced halves. What is compared is
processor time of this process on one thread, wall time beside it, at equal objective gap: for each of
scikit-learn's tolerances, the loosest of ours whose heads lie no further above their minima, which L-BFGS in
float64 found. Ours counts all that it does: the common start and its curvature, factoring, the check in fp32.
Slow baselines train a few of the models, and their time is extrapolated in proportion; the lines say so.
Adam is another recipe, which ends elsewhere: its accuracy on records left out stands beside that of the
converged heads, and its batched form beside its sequential one.
"""

import argparse
import time
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

import tasks  # noqa: F401  (its threads spin but shortly)
from mipriv import draws
from mipriv.device import environment
from mipriv.shadows.design import balanced
from mipriv.shadows.heads import Heads, fit
from mipriv.shadows.objective import widened
from mipriv.shadows.recipes import Converged, Recipe, Steps

CLASSES, PENALTY = 10, 1e-3
EXACT = 1e-7  # tolerance of the minima that gaps are measured from
THEIRS = (1e-3, 1e-4, 1e-5)  # scikit-learn's; 1e-4 is its default
OURS = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
ADAM = Steps(100, 1e-2)


@dataclass(frozen=True)
class Work:
    """Records, and who trains on which.

    Attributes:
        features: [N, D] float32.
        labels: [N].
        members: [M, N].
        few: models that baselines train, and of which gaps are measured.
    """

    features: Tensor
    labels: Tensor
    members: Tensor
    few: int

    @classmethod
    def make(cls, records: int, dims: int, models: int, few: int) -> "Work":
        """The first records of one fixed order."""
        images, labels = load_digits(return_X_y=True)
        chosen = draws.stream(0, "records").permutation(len(images))[:records]
        drawn = draws.normal((images.shape[1], dims), "random features") * (2 / images.shape[1]) ** 0.5
        features = torch.relu(torch.from_numpy(images[chosen] / 16) @ drawn)
        features = (features - features.mean(0)) / features.std(0).clamp(min=1e-6)
        return cls(features.float(), torch.from_numpy(labels[chosen]), balanced(models, records, 0), few)

    def objective(self, weights: Tensor) -> Tensor:
        """[few], of what `Converged` minimises, in float64; weights [M, D+1, C]."""
        found = []
        for own, w in zip(self.members, weights[: self.few].double(), strict=False):
            z = self.features[own].double() @ w[:-1] + w[-1]
            found.append(F.cross_entropy(z, self.labels[own]) + PENALTY / 2 * w[:-1].square().sum())
        return torch.stack(found)

    def accuracy(self, weights: Tensor) -> float:
        """Of a few heads, on records that each was not trained on."""
        right = (self.features @ weights[: self.few, :-1] + weights[: self.few, -1:]).argmax(2) == self.labels
        return float(right[~self.members[: self.few]].double().mean())


def ours(work: Work, recipe: Recipe, precision: str) -> tuple[Heads, float, float]:
    """Heads of all models, ms a model of the processor and of the clock."""
    began = time.perf_counter(), time.process_time()
    heads = fit(work.features, work.labels, work.members, recipe, 0, classes=CLASSES, precision=precision)
    processor, wall = time.process_time() - began[1], time.perf_counter() - began[0]
    models = len(work.members)
    return heads, 1e3 * processor / models, 1e3 * wall / models


def scikit(work: Work, tolerance: float) -> tuple[Tensor, float, float]:
    """Weights [few, D+1, C] of as many models one by one, ms each of the processor and of the clock."""
    x, y, found = work.features.numpy(), work.labels.numpy(), []
    rows = [own.numpy() for own in work.members[: work.few]]
    began = time.perf_counter(), time.process_time()
    for own in rows:
        c = 1 / (PENALTY * own.sum())
        found.append(LogisticRegression(C=c, tol=tolerance, max_iter=10_000).fit(x[own], y[own]))
    processor, wall = time.process_time() - began[1], time.perf_counter() - began[0]
    weights = [np.concatenate([model.coef_, model.intercept_[:, None]], 1).T for model in found]
    return torch.from_numpy(np.stack(weights)), 1e3 * processor / work.few, 1e3 * wall / work.few


def adam(work: Work) -> tuple[Tensor, float, float]:
    """The same of a tight full-batch loop of torch's Adam, gradients in closed form."""
    found, began = [], (time.perf_counter(), time.process_time())
    for own in work.members[: work.few]:
        x = widened(work.features[own])
        hot, w = F.one_hot(work.labels[own], CLASSES).T.float(), torch.zeros(CLASSES, x.shape[1])
        optimizer = torch.optim.Adam([w], ADAM.lr, (ADAM.momentum, ADAM.second), ADAM.epsilon)
        for _ in range(ADAM.steps):
            w.grad = (((w @ x.T).softmax(0) - hot) / len(x)) @ x
            optimizer.step()
        found.append(torch.cat([w[:, 1 : work.features.shape[1] + 1], w[:, :1]], 1).T)
    processor, wall = time.process_time() - began[1], time.perf_counter() - began[0]
    return torch.stack(found), 1e3 * processor / work.few, 1e3 * wall / work.few


def converged_table(work: Work) -> None:
    """Ours at each of scikit-learn's gaps."""
    few = Work(work.features.double(), work.labels, work.members[: work.few], work.few)
    best = work.objective(ours(few, Converged(PENALTY, EXACT, most_iterations=2000), "fp32")[0].weights)

    def gap(weights: Tensor) -> float:
        return float(((work.objective(weights) - best) / best).mean())

    swept = {p: [(t, *ours(work, Converged(PENALTY, t), p)) for t in OURS] for p in ("fp32", "bf16")}
    plan = swept["fp32"][0][1].plan
    print(
        f"\nN={len(work.labels)}, D={work.features.shape[1]}, C={CLASSES}, M={len(work.members)}; {plan.why};"
    )
    print(f"scikit-learn trains {work.few} of the {len(work.members)} models, ms a model stand for all.\n")
    print("| heads | tolerance | gap, share of minimum | steps | ms a model, processor | ms, clock | ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for tolerance in THEIRS:
        weights, processor, wall = scikit(work, tolerance)
        theirs = gap(weights)
        print(f"| scikit-learn | {tolerance:g} | {theirs:.1e} | | {processor:.2f} | {wall:.2f} | 1 |")
        for precision, found in swept.items():
            within = [row for row in found if gap(row[1].weights) <= theirs]
            if not within:
                print(f"| ours, {precision} | | none as near | | | | |")
                continue
            t, heads, mine, clock = min(within, key=lambda row: row[2])
            steps, ratio = float(heads.iterations.double().mean()), processor / mine
            middle = f"{t:g} | {gap(heads.weights):.1e} | {steps:.1f} | {mine:.2f} | {clock:.2f}"
            print(f"| ours, {precision} | {middle} | **{ratio:.1f}** |", flush=True)


def adam_table(work: Work) -> None:
    """Adam of 100 steps, one by one and all at once, and converged heads."""
    weights, processor, wall = adam(work)
    print(
        f"\nAdam of {ADAM.steps} full-batch steps at {ADAM.lr:g}: a recipe of its own. One by one {work.few}"
    )
    print(f"of the {len(work.members)} models are trained: ms a model stand for all.\n")
    print("| heads | accuracy on records left out | ms a model, processor | ms, clock | ratio |")
    print("| --- | ---: | ---: | ---: | ---: |")
    print(f"| Adam, one by one | {work.accuracy(weights):.4f} | {processor:.2f} | {wall:.2f} | 1 |")
    rows: list[tuple[str, Recipe]] = [("Adam, at once", ADAM), ("L-BFGS, at once", Converged(PENALTY, 0.1))]
    for name, recipe in rows:
        for precision in ("fp32", "bf16"):
            heads, mine, clock = ours(work, recipe, precision)
            cost = (
                f"{work.accuracy(heads.weights):.4f} | {mine:.2f} | {clock:.2f} | **{processor / mine:.1f}**"
            )
            print(f"| {name}, {precision} | {cost} |", flush=True)


def main() -> int:
    """Command line: three tables in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.membership_heads", allow_abbrev=False)
    parser.add_argument("--models", type=int, default=257)
    parser.add_argument("--few", type=int, default=16, help="models that slow baselines train")
    parser.add_argument("--dims", type=int, default=768)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    native = "native" if torch.cpu.get_capabilities().get("avx512_bf16") else "emulated"
    print(f"One thread; torch {', '.join(environment(torch.device('cpu')).values())}; bf16: {native}.")
    work = Work.make(1797, given.dims, given.models, given.few)
    with threadpool_limits(1):
        converged_table(work)
        adam_table(work)
        converged_table(Work.make(200, given.dims, given.models, given.few))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
