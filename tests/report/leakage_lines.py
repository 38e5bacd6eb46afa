"""A small leakage table, made line by line: two attacks on two victims by two judges."""

from collections.abc import Mapping

from mipriv.stats import Figure
from tasks.leakage import (
    AGREEMENT,
    KID,
    KNN,
    NATURAL,
    OWN_START,
    QUERIES,
    REFUSED,
    ROBUST,
    STUDY,
    TOP1,
    TOP5,
    Line,
    Table,
)

JUDGES = ("first", "second")
Interval = tuple[float, float, float]  # point, low, high
LESS: Interval = (-0.25, -0.4, -0.1)
NOTHING: Interval = (-0.05, -0.2, 0.1)
MORE: Interval = (0.3, 0.15, 0.45)


def figure(interval: Interval, seeds: int = 3) -> Figure:
    return Figure(*interval, n=4, seeds=seeds, method="by hand")


def table(
    plain: str = "plain",
    guarded: str = "guarded",
    reached: Mapping[str, Interval] | None = None,
    gain: Mapping[str, Interval] | None = None,
    change: Mapping[str, Interval] | None = None,
    judges: tuple[str, ...] = JUDGES,
    embedding: str | None = None,
) -> Table:
    """Rows `plain` and `guarded` attack victims `none` and `frozen`.

    Args:
        reached: top-1 accuracy of `guarded` by judge, 50% unless given.
        gain: of `guarded` over its own start, `MORE` unless given.
        change: of `guarded` against `plain`, `LESS` unless given.
        embedding: name of a judge without labels, who sees what the first judge sees.
    """
    lines = [Line(judge, "judge", "accuracy", "", "", figure((0.95, 0.9, 1.0), 1)) for judge in judges]
    lines.append(Line("none", "victim", NATURAL, "", "", figure((0.975, 0.9, 1.0))))
    lines.append(Line("frozen", "victim", NATURAL, "", "", figure((0.875, 0.8, 0.925))))
    for victim in ("none", "frozen"):
        lines.append(Line(victim, "victim", ROBUST, "", "", figure((0.5, 0.4, 0.6))))
        lines += [Line(victim, "victim", AGREEMENT, judge, "", figure((0.25, 0.2, 0.3))) for judge in judges]
    for row, study in ((plain, 0), (guarded, 40)):
        counts = {QUERIES: 1200, STUDY: study}
        lines += [Line(row, "cost", name, "", "", figure((n, n, n))) for name, n in counts.items()]
        lines.append(Line(row, "fidelity", KID, judges[0], "", figure((0.03125, 0.025, 0.0375))))
    lines.append(Line("tl_dmi: ppa", "matched", TOP1, judges[0], "0.95", figure((0.625, 0.5, 0.75))))
    if embedding is not None:
        lines.append(Line(embedding, "embedding", "accuracy", "", "", figure((0.9, 0.8, 1.0), 1)))
        for row in (plain, guarded):
            lines += [Line(row, "attack", REFUSED, j, "", figure((0.125, 0.1, 0.15))) for j in judges]
        judges = (*judges, embedding)
    for i, judge in enumerate(judges):
        for name, kind, top1 in (("mean", "floor", 0.25), ("real", "ceiling", 0.96)):
            lines += _subject(name, kind, judge, (top1, top1 - 0.01, top1 + 0.01), 1)
        lines += _subject(plain, "attack", judge, (0.75 + i / 100, 0.6, 0.9), 3)
        lines += _subject(guarded, "attack", judge, (reached or {}).get(judge, (0.5, 0.3, 0.7)), 3)
        for row in (plain, guarded):
            lines += _subject(f"{row}, selected only", "floor", judge, (0.2, 0.1, 0.3), 3)
        lines.append(Line(plain, "difference", TOP1, judge, OWN_START, figure(MORE)))
        lines.append(
            Line(guarded, "difference", TOP1, judge, OWN_START, figure((gain or {}).get(judge, MORE)))
        )
        lines.append(Line(guarded, "difference", TOP1, judge, plain, figure((change or {}).get(judge, LESS))))
    return Table(tuple(lines))


def _subject(name: str, kind: str, judge: str, top1: Interval, seeds: int) -> list[Line]:
    figures = {TOP1: top1, TOP5: (1.0, 0.9, 1.0), KNN: (120.25, 100.0, 140.0)}
    return [Line(name, kind, what, judge, "", figure(value, seeds)) for what, value in figures.items()]
