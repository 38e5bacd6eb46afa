"""Membership attacks against one target and one record at a time, and what every attack owes."""

import dataclasses
import math
import statistics

import numpy as np
import pytest
import torch
from torch import Tensor

from mipriv import plugin
from mipriv.attacks.membership import Answers
from mipriv.attacks.membership.lira import LiRA
from mipriv.attacks.membership.loss import Loss
from mipriv.attacks.membership.rmia import RMIA, choose_a, share_below
from mipriv.attacks.search.shadows import Side, log_odds, log_probability
from mipriv.errors import InputError
from mipriv.metrics.membership import auc

ATTACKS = plugin.names("membership")
# What is tried of each attack: its knobs.
KNOBS: dict[str, list[dict[str, object]]] = {
    "lira": [
        {"mode": mode, "variance": variance, "centre": centre}
        for mode in ("online", "offline")
        for variance in ("fixed", "example")
        for centre in ("mean", "median")
    ],
    "rmia": [
        {},
        {"gamma": 1.5},
        {"mode": "offline", "offline_a": 0.0},
        {"mode": "offline", "offline_a": 0.4, "gamma": 2.0},
        {"mode": "offline", "offline_a": 1.0},
    ],
    "loss": [{}],
}
EVERY = [(name, knobs) for name in ATTACKS for knobs in KNOBS[name]]
# Models, queries, records, classes, share of members, population.
SHAPES = [(7, 1, 9, 2, 0.5, 6), (8, 3, 5, 4, 0.5, 4), (12, 2, 6, 3, 0.2, 7), (9, 2, 6, 10, 0.75, 3)]


def answers(
    models: int,
    queries: int,
    records: int,
    classes: int,
    share: float,
    population: int,
    *,
    seed: int = 0,
    effect: float = 0.7,
    scale: float = 1.5,
) -> Answers:
    """Random logits that training on a record raises, records of unequal difficulty."""
    random = torch.Generator().manual_seed(seed)
    members = torch.rand(models, records, generator=random) < share
    labels, theirs = (torch.randint(classes, (n,), generator=random) for n in (records, population))
    logits = torch.randn(models, queries, records, classes, generator=random, dtype=torch.float64)
    raised = torch.randn(records, generator=random) + effect * members[:, None]
    own = torch.nn.functional.one_hot(labels, classes)
    outside = torch.randn(models, queries, population, classes, generator=random, dtype=torch.float64)
    return Answers(scale * (logits + raised[..., None] * own), labels, members, scale * outside, theirs)


def models_of(given: Answers, places: list[int]) -> Answers:
    assert given.population is not None
    return dataclasses.replace(
        given,
        logits=given.logits[places],
        members=given.members[places],
        population=given.population[places],
    )


def phi(row: Tensor, label: int) -> float:
    """By its definition, in Python's floats."""
    rest = [float(f) for c, f in enumerate(row) if c != label]
    top = max(rest)
    return float(row[label]) - top - math.log(sum(math.exp(f - top) for f in rest))


def probability(row: Tensor, label: int) -> float:
    return math.exp(row[label]) / sum(math.exp(f) for f in row)


def slow_lira(
    targets: Answers, references: Answers | None, mode: str, variance: str, centre: str
) -> np.ndarray:
    """One target at a time: lists of what references on each side say, numpy's mean, median and std."""
    middle = {"mean": np.mean, "median": np.median}[centre]
    known = targets if references is None else references
    said = {
        id(a): [
            [[phi(row, int(y)) for row, y in zip(rows, a.labels, strict=True)] for rows in m]
            for m in a.logits
        ]
        for a in (targets, known)
    }
    count, queries, records, _ = targets.logits.shape
    found = np.full((count, records), np.nan)
    for t in range(count):
        others = [m for m in range(len(known.logits)) if references is not None or m != t]
        sides = {}
        for inside in (True, False):
            lists = {
                (q, n): [said[id(known)][m][q][n] for m in others if bool(known.members[m, n]) == inside]
                for q in range(queries)
                for n in range(records)
            }
            centred = [x - middle(own) for own in lists.values() if own for x in own]
            sides[inside] = lists, np.std(centred) if centred else math.nan
        for n in range(records):
            terms = []
            for q in range(queries):
                x, part = said[id(targets)][t][q][n], {}
                for inside, (lists, pooled) in sides.items():
                    own = lists[q, n]
                    if len(own) < (2 if variance == "example" else 1):
                        part[inside] = math.nan, math.nan
                        continue
                    sigma = pooled if variance == "fixed" else np.std(own)
                    part[inside] = (x - middle(own)) / sigma, math.log(sigma)
                (z_in, log_in), (z_out, log_out) = part[True], part[False]
                online = (-(z_in**2) / 2 - log_in) - (-(z_out**2) / 2 - log_out)
                terms.append(online if mode == "online" else z_out)
            found[t, n] = np.mean(terms)
    return found


