"""Shadow heads against heads trained one by one, by torch's optimisers and by scikit-learn."""

from dataclasses import replace

import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv import draws
from mipriv.errors import InputError
from mipriv.shadows import converged as converged_module
from mipriv.shadows.design import balanced
from mipriv.shadows.heads import Heads, fit
from mipriv.shadows.objective import gathered, masked, widened
from mipriv.shadows.planner import Plan, plan
from mipriv.shadows.recipes import Converged, Recipe, Steps
from mipriv.solvers.lbfgs import Stop, lbfgs

N, D, C, M = 60, 7, 3, 6
MASKED = Plan("masked", False, 4, "")
TIGHT = Converged(penalty=1e-2, tolerance=1e-9)
RECIPES = [
    Steps(30, 0.05),
    Steps(30, 0.05, batch_size=8),
    Steps(30, 0.1, "sgd"),
    Steps(30, 0.1, "sgd", batch_size=8, momentum=0.0),
]


def data(n: int = N, d: int = D, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % C
    centres = torch.randn(C, d, generator=random, dtype=torch.float64)
    features = centres[labels] + torch.randn(n, d, generator=random, dtype=torch.float64)
    return features.to(dtype), labels


def trained(recipe: Recipe, plan: Plan | None = MASKED, n: int = N, d: int = D, **other: object) -> Heads:
    members = balanced(M, n, 3)
    return fit(*data(n, d), members, recipe, 5, classes=C, plan=plan, **other)  # type: ignore[arg-type]


def alone(recipe: Steps, own: Tensor, features: Tensor, labels: Tensor, model: int) -> Tensor:
    """[D+1, C], of one head by torch's own optimiser."""
    head = nn.Linear(features.shape[1], C).double()
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = (
        torch.optim.Adam(head.parameters(), recipe.lr, (recipe.momentum, recipe.second), recipe.epsilon)
        if recipe.optimizer == "adam"
        else torch.optim.SGD(head.parameters(), recipe.lr, recipe.momentum)
    )
    rows = own.nonzero()[:, 0]
    random = draws.stream(5, "order of records", model)
    batches: list[Tensor] = []
    for _ in range(recipe.steps):
        if not batches:
            size = recipe.batch_size
            batches = list(torch.from_numpy(random.permutation(rows.numpy())).split(size)) if size else [rows]
        batch = batches.pop(0)
        optimizer.zero_grad()
        F.cross_entropy(head(features[batch]), labels[batch]).backward()
        optimizer.step()
    return torch.cat([head.weight, head.bias[:, None]], 1).T.detach()


@pytest.mark.parametrize("how", ["masked", "gathered"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_steps_are_those_of_torch_on_each_models_own_records(recipe: Steps, how: str) -> None:
    heads, members = trained(recipe, replace(MASKED, how=how)), balanced(M, N, 3)
    features, labels = data()
    for m in range(M):
        expected = alone(recipe, members[m], features, labels, m)
        assert (heads.weights[m] - expected).abs().max() < 1e-8
        z = (features @ expected[:-1] + expected[-1])[members[m]]
        assert abs(heads.objective[m] - F.cross_entropy(z, labels[members[m]])) < 1e-8
    assert heads.converged.all() and heads.iterations.tolist() == [30] * M


@pytest.mark.parametrize(("warm", "how"), [(True, "masked"), (False, "masked"), (True, "gathered")])
def test_converged_heads_are_scikit_learns(warm: bool, how: str) -> None:
    heads, members = trained(replace(TIGHT, warm=warm), replace(MASKED, how=how)), balanced(M, N, 3)
    features, labels = data()
    assert heads.converged.all()
    for m, own in enumerate(members):
        x, y = features[own].numpy(), labels[own].numpy()
        solver = LogisticRegression(C=1 / (1e-2 * len(x)), tol=1e-10, max_iter=5000).fit(x, y)
        weights = heads.weights[m]
        assert abs(weights[:-1].T - torch.from_numpy(solver.coef_)).max() < 1e-5
        z = features[own] @ torch.from_numpy(solver.coef_.T) + torch.from_numpy(solver.intercept_)
        best = F.cross_entropy(z, labels[own]) + 1e-2 / 2 * (solver.coef_**2).sum()
        assert abs(heads.objective[m] - best) < 1e-8


@pytest.mark.parametrize("recipe", [TIGHT, replace(TIGHT, warm=False), RECIPES[2], RECIPES[3]])
def test_in_the_span_of_few_records_heads_are_the_same(recipe: Recipe) -> None:
    plain = trained(recipe, MASKED, 24, 40)
    turned = trained(recipe, replace(MASKED, qr=True), 24, 40)
    assert (plain.weights - turned.weights).abs().max() < 1e-6
    assert (plain.logits(data(24, 40)[0]) - turned.logits(data(24, 40)[0])).abs().max() < 1e-6


def test_adam_does_not_turn_with_the_features_and_is_refused() -> None:
    with pytest.raises(InputError, match=r"plan.qr: true; allowed: false for adam"):
        trained(RECIPES[0], replace(MASKED, qr=True), 24, 40)
    assert not plan(24, 40, C, RECIPES[0]).qr and plan(24, 40, C, RECIPES[2]).qr


@pytest.mark.parametrize("how", ["masked", "gathered"])
@pytest.mark.parametrize("recipe", [Steps(2, 0.1), Steps(2, 0.1, batch_size=4), Converged(1e-2)])
def test_a_model_alone_is_the_model_among_others(recipe: Recipe, how: str) -> None:
    together, members = trained(recipe, replace(MASKED, how=how, chunk=6)), balanced(M, N, 3)
    for m in (0, 4):
        one = fit(*data(), members[m : m + 1], recipe, 5, classes=C, plan=replace(MASKED, how=how), first=m)
        assert (one.weights[0] - together.weights[m]).abs().max() < 1e-8
        assert one.iterations[0] == together.iterations[m]


def test_a_warm_start_and_a_loose_tolerance_still_leave_each_model_its_own() -> None:
    """Else every shadow is the model of all records, and membership is at chance."""
    members, (features, labels) = balanced(M, N, 3), data()
    best = trained(TIGHT)
    loose = trained(Converged(1e-2, tolerance=0.3, least_iterations=1))
    assert (loose.iterations >= 1).all()
    everyone = fit(features, labels, torch.ones(1, N, dtype=torch.bool), TIGHT, 5, classes=C)
    moved = (best.weights - everyone.weights).flatten(1).norm(dim=1)
    missed = (loose.weights - best.weights).flatten(1).norm(dim=1)
    assert (missed < 0.7 * moved).all()
    shared = everyone.weights[0]
    for own, weights in zip(members, loose.weights, strict=True):
        x, y = features[own], labels[own]
        at_start, at_nought, here = (slope(w, x, y) for w in (shared, torch.zeros_like(shared), weights))
        assert at_start < 0.3 * at_nought  # a tolerance of the gradient at nought would stop here at once
        assert here < 0.3 * at_start


@pytest.mark.parametrize("least", [1, 4])
def test_a_model_that_starts_at_its_minimum_takes_the_least_iterations(least: int) -> None:
    members = torch.ones(2, N, dtype=torch.bool)
    recipe = Converged(1e-2, tolerance=0.9, least_iterations=least)
    heads = fit(*data(), members, recipe, 0, classes=C, plan=MASKED)
    assert heads.iterations.tolist() == [least, least]


def test_a_model_without_time_has_not_converged() -> None:
    heads = trained(replace(TIGHT, least_iterations=1, most_iterations=2))
    assert not heads.converged.any() and heads.iterations.tolist() == [2] * M


def slope(weights: Tensor, features: Tensor, labels: Tensor) -> float:
    """Norm of the gradient of what `Converged(1e-2)` minimises, by autograd."""
    w = weights.clone().requires_grad_()
    value = F.cross_entropy(features @ w[:-1] + w[-1], labels) + 1e-2 / 2 * w[:-1].square().sum()
    return float(torch.autograd.grad(value, w)[0].norm())


class Quadratics:
    """Rows of |a w - b|^2 / 2 with ever worse a; counts what is computed, and of which rows."""

    def __init__(self) -> None:
        self.a = torch.stack([torch.linspace(1, worst, 5).double() for worst in (1, 3, 30)])
        self.b, self.penalty = torch.ones(5).double(), torch.full((5,), 0.1, dtype=torch.float64)
        self.seen: list[int] = []

    def times(self, w: Tensor) -> Tensor:
        self.seen.append(len(w))
        return self.a * w

    def transposed(self, r: Tensor) -> Tensor:
        return self.a * r

    def loss(self, z: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (z - self.b).square().sum(1) / 2, z - self.b

    def scaled(self, g: Tensor) -> Tensor | None:
        return None

    def keep(self, going: Tensor) -> None:
        self.a = self.a[going]


def test_rows_that_are_done_are_computed_no_more_and_do_not_move() -> None:
    problem, stop = Quadratics(), Stop(1e-10, 1, 100)
    minimum = problem.a * problem.b / (problem.a**2 + problem.penalty)
    zero = torch.zeros(3, 5).double()
    found = lbfgs(problem, zero, zero, stop)
    assert found.converged.all() and (found.x - minimum).abs().max() < 1e-9
    assert len(set(found.steps.tolist())) == 3
    assert problem.seen == [int((found.steps > step).sum()) for step in range(int(found.steps.max()))]
    a = Quadratics().a
    value = (a * found.x - 1).square().sum(1) / 2 + 0.05 * found.x.square().sum(1)
    assert torch.allclose(found.value, value, rtol=1e-12, atol=0)


def test_steps_are_about_as_many_as_scipys() -> None:
    problem, zero = Quadratics(), torch.zeros(1, 40).double()
    problem.a, problem.b = torch.logspace(0, 2, 40).double()[None], torch.ones(40).double()
    problem.penalty = 0 * zero[0]
    a, tolerance = problem.a[0].numpy(), 1e-7 * float(problem.a.square().sum().sqrt())
    ours = lbfgs(problem, zero, zero, Stop(1e-7, 1, 1000))
    theirs = minimize(
        lambda w: (((a * w - 1) ** 2).sum() / 2, a * (a * w - 1)),
        zero[0].numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"maxcor": 10, "gtol": tolerance / 40**0.5, "ftol": 0, "maxiter": 1000},
    )
    assert ours.converged.all() and ours.steps[0] < 1.5 * theirs.nit


def test_the_inverse_hessian_of_the_common_minimum_saves_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = data(300)
    features, members = features * torch.logspace(-1, 1, D), balanced(M, 300, 3)

    def train() -> Heads:
        return fit(features, labels, members, replace(TIGHT, tolerance=1e-6), 0, classes=C, plan=MASKED)

    scaled = train()
    monkeypatch.setattr("mipriv.shadows.planner.curved", lambda *_: False)
    plain = train()
    assert (scaled.weights - plain.weights).abs().max() < 1e-4
    assert scaled.iterations.sum() < 0.7 * plain.iterations.sum()


def test_blocks_are_those_of_the_hessian() -> None:
    features, labels = data()
    wide = widened(features)
    start = converged_module.common(wide, labels, C, TIGHT, True)
    w = start.head.clone().requires_grad_()

    def f(w: Tensor) -> Tensor:
        return F.cross_entropy(wide @ w.T, labels) + 1e-2 / 2 * w[:, 1:].square().sum()

    hessian = torch.autograd.functional.hessian(f, w)
    assert start.inverse is not None
    for c in range(C):
        product = hessian[c, :, c] @ start.inverse[c]
        assert (product - torch.eye(wide.shape[1])).abs().max() < 1e-3  # but for what keeps it regular
    assert torch.allclose(start.logits, (wide @ start.head.T).T)


@pytest.mark.parametrize("how", ["masked", "gathered"])
@pytest.mark.parametrize("recipe", [Converged(1e-2), Steps(30, 0.05), Steps(30, 0.05, batch_size=8)])
def test_bf16_is_close_to_fp32_and_says_how_close(recipe: Recipe, how: str) -> None:
    features, labels = data(dtype=torch.float32)
    given = {"classes": C, "plan": replace(MASKED, how=how)}
    members = balanced(M, N, 3)
    exact = fit(features, labels, members, recipe, 5, **given)  # type: ignore[arg-type]
    half = fit(features, labels, members, recipe, 5, precision="bf16", **given)  # type: ignore[arg-type]
    assert exact.apart == 0 and 0 < half.apart < 0.1
    assert half.weights.dtype == torch.float32
    assert (half.objective - exact.objective).abs().max() < 3e-3
    varies = exact.logits(features) - exact.logits(features).mean(0)
    apart = (half.logits(features) - exact.logits(features))[:4]
    from_four = exact.logits(features)[:4] - exact.logits(features)[:4].mean(0)
    assert half.apart == pytest.approx(float(apart.norm() / from_four.norm()), rel=0.02)
    assert (half.logits(features) - exact.logits(features)).norm() < 0.1 * varies.norm()


def test_bf16_that_ends_elsewhere_is_refused() -> None:
    features, labels = data(dtype=torch.float32)
    far = features + 1000  # so that what bf16 leaves of a feature says nothing of its class
    with pytest.raises(InputError, match=r"precision: bf16 is .* from fp32"):
        fit(far, labels, balanced(M, N, 3), Steps(30, 0.05), 5, classes=C, precision="bf16")


def test_gathered_and_masked_objectives_agree_where_models_have_unlike_many_members() -> None:
    features, labels = data()
    members = (
        torch.rand(5, N, generator=torch.Generator().manual_seed(1)) < torch.linspace(0.1, 0.9, 5)[:, None]
    )
    w = torch.randn(5, C, D + 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = []
    for make in (masked, gathered):
        objective = make(widened(features), labels, members, C)
        value, r = objective.loss(objective.times(w))
        found.append((value, objective.transposed(r)))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("records", "classes", "batch", "how"),
    [
        (1797, 10, None, "masked"),
        (2000, 100, None, "gathered"),
        (1797, 10, 128, "gathered"),
        (50_000, 100, None, "workers"),
    ],
)
def test_the_planner_goes_by_size_and_says_why(
    records: int, classes: int, batch: int | None, how: str
) -> None:
    found = plan(records, 768, classes, Steps(100, 1e-2, batch_size=batch))
    assert found.how == how and not found.qr and found.chunk >= 1
    assert str(batch or records) in found.why
    few = plan(200, 768, classes, Converged(1e-3))
    assert few.qr and "200 dimensions rather than 768" in few.why
    assert not plan(800, 768, classes, Converged(1e-3)).qr


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"features": torch.zeros(N)}, "features"),
        ({"features": torch.zeros(N, D).half()}, "features"),
        ({"labels": torch.zeros(N)}, "labels"),
        ({"labels": torch.full((N,), C)}, "labels: some of no class; allowed: 0 to 2"),
        ({"members": torch.ones(M, N)}, "members"),
        ({"members": torch.ones(M, N - 1, dtype=torch.bool)}, "members"),
        ({"members": torch.zeros(M, N, dtype=torch.bool)}, "members: model 0 has none"),
        ({"precision": "fp16"}, "precision"),
    ],
)
def test_what_does_not_belong_together_is_refused(change: dict[str, object], match: str) -> None:
    given = {"features": data()[0], "labels": data()[1], "members": balanced(M, N, 3), "recipe": RECIPES[0]}
    with pytest.raises(InputError, match=match):
        fit(**{**given, "seed": 0, "classes": C, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("recipe", "knobs"),
    [
        (Steps, {"steps": 0, "lr": 0.1}),
        (Steps, {"steps": 1, "lr": 0.0}),
        (Steps, {"steps": 1, "lr": 0.1, "optimizer": "lion"}),
        (Steps, {"steps": 1, "lr": 0.1, "batch_size": 0}),
        (Steps, {"steps": 1, "lr": 0.1, "momentum": 1.0}),
        (Converged, {"penalty": 0.0}),
        (Converged, {"penalty": 1.0, "tolerance": 1.0}),
        (Converged, {"penalty": 1.0, "least_iterations": 0}),
        (Converged, {"penalty": 1.0, "least_iterations": 5, "most_iterations": 4}),
    ],
)
def test_recipes_of_nothing_are_refused(recipe: type, knobs: dict[str, object]) -> None:
    with pytest.raises(InputError, match="allowed"):
        recipe(**knobs)
