"""Membership end to end on small inputs: shadows, scores, the table, and what each of them refuses."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mipriv.attacks.membership import Answers
from mipriv.attacks.membership.lira import LiRA
from mipriv.attacks.membership.loss import Loss
from mipriv.attacks.membership.rmia import RMIA
from mipriv.errors import InputError
from mipriv.metrics import membership as metrics
from mipriv.shadows.design import enough, pool
from tasks import features, membership, shadows
from tasks.memberships import grids, laws
from tasks.memberships.grids import Size

CLASSES, EACH, D = 4, 24, 12
RECIPE = {"algorithm": "converged", "knobs": {"penalty": 1e-2}}


class Silent:
    """Where a cell's progress and events go."""

    def __init__(self) -> None:
        self.metrics_seen: dict[str, float] = {}

    def __call__(self, *_: object) -> None: ...

    def metric(self, key: str, value: float, step: int | None = None) -> None:
        self.metrics_seen[key] = value

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:
        self.metrics_seen |= values

    def text(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of four classes that overlap: what heads learn of a record shows."""
    folder = tmp_path_factory.mktemp("features")
    random = torch.Generator().manual_seed(5)
    found: dict[str, Tensor] = {}
    for part, each in (("pool", EACH), ("population", 15)):
        labels = torch.arange(CLASSES).repeat_interleave(each)
        centres = torch.eye(CLASSES, D) * 2
        found[part] = centres[labels] + torch.randn(len(labels), D, generator=random)
        found[f"{part}_labels"] = labels
    save_file(found, folder / features.FILE)
    return folder


def grid(out: Path, seen: Path, **more: Any) -> Silent:
    out.mkdir(parents=True)
    said = Silent()
    given = {"examples": 4, "classes": 2, "models": 16, "distinct": 1, "population": 20, "recipe": RECIPE}
    given |= {"precision": "auto", "seed": 0, "device": "cpu"}
    shadows.grid(out, {"features": seen}, said, said, **{**given, **more})  # type: ignore[arg-type]
    return said


def test_pools_of_a_small_cell_share_no_record_and_hold_enough() -> None:
    labels = torch.arange(5).repeat_interleave(40)
    for distinct, classes, groups in ((1, 2, 1), (100, 2, 2), (150, 2, 2), (200, 5, 1)):
        pools = enough(labels, classes, 5, distinct, 3)
        records = torch.cat([one.records for one in pools])
        assert len(records) == len(set(records.tolist())) >= distinct
        assert len({one.classes for one in pools}) == groups
        for one in pools:
            own = torch.tensor(one.classes)[one.labels]
            assert torch.equal(labels[one.records], own) and one.labels.bincount().tolist() == [10] * classes
        assert torch.equal(pools[0].records, pool(labels, classes, 5, 3).records)
    with pytest.raises(InputError, match=r"distinct: 201; allowed: up to 160, 8 pools of 20 records"):
        enough(labels, 2, 5, 201, 3)


def test_a_cell_keeps_log_odds_of_halves_and_of_records_nobody_saw(seen: Path, tmp_path: Path) -> None:
    said = grid(tmp_path / "cell", seen, distinct=40)
    pools = shadows.load(tmp_path / "cell")
    assert [one.odds.shape for one in pools] == [(16, 16)] * 3 and pools[0].population.shape == (16, 20)
    for one in pools:
        assert one.members.sum(0).tolist() == [8] * 16 and bool(one.converged.all())
        inside = one.odds[one.members].mean()
        assert inside > one.odds[~one.members].mean()
        assert (one.gradients[0] < one.gradients[1]).double().mean() > 0.9  # fitted records pull less
    assert said.metrics_seen["pools"] == 3 and said.metrics_seen["records"] == 48
    assert said.metrics_seen["natural_accuracy"] == pytest.approx(
        float(torch.cat([one.accuracy for one in pools]).mean())
    )
    assert not any("weight" in name for name in load_file(tmp_path / "cell" / shadows.FILE.format(0)))


def test_log_odds_are_all_that_attacks_read_of_logits(tmp_path: Path) -> None:
    """Of C logits and of two, the true class's log odds and nought, every attack scores alike."""
    random = torch.Generator().manual_seed(2)
    logits, others = (torch.randn(12, 1, n, 5, generator=random, dtype=torch.float64) * 3 for n in (9, 7))
    labels, strangers = (torch.randint(5, (n,), generator=random) for n in (9, 7))
    members = torch.rand(12, 9, generator=random).argsort(0).argsort(0) < 6
    whole = Answers(logits, labels, members, others, strangers)

    def odds(of: Tensor, own: Tensor) -> Tensor:
        p = of.softmax(-1).gather(-1, own[None, None, :, None].expand(12, 1, -1, 1))[:, 0, :, 0]
        return (p / (1 - p)).log()

    kept = shadows.Answered(
        odds=odds(logits, labels),
        members=members,
        records=torch.arange(9),
        population=odds(others, strangers),
        gradients=torch.zeros(2, 9),
        accuracy=torch.zeros(12),
        converged=members[:, 0],
    )
    for attack in (LiRA(), LiRA("offline", "example", "mean"), RMIA(), RMIA("offline"), Loss()):
        assert torch.allclose(attack(membership.answers(kept)), attack(whole), atol=1e-9), attack


def test_rates_that_records_cannot_tell_are_refused_and_the_others_told(seen: Path, tmp_path: Path) -> None:
    grid(tmp_path / "cell", seen, distinct=64, classes=4)
    (tmp_path / "out").mkdir()
    said = Silent()
    told = {"attack": "lira", "knobs": {}, "rates": [0.2, 0.01], "resamples": 20}
    membership.score(tmp_path / "out", {"shadows": tmp_path / "cell"}, said, said, **told)  # type: ignore[arg-type]
    found = membership.detections(tmp_path / "out")
    scores, members = membership.scores(tmp_path / "out")
    assert isinstance(found[0.01], str) and "0.64 false positives expected of 64" in found[0.01]
    told_again = metrics.pooled(scores, members, 0.2, resamples=20)
    own = found[0.2]
    assert isinstance(own, metrics.Detection) and own.distinct == 64 and len(own.again) == 20
    assert own.tpr.point == pytest.approx(told_again.tpr.point) and own.tpr.point > 0.25
    assert membership.auc(tmp_path / "out") == pytest.approx(metrics.auc(scores, members), abs=1e-3)


def test_seeds_are_resampled_beside_what_is_within_each() -> None:
    def told(seed: int) -> metrics.Detection:
        random = torch.Generator().manual_seed(seed)
        members = torch.rand(20, 100, generator=random).argsort(0).argsort(0) < 10
        return metrics.pooled(torch.randn(20, 100, generator=random) + members, members, 0.1, resamples=50)

    each = [told(0), told(1)]
    both = metrics.together(each)
    again = torch.tensor([one.again for one in each]).mean(0)
    assert both.point == pytest.approx((each[0].tpr.point + each[1].tpr.point) / 2)
    within = again.quantile(torch.tensor([0.025, 0.975]))
    assert both.high - both.low > float(within[1] - within[0]) and both.seeds == 2
    # Seeds far apart: a quarter of the resamples draws one of them twice, so the interval reaches both.
    shifted = tuple(value + 0.4 for value in each[1].again)
    tpr = dataclasses.replace(each[1].tpr, point=each[1].tpr.point + 0.4)
    apart = metrics.together([each[0], dataclasses.replace(each[1], tpr=tpr, again=shifted)])
    assert apart.low < each[0].tpr.high and apart.high > min(shifted)
    assert metrics.together(each[:1]).low == each[0].tpr.low
    with pytest.raises(InputError, match="designs: 2 of 2 kinds"):
        metrics.together(
            [each[0], metrics.pooled(torch.eye(20, 100), torch.eye(20, 100) > 0, 0.1, resamples=9)]
        )


@pytest.fixture(scope="module")
def table(seen: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, shadows.Row, membership.Row]:
    """A grid of six sizes and two seeds under one attack."""
    root = tmp_path_factory.mktemp("grid")
    row = shadows.Row(
        features="digits", recipe="c", examples=[3, 6, 12], classes=[2, 4], models=16, distinct=1,
        population=20, precision="auto", seeds=[0, 1],
    )  # fmt: skip
    for examples, classes in row.sizes:
        for seed in row.seeds:
            name = shadows.name(examples, classes, seed)
            grid(root / "shadows/g" / name, seen, examples=examples, classes=classes, seed=seed, models=16)
            out = root / "membership/lira" / name
            out.mkdir(parents=True)
            inputs, said = {"shadows": root / "shadows/g" / name}, Silent()
            membership.score(  # type: ignore[arg-type]
                out, inputs, said, said, attack="lira", knobs={}, rates=[0.3, 0.9999], resamples=20
            )
            kept = json.loads((out / membership.FIGURES).read_text())
            kept["tpr"] = {"0.3": kept["tpr"].get("0.3") or _any(kept)}  # few records: told all the same
            (out / membership.FIGURES).write_text(json.dumps(kept))
    return root, row, membership.Row(attack="lira", of="g")


def _any(kept: dict[str, Any]) -> dict[str, Any]:
    (one,) = kept["tpr"].values()
    return {**one, "rate": 0.3}


def test_every_size_and_law_is_a_line_of_the_table(
    table: tuple[Path, shadows.Row, membership.Row],
) -> None:
    root, row, attacked = table
    heads = list(grids.heads(root / "shadows", "g", row))
    assert {line.subject for line in heads} == {f"g/S-{s}/C-{c}" for s in (3, 6, 12) for c in (2, 4)}
    assert all(line.value.n == 32 for line in heads if line.figure == grids.CONVERGED)
    cells = grids.cells(root / "membership", "lira", row, 0.3)
    assert len(cells) == 12 and {(one.examples, one.classes, one.seed) for one in cells} >= {
        (3, 2, 0),
        (12, 4, 1),
    }
    told = list(grids.attacks(root / "membership", {"lira": attacked}, {"g": row}, [0.3]))
    size = Size(12, 4)
    own = {line.figure: line.value for line in told if line.subject == grids.subject("lira", size)}
    mine = [one.tpr for one in cells if (one.examples, one.classes) == size]
    assert own[grids.TPR.format(0.3)].point == pytest.approx(sum(mine) / 2)
    anew = own[grids.CORRECTED.format(0.3)]
    assert anew.point <= own[grids.TPR.format(0.3)].point  # a fixed pool flatters the attack
    found = list(laws.of_attack(root / "membership", "lira", attacked, row, [0.3]))
    assert {line.kind for line in found} <= {laws.LAW, laws.SHIFT, laws.LEAST}


def test_a_rate_without_cells_enough_has_no_law(table: tuple[Path, shadows.Row, membership.Row]) -> None:
    root, row, attacked = table
    few = row.model_copy(update={"examples": [3]})
    assert not list(laws.of_attack(root / "membership", "lira", attacked, few, [0.3]))