def slow_rmia(
    targets: Answers, references: Answers | None, mode: str, offline_a: float, gamma: float
) -> np.ndarray:
    """Every pair of record and population record, ratios of probabilities."""
    known = targets if references is None else references
    assert targets.population is not None and targets.population_labels is not None
    assert known.population is not None
    count, queries, records, _ = targets.logits.shape
    outside = targets.population.shape[2]
    found = np.full((count, records), np.nan)

    def marginal(inside: list[float], out: list[float], of_record: bool) -> float:
        if mode == "offline":
            return ((1 + offline_a) * float(np.mean(out)) + 1 - offline_a) / 2 if out else math.nan
        if not of_record:
            return float(np.mean(out))
        return (float(np.mean(inside)) + float(np.mean(out))) / 2 if inside and out else math.nan

    for t in range(count):
        others = [m for m in range(len(known.logits)) if references is not None or m != t]
        for n in range(records):
            wins, label = [], int(targets.labels[n])
            for q in range(queries):
                said = {m: probability(known.logits[m, q, n], label) for m in others}
                sides = [
                    [p for m, p in said.items() if bool(known.members[m, n]) == side]
                    for side in (True, False)
                ]
                x = probability(targets.logits[t, q, n], label) / marginal(sides[0], sides[1], True)
                for z in range(outside):
                    own = int(targets.population_labels[z])
                    every = [probability(known.population[m, q, z], own) for m in others]
                    ratio = probability(targets.population[t, q, z], own) / marginal([], every, False)
                    wins.append(math.nan if math.isnan(x) else float(x / ratio > gamma))
            found[t, n] = np.mean(wins)
    return found


def agree(found: Tensor, slow: np.ndarray) -> None:
    np.testing.assert_allclose(found.numpy(), slow, rtol=1e-10, atol=1e-10)
    assert np.isfinite(slow).any()


@pytest.mark.parametrize("knobs", KNOBS["lira"], ids=lambda k: "-".join(k.values()))
@pytest.mark.parametrize("shape", SHAPES)
def test_lira_is_one_target_at_a_time(
    shape: tuple[int, int, int, int, float, int], knobs: dict[str, str]
) -> None:
    given = answers(*shape, seed=sum(shape[:4]))
    agree(LiRA(**knobs)(given), slow_lira(given, None, **knobs))
    targets, references = models_of(given, [1, 3]), models_of(given, [0, 2, 4, 5, 6])
    agree(LiRA(**knobs)(targets, references), slow_lira(targets, references, **knobs))


