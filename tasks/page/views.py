"""The leakage table as people read it: rows for the page, and Markdown for a README."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mipriv.stats import Figure
from tasks import finetune, invert
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
    UNDEFENDED,
    Table,
    percent,
    plain,
    points,
    sign,
)
from tasks.page.render import parameters

AGAINST_TWIN = {-1: "leaks less", 0: "no effect shown", 1: "leaks more"}
AGAINST_START = {-1: "below its start", 0: "no gain shown", 1: "above its start"}


@dataclass(frozen=True)
class Judged:
    """An attack by one judge, spelt, with what its differences say; `reach` is its top-1 accuracy.

    `refused` is the share of pictures that the judge accepts and the embedding refuses.
    """

    judge: str
    reach: Figure
    top1: str
    top5: str
    knn: str
    twin: str
    twin_says: str
    start: str
    start_says: str
    refused: str


@dataclass(frozen=True)
class Attack:
    """A row of `invert` with its victim, by every judge; `knobs` are those of the victim's defence."""

    name: str
    attack: str
    prior: str
    victim: str
    defense: str
    knobs: str
    backbone: str
    natural: str
    people: int
    seeds: int
    queries: str
    kid: str
    judged: tuple[Judged, ...]


@dataclass(frozen=True)
class Victim:
    """A row of `finetune`: its accuracies, and by judge how often both say the same of public images."""

    name: str
    defense: str
    knobs: str
    backbone: str
    natural: str
    robust: str
    agreement: tuple[str, ...]


@dataclass(frozen=True)
class Bound:
    """A floor or the ceiling: top-1 and top-5 accuracy and KNN distance by judge."""

    name: str
    kind: str
    judged: tuple[tuple[str, str, str], ...]


def attack(table: Table, name: str, row: invert.Row, victim: finetune.Row) -> Attack:
    """How an attack is shown."""
    first = table.value(name, "attack", TOP1, table.judges[0])
    return Attack(
        name=name,
        attack=row.attack,
        prior=row.prior,
        victim=row.victim,
        defense=victim.defense,
        knobs=_knobs(victim.knobs),
        backbone=victim.backbone,
        natural=percent(table.value(row.victim, "victim", NATURAL)),
        people=first.n,
        seeds=first.seeds,
        queries=_queries(table, name),
        kid=_kid(table, name),
        judged=tuple(_judged(table, name, judge, victim.defense) for judge in everyone(table)),
    )


def everyone(table: Table) -> list[str]:
    """Judges, and after them the embedding where there is one."""
    return [*table.judges, *([table.embedding] if table.embedding else [])]


def victim(table: Table, name: str, row: finetune.Row) -> Victim:
    """How a victim is shown."""
    natural, robust = (percent(table.value(name, "victim", figure)) for figure in (NATURAL, ROBUST))
    same = tuple(percent(table.value(name, "victim", AGREEMENT, judge)) for judge in table.judges)
    return Victim(name, row.defense, _knobs(row.knobs), row.backbone, natural, robust, same)


def _knobs(knobs: Mapping[str, object]) -> str:
    return ", ".join(f"{knob} {value}" for knob, value in parameters(knobs))


def _kid(table: Table, name: str) -> str:
    (line,) = (line for line in table.lines if (line.subject, line.figure) == (name, KID))
    point, low, high = (1000 * end for end in (line.value.point, line.value.low, line.value.high))
    return f"{point:.2f} [{low:.2f}, {high:.2f}] thousandths in features of {line.judge}"


def matched(table: Table) -> dict[str, dict[str, dict[str, str]]]:
    """Attack accuracy of each defence at each natural accuracy that it reaches: defence, level, judge."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for line in table.lines:
        if line.kind == "matched":
            level = f"{100 * float(line.against):g}%"
            found.setdefault(line.subject, {}).setdefault(level, {})[line.judge] = percent(line.value)
    return found


def _queries(table: Table, name: str) -> str:
    each, study = (table.value(name, "cost", figure).point for figure in (QUERIES, STUDY))
    return f"{each:,.0f} an identity" + (f" after a study of {study:,.0f}" if study else "")


def _judged(table: Table, name: str, judge: str, defense: str) -> Judged:
    top1, twin = table.value(name, "attack", TOP1, judge), table.twin(name)
    start = table.value(name, "difference", TOP1, judge, OWN_START)
    classifies = table.embedding not in (None, judge)
    against, says = "", "undefended" if defense == UNDEFENDED else "no undefended twin"
    if twin is not None:
        difference = table.value(name, "difference", TOP1, judge, twin)
        against, says = points(difference), AGAINST_TWIN[sign(difference)]
    return Judged(
        judge=judge,
        reach=top1,
        top1=percent(top1),
        top5=percent(table.value(name, "attack", TOP5, judge)),
        knn=plain(table.value(name, "attack", KNN, judge)),
        twin=against,
        twin_says=says,
        start=points(start),
        start_says=AGAINST_START[sign(start)],
        refused=percent(table.value(name, "attack", REFUSED, judge)) if classifies else "",
    )


def bounds(table: Table) -> list[Bound]:
    """What needs no attack, then what real pictures reach."""
    return [
        Bound(name, kind, tuple(_bound(table, name, kind, judge) for judge in everyone(table)))
        for kind in ("floor", "ceiling")
        for name in table.subjects(kind)
    ]


def _bound(table: Table, name: str, kind: str, judge: str) -> tuple[str, str, str]:
    top1, top5, knn = (table.value(name, kind, figure, judge) for figure in (TOP1, TOP5, KNN))
    return percent(top1), percent(top5), plain(knn)


def markdown(attacks: Sequence[Attack], limits: Sequence[Bound], judges: Sequence[str]) -> str:
    """The table for a README: top-1 accuracy and differences to the undefended twin, in percent."""
    header = ["attack", "victim", "natural accuracy"]
    header += [title for judge in judges for title in (f"top 1 ({judge})", "vs. undefended")]
    lines = [header, ["---"] * len(header)]
    for row in attacks:
        figures = [cell for seen in row.judged for cell in (seen.top1, seen.twin)]
        lines.append([row.name, row.victim, row.natural, *figures])
    for limit in limits:
        figures = [cell for top1, _, _ in limit.judged for cell in (top1, "")]
        lines.append([f"{limit.kind}: {limit.name}", "", "", *figures])
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    for character, safe in {"\\": "\\\\", "|": "\\|", "<": "&lt;"}.items():
        text = text.replace(character, safe)
    return text
