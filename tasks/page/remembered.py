"""Membership of the victims that other attacks meet, on the page: lines of a table, curves, and words."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mipriv.metrics import membership as metrics
from mipriv.stats import Figure
from tasks.leakage import Table, percent, points, sign
from tasks.memberships import victims
from tasks.memberships.grids import AUC, TPR
from tasks.memberships.victims import DIFFERENCE, KIND, Victims
from tasks.page.findings import listed, named, share
from tasks.page.vulnerability import Told
from tasks.shadow_victims import Row

NOTHING = "No victim has shadow models at this scale: shadow_victims.rows is empty."


@dataclass(frozen=True)
class Line:
    """What an attack tells of a victim, spelt; `note` says why where it tells nothing."""

    victim: str
    attack: str
    tpr: str
    against: str
    auc: str
    note: str


def lines(table: Table, rows: Mapping[str, Row], wanted: Victims, folder: Path) -> list[Line]:
    """A line a victim and attack, in the order of the parameters."""
    return [
        _line(table, row, name, attack, wanted, folder)
        for name, row in rows.items()
        for attack in wanted.attacks
    ]


def _line(table: Table, row: Row, name: str, attack: str, wanted: Victims, folder: Path) -> Line:
    told, figure = victims.scores(folder, name, attack), TPR.format(wanted.rate)
    if isinstance(told, str):
        return Line(row.subject, attack, "", "", "", f"not applicable: {told}")
    tpr = find(table, row.subject, KIND, figure, attack)
    note = "" if tpr else metrics.unresolved(int((~told[1]).any(0).sum()), wanted.rate) or ""
    against, auc = (
        find(table, row.subject, kind, of, attack) for kind, of in ((DIFFERENCE, figure), (KIND, AUC))
    )
    return Line(
        row.subject,
        attack,
        percent(tpr) if tpr else "",
        points(against) if against else "",
        f"{auc.point:.3f}" if auc else "",
        note,
    )


def find(table: Table, subject: str, kind: str, figure: str, attack: str) -> Figure | None:
    """A figure of the table, where it is there."""
    wanted = (subject, kind, figure, attack)
    found = (
        line.value for line in table.lines if (line.subject, line.kind, line.figure, line.judge) == wanted
    )
    return next(found, None)


def curves(rows: Mapping[str, Row], wanted: Victims, folder: Path) -> list[Told]:
    """Curves of every attack on every victim, all training seeds together."""
    found = []
    for name, row in rows.items():
        told = {attack: victims.scores(folder, name, attack) for attack in wanted.attacks}
        drawn = {attack: metrics.roc(*pair) for attack, pair in told.items() if not isinstance(pair, str)}
        if drawn:
            distinct = max(
                int((~pair[1]).any(0).sum()) for pair in told.values() if not isinstance(pair, str)
            )
            found.append(Told(row.subject, drawn, metrics.EXPECTED / distinct))
    return found


def said(table: Table, rows: Mapping[str, Row], wanted: Victims) -> list[str]:
    """What the attack that is named first tells of victims, and what a defence changes, by the intervals."""
    if not rows:
        return [NOTHING]
    attack, figure = next(iter(wanted.attacks)), TPR.format(wanted.rate)
    told = {row.subject: find(table, row.subject, KIND, figure, attack) for row in rows.values()}
    known = {subject: value for subject, value in told.items() if value is not None}
    spelt = {subject: f"{named([subject])} ({share(value)})" for subject, value in known.items()}
    above = [spelt[subject] for subject, value in known.items() if value.low > wanted.rate]
    below = [spelt[subject] for subject, value in known.items() if value.low <= wanted.rate]
    sentences, at = [], f"At an FPR of {wanted.rate:g}, {attack}"
    if above:
        sentences.append(f"{at} tells members of {listed(above)}.")
    if below:
        sentences.append(f"{at} is not shown to do better than guessing on {listed(below)}.")
    return sentences + list(_changes(table, rows, wanted, attack, figure))


def _changes(
    table: Table, rows: Mapping[str, Row], wanted: Victims, attack: str, figure: str
) -> Iterator[str]:
    words = {-1: "tells less of", 1: "tells more of", 0: "is not shown to tell more or less of"}
    if wanted.undefended is None or wanted.undefended not in rows:
        return
    other = rows[wanted.undefended].subject
    for row in rows.values():
        change = find(table, row.subject, DIFFERENCE, figure, attack)
        if change is not None:
            whose = f"{named([row.subject])} than of {named([other])}"
            yield f"{attack} {words[sign(change)]} {whose}: {points(change)} points."
