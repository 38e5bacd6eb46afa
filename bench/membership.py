"""Scores of membership for every target at once, against one after another: ``python -m bench.membership``.

First table: LiRA's scores of every model of a set by leave-one-out, against a vectorised scorer of one target
that is called for each: NumPy over all records and references at once, medians by one sort a side, means by
masked sums. Both begin from the same log odds, whose own time, from logits, is
printed above the table.

Second table: RMIA's comparison of records with population records by sort and search, against every pair: the
published matrix of ratios, and pairs compared in blocks that stay in the processor's cache.

Variants take turns in one process on one thread. Times are processor seconds, which other programs lengthen
only by what they take from the caches: the least and the median of the turns. A ratio is of the least, then
of two neighbours: the median over turns, with the least and the most. The second table takes ten times as
many turns. Results are compared before any time is printed.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import tasks  # noqa: F401  (its threads spin but shortly)
from mipriv import draws
from mipriv.attacks.membership.lira import LiRA
from mipriv.attacks.membership.rmia import share_below
from mipriv.attacks.search.shadows import log_odds
from mipriv.device import environment

Array = NDArray[np.float64]
KNOBS = [(variance, centre) for variance in ("fixed", "example") for centre in ("mean", "median")]
BLOCK = 64  # records in a block of pairs: with 5,000 others its comparisons are 320 kB


def one_target(odds: Array, members: NDArray[np.bool_], t: int, variance: str, centre: str) -> Array:
    """LiRA's online scores [N] of target t by all other models, from log odds [M, N]."""
    others = np.arange(len(odds)) != t
    values, score = odds[others], np.zeros(odds.shape[1])
    for sign, side in ((1, members[others]), (-1, ~members[others])):
        count = side.sum(0)
        middle = mean = (values * side).sum(0) / count
        if centre == "median":
            ordered = np.sort(np.where(side, values, np.inf), axis=0)
            ends = (ordered[place, np.arange(len(count))] for place in ((count - 1) // 2, count // 2))
            middle = sum(ends) / 2
        if variance == "fixed":
            left = (values - middle) * side
            sigma = np.sqrt(np.vdot(left, left) / side.sum() - (left.sum() / side.sum()) ** 2)
        else:
            sigma = np.sqrt((np.square(values - mean) * side).sum(0) / count)
        score -= sign * (((odds[t] - middle) / sigma) ** 2 / 2 + np.log(sigma))
    return score


def turns(works: list[Callable[[], object]], count: int) -> list[list[float]]:
    """Processor seconds of each work in each of `count` turns, [works][turns], after one not counted."""
    taken: list[list[float]] = [[] for _ in works]
    for turn in range(count + 1):
        for at, work in enumerate(works):
            began = time.process_time()
            work()
            if turn:
                taken[at].append(time.process_time() - began)
    return taken


def ratio(of: list[float], to: list[float]) -> str:
    """Of the least; of the turns: the median, with the least and the most; cells of a table."""
    ratios = [a / b for a, b in zip(of, to, strict=True)]
    turned = f"{statistics.median(ratios):.0f} [{min(ratios):.0f}, {max(ratios):.0f}]"
    return f"{min(of) / min(to):.0f} | {turned}"


def least(taken: list[float], digits: int, unit: float = 1.0) -> str:
    """The least and the median, as text."""
    return f"{unit * min(taken):.{digits}f}, {unit * statistics.median(taken):.{digits}f}"


def same(one: Any, other: Any, what: str) -> None:
    """Stop where two ways to a result differ."""
    np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=1e-9, atol=1e-9, err_msg=what)


def leave_one_out(models: int, records: int, classes: int, count: int) -> None:
    """The first table."""
    members = draws.uniform((models, records), "members") < 0.5
    labels = torch.randint(classes, (records,), generator=draws.generator("labels"))
    logits = draws.normal((models, 1, records, classes), "logits").float()
    began = time.process_time()
    odds = log_odds(logits, labels)
    seconds = time.process_time() - began
    print(f"{models} models, {records} records, {classes} classes; log odds: {seconds:.3f} s.\n")
    print("| variance | centre | s, all at once | s, one by one | one by one to at once | turn by turn |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    own, sides = odds[:, 0].numpy(), members.numpy()
    for variance, centre in KNOBS:
        attack = LiRA(variance=variance, centre=centre)

        def together(attack: LiRA = attack) -> Tensor:
            return attack.score(odds, odds, members, left_out=True)

        def each(variance: str = variance, centre: str = centre) -> Array:
            return np.stack([one_target(own, sides, t, variance, centre) for t in range(models)])

        same(together(), each(), f"LiRA, {variance}, {centre}")
        fast, slow = turns([together, each], count)
        both = f"{least(fast, 3)} | {least(slow, 2)}"
        print(f"| {variance} | {centre} | {both} | {ratio(slow, fast)} |", flush=True)


def pairs(records: int, others: int, count: int) -> None:
    """The second table, of one target and gamma 1."""
    x, z = (draws.normal((n,), name) for n, name in ((records, "x"), (others, "z")))
    x_ratios, z_ratios = x.exp().numpy(), z.exp().numpy()

    def matrix() -> Array:
        found: Array = (x_ratios[:, None] / z_ratios > 1).mean(1)
        return found

    def blocks() -> Array:
        parts = np.split(x_ratios, range(BLOCK, records, BLOCK))
        return np.concatenate([np.count_nonzero(part[:, None] > z_ratios, axis=1) for part in parts]) / others

    def search() -> Tensor:
        return share_below(x, z)

    same(search(), matrix(), "RMIA, matrix")
    same(search(), blocks(), "RMIA, blocks")
    fast, whole, cut = turns([search, matrix, blocks], count)
    print(f"\nRMIA, {records} records by {others} of the population.\n")
    print("| way | ms | to sort and search | turn by turn |")
    print("| --- | ---: | ---: | ---: |")
    for name, taken in (("sort and search", fast), ("matrix of ratios", whole), ("blocks of pairs", cut)):
        print(f"| {name} | {least(taken, 2, 1e3)} | {ratio(taken, fast)} |", flush=True)


def main() -> int:
    """Command line: two tables in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.membership", allow_abbrev=False)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few models and records: does it run?")
    given = parser.parse_args()
    if given.turns < 1:
        parser.error(f"--turns: {given.turns}; allowed: from 1")
    torch.set_num_threads(given.threads)
    about = ", ".join(environment(torch.device("cpu")).values())
    print(f"{given.threads} thread(s); torch {about}.")
    fewer = 10 if given.quick else 1
    leave_one_out(257 // fewer, 1797 // fewer, 10, given.turns)
    pairs(20_000 // fewer, 5_000 // fewer, 10 * given.turns)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