@pytest.mark.parametrize("knobs", KNOBS["rmia"], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_rmia_is_its_pairwise_definition(
    shape: tuple[int, int, int, int, float, int], knobs: dict[str, object]
) -> None:
    given, attack = answers(*shape, seed=sum(shape[:4])), RMIA(**knobs)  # type: ignore[arg-type]
    own = dataclasses.asdict(attack)
    agree(attack(given), slow_rmia(given, None, **own))
    targets, references = models_of(given, [1, 3]), models_of(given, [0, 2, 4, 5, 6])
    agree(attack(targets, references), slow_rmia(targets, references, **own))


def test_equal_values_leave_medians_what_they_are() -> None:
    """Logits on a coarse grid, so that a target's value often equals the middle ones."""
    given = answers(11, 2, 8, 3, 0.5, 2)
    rough = dataclasses.replace(given, logits=given.logits.round())
    knobs = {"mode": "online", "variance": "fixed", "centre": "median"}
    agree(LiRA(**knobs)(rough), slow_lira(rough, None, **knobs))


def test_a_ratio_of_exactly_gamma_is_no_win() -> None:
    """And numbers that are not there are compared with none."""
    found = share_below(torch.tensor([[1.0, 2.0, 3.0, math.nan]]), torch.tensor([[2.0, 1.0, 2.0, 5.0]]))
    assert found[0, :3].tolist() == [0, 0.25, 0.75] and found[0, 3].isnan()


def test_shares_are_those_of_every_pair_with_ties_infinities_and_nan() -> None:
    random = torch.Generator().manual_seed(5)
    for shape, others in (((7,), 5), ((1, 1), 1), ((3, 2, 40), 17), ((2, 300), 200), ((4, 0), 3)):
        values = torch.randint(-9, 9, shape, generator=random).double() / 2
        of = torch.randint(-9, 9, (*shape[:-1], others), generator=random).double() / 2
        for part in (values, of):
            part[part == 4] = torch.inf
            part[part == -4] = -torch.inf
            part[part == 0] *= -1.0
        values[values == 3] = torch.nan
        every = (of[..., None, :] < values[..., None]).double().mean(-1).where(~values.isnan(), torch.nan)
        assert torch.equal(share_below(values, of).nan_to_num(-1), every.nan_to_num(-1))


def test_the_loss_is_the_log_odds_of_the_label_and_orders_as_cross_entropy() -> None:
    given = answers(3, 2, 6, 4, 0.5, 1)
    slow = [
        [statistics.fmean(phi(model[q][n], int(given.labels[n])) for q in range(2)) for n in range(6)]
        for model in given.logits
    ]
    agree(Loss()(given), np.array(slow))
    alone = dataclasses.replace(given, logits=given.logits[:, :1], population=None)
    entropy = -torch.stack(
        [torch.nn.functional.cross_entropy(m[0], given.labels, reduction="none") for m in alone.logits]
    )
    assert torch.equal(Loss()(alone).argsort(1), entropy.argsort(1))
    assert torch.allclose(log_probability(alone.logits, alone.labels)[:, 0], entropy, rtol=1e-12)


def test_logits_of_any_size_are_told_apart() -> None:
    """Probabilities of e^-10000, and of 1 less that, still order records as their logits do."""
    base = answers(10, 1, 12, 3, 0.5, 8)
    assert base.population is not None
    huge = dataclasses.replace(base, logits=base.logits * 1e4, population=base.population * 1e4)
    odds = log_odds(huge.logits.float(), huge.labels)
    assert odds.dtype == torch.float64 and odds.abs().max() > 1e4 and len(odds.unique()) == odds.numel()
    loss = log_probability(huge.logits, huge.labels)
    assert loss.isfinite().all() and loss.min() < -1e4
    for name, knobs in EVERY:
        assert plugin.load("membership", name, **knobs)(huge).isfinite().any()


def test_a_reference_that_drowns_the_others_leaves_their_mean_exact() -> None:
    said = torch.tensor([-900.0, 0.0, -910.0, -905.0]).double()
    side = Side(said[:, None, None], torch.tensor([True, True, True, False])[:, None], left_out=True)
    rest = -900 + math.log1p(math.exp(-10)) - math.log(2)
    assert side.log_mean[1].item() == pytest.approx(rest, rel=1e-14)
    assert side.log_mean[3].item() == pytest.approx(-math.log(3), rel=1e-14)


@pytest.mark.parametrize(("name", "knobs"), EVERY, ids=str)
def test_a_record_on_one_side_only_has_no_score(name: str, knobs: dict[str, object]) -> None:
    """Nor one whose only model there is the target itself."""
    given = answers(10, 2, 6, 3, 0.5, 4)
    members = (torch.arange(10)[:, None] + torch.arange(6)) % 2 == 0
    members[:, 0], members[:, 1] = True, False
    members[:, 2], members[:, 3] = False, True
    members[4, 2], members[5, 3] = True, False  # one model in, one model out
    score = plugin.load("membership", name, **knobs)(dataclasses.replace(given, members=members))
    needs_in, needs_out = knobs.get("mode", "online") == "online" and name != "loss", name != "loss"
    two = knobs.get("variance") == "example"
    expected = torch.zeros(10, 6, dtype=torch.bool)
    if needs_out:
        expected[:, 0] = True
        expected[:, 3] = two  # one model, for all others, is too few for a variance
        expected[5, 3] = True
    if needs_in:
        expected[:, 1] = True
        expected[:, 2] = two
        expected[4, 2] = True
    assert torch.equal(score.isnan(), expected)


def test_where_references_agree_there_is_no_score() -> None:
    """However large what they say, and whatever its last bit."""
    given = answers(11, 1, 60, 3, 0.5, 1)
    logits = given.logits.clone()
    logits[:, :, 10:] = logits[0, :, 10:] * torch.logspace(-3, 4, 50).double()[:, None]
    flat = dataclasses.replace(given, logits=logits)
    assert LiRA(variance="example")(flat)[:, 10:].isnan().all()
    assert LiRA(variance="example")(flat)[:, :10].isfinite().any()
    assert LiRA(variance="fixed")(flat)[:, 10:].isfinite().any()
    last_bit = torch.tensor([1 / 3, math.nextafter(1 / 3, 1)] * 4, dtype=torch.float64)[:, None, None]
    on = torch.ones(8, 1, dtype=torch.bool)
    side, apart = (Side(values, on, left_out=True) for values in (last_bit, last_bit * on.cumsum(0)[:, None]))
    assert side.variance.isnan().all() and apart.variance.isfinite().all()


@pytest.mark.parametrize(("name", "knobs"), EVERY, ids=str)
def test_shuffled_memberships_are_told_by_chance(name: str, knobs: dict[str, object]) -> None:
    given = answers(24, 1, 300, 3, 0.5, 100, effect=3.0)
    attack = plugin.load("membership", name, **knobs)
    assert auc(attack(given), given.members) > 0.6
    random = torch.Generator().manual_seed(9)
    other = torch.rand(given.members.shape, generator=random) < 0.5
    assert auc(attack(dataclasses.replace(given, members=other)), other) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("name", "knobs"), EVERY, ids=str)
