"""Whether the direction of a published claim held here, judged by the intervals of the scale that was run.

A direction is compared, never a level. `held`: every judge's interval lies on the claim's side; `reversed`:
every one on the other side; `not shown`: an interval holds zero, or the judges differ; `not run`: nothing to
read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mipriv.errors import InputError
from mipriv.stats import Figure
from tasks.information import DIFFERENCE, FIRST, LAST, MEAN, Third
from tasks.leakage import KNN, NATURAL, TOP1, TOP5, ZERO, Table, percent, plain, points, sign
from tasks.page.claims import UNDEFENDED, Claim, Claims, Difference, Fisher, Natural, Order, Rows, Study

HELD, NOT_SHOWN, REVERSED, NOT_RUN = "held", "not shown", "reversed", "not run"
OUTCOMES = (HELD, NOT_SHOWN, REVERSED, NOT_RUN)
WEIGHTS = "weights"  # convolution and linear layers, of which the study speaks
# How a figure and a difference of two are spelt.
SPELT: dict[str, tuple[Callable[[Figure], str], Callable[[Figure], str]]] = {
    TOP1: (percent, points),
    TOP5: (percent, points),
    KNN: (plain, plain),
}
APART = "The two intervals are compared, as no paired difference is stored: stricter, they must not overlap."
UNMATCHED = "Two defences, their natural accuracies not matched: no ranking."


@dataclass(frozen=True)
class Seen:
    """One judge's view, spelt: the figure of each row, and their difference where it is stored.

    `sign` is 1 where the interval lies on the claim's side, -1 on the other, 0 where it decides nothing.
    `judge` is empty where nobody judged.
    """

    judge: str
    figures: tuple[str, ...]
    difference: str | None
    sign: int


@dataclass(frozen=True)
class Found:
    """What a test read.

    Attributes:
        figure: which.
        rows: names in the order of `Seen.figures`, each with what it was computed from.
        seen: judge by judge.
        notes: what a reader must know of the comparison.
    """

    figure: str
    rows: tuple[tuple[str, str], ...]
    seen: tuple[Seen, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """A claim of a study and its `outcome`, one of `OUTCOMES`: either `found`, or the `reason` for none."""

    study: Study
    claim: Claim
    outcome: str
    found: Found | None
    reason: str | None


class _AbsentError(Exception):
    """This scale has not run what a test reads."""


def verdicts(claims: Claims, table: Table, thirds: Sequence[Third]) -> list[Verdict]:
    """The outcome of every claim, in the order of the files.

    Args:
        table: the leakage table of the scale that was run.
        thirds: where Fisher information lies, of every victim that was analysed.

    Raises:
        InputError: the table has a row, but not all of its lines.
    """
    scale = _Scale(claims.rows, table, thirds)
    return [_verdict(scale, study, claim) for study in claims.studies for claim in study.claims]


@dataclass(frozen=True)
class _Scale:
    """What was run."""

    rows: Rows
    table: Table
    thirds: Sequence[Third]


def _verdict(scale: _Scale, study: Study, claim: Claim) -> Verdict:
    test = claim.test
    try:
        if test is None:
            return Verdict(study, claim, NOT_RUN, None, claim.not_run)
        if isinstance(test, Natural):
            found = _natural(scale, test)
        elif isinstance(test, Fisher):
            found = _fisher(scale, test)
        else:
            found = _attacks(scale, test)
    except _AbsentError as absent:
        return Verdict(study, claim, NOT_RUN, None, str(absent))
    signs = {seen.sign for seen in found.seen}
    outcome = {1: HELD, 0: NOT_SHOWN, -1: REVERSED}[signs.pop()] if len(signs) == 1 else NOT_SHOWN
    return Verdict(study, claim, outcome, found, None)


def _attacks(scale: _Scale, test: Difference | Order) -> Found:
    """Two rows of the table by every judge."""
    if isinstance(test, Difference):
        targets, expected = (test.row, test.against), test.expected
    else:
        targets, expected = (test.above, test.below), 1
    first, second = (scale.rows.row(target) for target in targets)
    _refuse_missing(scale, "attack", first, second)
    judges = scale.table.judges
    views = [_by(scale.table, judge, test.figure, first, second, expected) for judge in judges]
    paired = all(seen.difference is not None for seen in views)
    if isinstance(test, Difference) and not paired:
        raise _AbsentError(f"At this scale {first} is not paired with {second}.")
    sizes = [scale.table.value(row, "attack", test.figure, judges[0]) for row in (first, second)]
    rows = tuple(zip((first, second), map(_people, sizes), strict=True))
    return Found(test.figure, rows, tuple(views), (*(() if paired else (APART,)), *_utility(scale, targets)))


def _by(table: Table, judge: str, figure: str, first: str, second: str, expected: int) -> Seen:
    level, change = SPELT[figure]
    values = [table.value(row, "attack", figure, judge) for row in (first, second)]
    spelt = tuple(map(level, values))
    stored = _stored(table, judge, figure, first, second)
    if stored is None:
        return Seen(judge, spelt, None, expected * _apart(*values))
    return Seen(judge, spelt, change(stored), expected * sign(stored))


def _stored(table: Table, judge: str, figure: str, first: str, second: str) -> Figure | None:
    """`first` minus `second`, whichever way round the table has it."""
    for turned, (row, against) in enumerate(((first, second), (second, first))):
        try:
            value = table.value(row, "difference", figure, judge, against)
        except InputError:
            continue
        if turned:
            return Figure(-value.point, -value.high, -value.low, value.n, value.seeds, value.method)
        return value
    return None


def _utility(scale: _Scale, targets: tuple[str, str]) -> tuple[str, ...]:
    """Natural accuracies, where two victims are compared: defences do not rank without them."""
    names = list(dict.fromkeys(target.partition("/")[2] for target in targets))
    if len(names) == 1:
        return ()
    victims = [scale.rows.victims[name] for name in names]
    known = [f"{victim} {percent(scale.table.value(victim, 'victim', NATURAL))}" for victim in victims]
    said = f"Natural accuracy: {', '.join(known)}."
    return (said,) if UNDEFENDED in names else (said, UNMATCHED)


def _natural(scale: _Scale, test: Natural) -> Found:
    """Two victims on private test images."""
    names = [scale.rows.victims[name] for name in (test.above, test.below)]
    _refuse_missing(scale, "victim", *names)
    values = [scale.table.value(name, "victim", NATURAL) for name in names]
    seen = Seen("", tuple(map(percent, values)), None, _apart(*values))
    return Found(NATURAL, tuple(zip(names, map(_people, values), strict=True)), (seen,), (APART,))


def _fisher(scale: _Scale, test: Fisher) -> Found:
    """First against last third of one victim's layers."""
    victim = scale.rows.victims[test.victim]
    wanted = (victim, test.task, test.information, WEIGHTS, MEAN)
    parts = {
        line.part: line.value
        for line in scale.thirds
        if (line.victim, line.task, line.kind, line.group, line.normalisation) == wanted
    }
    if not parts:
        raise _AbsentError(f"At this scale the Fisher information of {victim} was not analysed.")
    difference = parts[DIFFERENCE]
    shares = tuple(f"{part} {percent(parts[part])}" for part in (FIRST, LAST))
    expected = 1 if test.dominates == FIRST else -1
    seen = Seen("", shares, points(difference), expected * sign(difference))
    figure = f"{test.information} Fisher information of {test.task}, a parameter"
    return Found(figure, ((victim, f"{difference.n} images"),), (seen,))


def _refuse_missing(scale: _Scale, kind: str, *names: str) -> None:
    ran = scale.table.subjects(kind)
    missing = [name for name in dict.fromkeys(names) if name not in ran]
    if missing:
        word = {"attack": "row", "victim": "victim"}[kind]
        raise _AbsentError(f"At this scale there is no {word} {' and none '.join(missing)}.")


def _apart(first: Figure, second: Figure) -> int:
    """1 or -1 where the interval of `first` lies wholly above or below that of `second`, else 0."""
    return (first.low - second.high > ZERO) - (second.low - first.high > ZERO)


def _people(value: Figure) -> str:
    return f"{value.n} people, {value.seeds} training seed{'' if value.seeds == 1 else 's'}"
