"""Trains every shadow head and answers with its logits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mipriv.errors import InputError
from mipriv.plugin import one_of
from mipriv.shadows import planner
from mipriv.shadows.converged import Start, common, nought, solve
from mipriv.shadows.objective import gathered, masked, widened
from mipriv.shadows.planner import Plan
from mipriv.shadows.recipes import Recipe, Steps
from mipriv.shadows.steps import minibatches, train
from mipriv.solvers.lbfgs import Stop

CHECKED = 4  # models that are trained in fp32 as well, where products are bf16
APART = 0.1  # the furthest that logits of these may be apart, as a share of how they vary over models


@dataclass(frozen=True)
class Heads:
    """Trained heads.

    Attributes:
        weights: [M, D+1, C]; the last row is the bias.
        converged: [M] bool; of `Steps`: whether its objective is finite.
        iterations: [M] int64.
        objective: [M], mean cross-entropy over the members, and the penalty of `Converged`.
        plan: how they were trained.
        apart: of heads in bf16, how far logits of a few are from those of the same in fp32: root of the mean
            square, as a share of that by which models differ from their mean. 0 for fp32.
    """

    weights: Tensor
    converged: Tensor
    iterations: Tensor
    objective: Tensor
    plan: Plan
    apart: float = 0.0

    def logits(self, features: Tensor) -> Tensor:
        """[M, N', C] of features [N', D]."""
        # One product for all heads: a product a head has few columns, and is several times slower.
        flat = self.weights[:, :-1].transpose(0, 1).flatten(1)
        found: Tensor = (features.to(self.weights) @ flat).unflatten(1, (len(self.weights), -1))
        return found.transpose(0, 1) + self.weights[:, -1:]


def fit(
    features: Tensor,
    labels: Tensor,
    members: Tensor,
    recipe: Recipe,
    seed: int,
    *,
    classes: int,
    precision: str = "fp32",
    plan: Plan | None = None,
    first: int = 0,
) -> Heads:
    """Train a head on each model's members.

    A model among others is the model alone, but for rounding: of its neighbours it takes nothing. A common
    start is computed from all N records, whoever their members are.

    Args:
        features: [N, D], float32 or float64, in which the state of training is kept.
        labels: [N] int64.
        members: [M, N] bool.
        recipe: see `mipriv.shadows.recipes`.
        seed: of the orders of records, where there are batches.
        classes: C.
        precision: of products, `fp32` (that of the features) or `bf16`; then a few models are trained in fp32
            too, and compared.
        plan: None: the planner's.
        first: number of the first model in the whole design, where it is trained in parts.

    Raises:
        InputError: shapes or labels that do not belong together, a model without members, factoring where the
            recipe does not turn with the features, or bf16 that ends too far from fp32.
    """
    _check(features, labels, members, classes, precision)
    plan = plan or planner.plan(len(features), features.shape[1], classes, recipe)
    if plan.qr and not recipe.turns:
        raise InputError(
            "plan.qr: true; allowed: false for adam, whose steps change where features are turned"
        )
    turned, basis = _factored(features) if plan.qr else (features, None)
    wide = widened(turned)
    trainer = _Trainer(
        wide, labels, recipe, seed, classes, plan, _start(wide, labels, len(members), recipe, classes)
    )
    w, done, taken, value = trainer(members, precision, first)
    apart = 0.0
    if precision == "bf16":
        apart = _apart(w[:CHECKED], trainer(members[:CHECKED], "fp32", first)[0], wide)
    if not apart <= APART:
        raise InputError(
            f"precision: bf16 is {apart:.2g} from fp32, of what models differ by; allowed: {APART}"
        )
    heads = w[:, :, 1 : turned.shape[1] + 1]
    heads = heads if basis is None else heads @ basis.T
    return Heads(torch.cat([heads, w[:, :, :1]], 2).mT, done, taken, value, plan, apart)


@dataclass(frozen=True)
class _Trainer:
    """What all chunks of heads share."""

    wide: Tensor
    labels: Tensor
    recipe: Recipe
    seed: int
    classes: int
    plan: Plan
    start: Start | None

    def __call__(self, members: Tensor, precision: str, first: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Heads [M, C, P], whether they are done [M], steps [M] and objectives [M]."""
        chunk = self.plan.chunk
        parts = [
            self._chunk(members[i : i + chunk], precision, first + i) for i in range(0, len(members), chunk)
        ]
        w, done, taken, value = (torch.cat(part) for part in zip(*parts, strict=True))
        return w, done, taken, value

    def _chunk(self, members: Tensor, precision: str, first: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        make = masked if self.plan.how == "masked" else gathered
        objective = make(self.wide, self.labels, members, self.classes, precision)
        recipe = self.recipe
        if isinstance(recipe, Steps):
            batches = minibatches(objective, self.wide, self.labels, members, recipe, self.seed, first)
            w, value = train(objective, batches, recipe)
            return w, value.isfinite(), torch.full_like(members[:, 0], recipe.steps, dtype=torch.int64), value
        assert self.start is not None
        stop = Stop(recipe.tolerance, recipe.least_iterations, recipe.most_iterations)
        found = solve(objective, self.start, recipe.penalty, stop)
        w = found.x.unflatten(1, (self.classes, -1))
        # One number added to all biases of a head changes nothing; they sum to nought, as from a start there.
        w[:, :, 0] -= w[:, :, 0].mean(1, keepdim=True)
        return w, found.converged, found.steps, found.value


def _start(wide: Tensor, labels: Tensor, models: int, recipe: Recipe, classes: int) -> Start | None:
    """Where all heads start, if not each at nought by its recipe."""
    if isinstance(recipe, Steps):
        return None
    if not recipe.warm:
        return nought(wide, classes)
    curved = planner.curved(models, len(wide), wide.shape[1], classes)
    return common(wide, labels, classes, recipe, curved)


def _factored(features: Tensor) -> tuple[Tensor, Tensor]:
    """Features [N, N] in an orthonormal basis [D, N] of what N of them, fewer than D, span."""
    basis, turned = torch.linalg.qr(features.T)
    return turned.T.contiguous(), basis


def _apart(w: Tensor, exact: Tensor, wide: Tensor) -> float:
    """See `Heads`; of heads [k, C, P]. A single one is held against its own logits."""
    z, other = exact @ wide.T, w @ wide.T
    varies = z - z.mean(0) if len(z) > 1 else z
    return float((other - z).square().mean().sqrt() / varies.square().mean().sqrt())


def _check(features: Tensor, labels: Tensor, members: Tensor, classes: int, precision: str) -> None:
    one_of(precision, ("fp32", "bf16"), "precision")
    if features.ndim != 2 or features.dtype not in (torch.float32, torch.float64):
        raise InputError(
            f"features: {features.dtype} {list(features.shape)}; allowed: float32 or float64 [N, D]"
        )
    n = len(features)
    if labels.shape != (n,) or labels.dtype != torch.int64:
        raise InputError(f"labels: {labels.dtype} {list(labels.shape)}; allowed: int64 [{n}]")
    if classes < 2 or not bool(((labels >= 0) & (labels < classes)).all()):
        raise InputError(f"labels: some of no class; allowed: 0 to {classes - 1}, of two classes or more")
    if members.ndim != 2 or members.shape[1] != n or members.dtype != torch.bool or not len(members):
        raise InputError(f"members: {members.dtype} {list(members.shape)}; allowed: bool [M, {n}], M from 1")
    empty = (~members.any(1)).nonzero()
    if len(empty):
        raise InputError(f"members: model {int(empty[0])} has none; allowed: from one record")