def test_shape_and_inputs(name: str, knobs: dict[str, object]) -> None:
    given = answers(8, 2, 5, 3, 0.5, 4)
    assert given.population is not None
    kept = [t.clone() for t in (given.logits, given.labels, given.members, given.population)]
    attack = plugin.load("membership", name, **knobs)
    alone = attack(given)
    single = dataclasses.replace(given, logits=given.logits.float(), population=given.population.float())
    against = attack(models_of(given, [2]), models_of(given, [0, 1, 3, 4, 5, 6, 7]))
    for score, shape in ((alone, (8, 5)), (attack(single), (8, 5)), (against, (1, 5))):
        assert score.shape == shape and score.dtype == torch.float64 and not score.requires_grad
    # The target against all others is the target in leave-one-out.
    assert torch.allclose(against[0], alone[2], rtol=1e-9, atol=1e-9, equal_nan=True)
    now = (given.logits, given.labels, given.members, given.population)
    assert all(torch.equal(a, b) for a, b in zip(kept, now, strict=True))


@pytest.mark.parametrize(("name", "knobs"), EVERY, ids=str)
def test_the_order_of_records_and_of_models_does_not_matter(name: str, knobs: dict[str, object]) -> None:
    given = answers(9, 2, 7, 3, 0.5, 5)
    assert given.population is not None and given.population_labels is not None
    attack, random = plugin.load("membership", name, **knobs), torch.Generator().manual_seed(1)
    m, n, z = (torch.randperm(count, generator=random) for count in (9, 7, 5))
    moved = Answers(
        given.logits[m][:, :, n],
        given.labels[n],
        given.members[m][:, n],
        given.population[m][:, :, z],
        given.population_labels[z],
    )
    assert torch.allclose(attack(moved), attack(given)[m][:, n], rtol=1e-9, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize(("name", "knobs"), EVERY, ids=str)
def test_a_targets_own_membership_is_not_read(name: str, knobs: dict[str, object]) -> None:
    given = answers(8, 2, 5, 3, 0.5, 4)
    attack, members = plugin.load("membership", name, **knobs), given.members.clone()
    members[2] = ~members[2]
    flipped = attack(dataclasses.replace(given, members=members))
    assert torch.allclose(flipped[2], attack(given)[2], rtol=1e-9, atol=1e-9, equal_nan=True)


def test_a_is_chosen_by_how_well_a_surrogate_is_told() -> None:
    given = answers(14, 1, 200, 3, 0.5, 60, effect=2.0)
    for surrogate in (0, 5):
        others = models_of(given, [m for m in range(14) if m != surrogate])
        quality = {}
        for a in (0.0, 0.25, 0.5, 0.75, 1.0):
            score = RMIA("offline", a)(models_of(given, [surrogate]), others)
            quality[a] = auc(score, given.members[surrogate : surrogate + 1])
        assert len(set(quality.values())) > 2
        best = max(quality.values())
        assert quality[choose_a(given, surrogate, grid=quality)] == pytest.approx(best, abs=1e-12)


def spoilt(what: str) -> tuple[Answers, Answers | None]:
    given = answers(6, 1, 4, 3, 0.5, 3)
    assert given.population is not None
    few = models_of(given, [0, 1])
    other = {
        "one": (models_of(given, [0]), None),
        "none": (given, models_of(given, [])),
        "records": (
            given,
            dataclasses.replace(
                few, logits=few.logits[:, :, 1:], labels=few.labels[1:], members=few.members[:, 1:]
            ),
        ),
        "labels": (given, dataclasses.replace(few, labels=(few.labels + 1) % 3)),
        "infinite": (dataclasses.replace(given, logits=given.logits / 0), None),
        "population": (dataclasses.replace(given, population=None), None),
        "empty": (
            dataclasses.replace(
                given, population=given.population[:, :, :0], population_labels=given.labels[:0]
            ),
            None,
        ),
        "another": (given, dataclasses.replace(few, population_labels=(few.population_labels + 1) % 3)),  # type: ignore[operator]
    }
    return other[what]


@pytest.mark.parametrize(
    "what", ["one", "none", "records", "labels", "infinite", "population", "empty", "another"]
)
def test_what_cannot_be_scored_is_refused_in_one_line(what: str) -> None:
    targets, references = spoilt(what)
    for name in ("rmia",) if what in ("population", "empty", "another") else ("rmia", "lira"):
        with pytest.raises(InputError, match="allowed: ") as refusal:
            plugin.load("membership", name)(targets, references)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("surrogate", [-1, 6, 2])
def test_a_surrogate_that_tells_nothing_is_refused(surrogate: int) -> None:
    given = answers(6, 1, 4, 3, 0.5, 3)
    members = given.members.clone()
    members[2] = True
    with pytest.raises(InputError, match=r"surrogate: .*allowed: "):
        choose_a(dataclasses.replace(given, members=members), surrogate)


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("lira", {"mode": "both"}),
        ("lira", {"variance": "pooled"}),
        ("lira", {"centre": "mode"}),
        ("rmia", {"mode": "both"}),
        ("rmia", {"gamma": 0.9}),
        ("rmia", {"gamma": math.inf}),
        ("rmia", {"offline_a": 1.1}),
    ],
)
def test_impossible_knobs_are_refused(name: str, knobs: dict[str, object]) -> None:
    with pytest.raises(InputError, match="allowed: "):
        plugin.load("membership", name, **knobs)
