"""Audits of attributes as people read them: a line an arm and attribute, and what they come to in words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mipriv.errors import InputError
from mipriv.stats import Figure
from tasks.attributes import Attributes
from tasks.auditing.arms import DROP, FLOOR, KIND, LABEL, MAJORITY, MAXIMUM, VICTIM, at_budget
from tasks.auditing.simulated import Simulated
from tasks.auditing.strengths import Strength
from tasks.leakage import AUC, BALANCED, CHOSEN, NATURAL, RECOVERED, Table, percent, points, sign

NOTHING = "Nothing was run: attributes.rows is empty at this scale, and this page has no figures."
ABSENT = "\N{EN DASH}"
WITHHELD = "withheld"


@dataclass(frozen=True)
class Told:
    """What is told of one attribute from one arm's features.

    Attributes:
        attribute: its name.
        hidden: whether it is the one that ought to be hidden.
        fresh: balanced accuracy of the auditor chosen on validation.
        most: of the best on the test images.
        auc: of the chosen.
        label: of the best guess from the main label alone.
        majority: of the commonest class.
        share: recovered of what undefended features tell beyond the floor; None: withheld.
        each: balanced accuracy of every auditor, by name.
        budgets: of the chosen, with fewer labels, by how a table calls them.
        simulated: of the attacker inside the training, a diagnosis.
    """

    attribute: str
    hidden: bool
    fresh: Figure
    most: Figure
    auc: Figure
    label: Figure
    majority: Figure
    share: Figure | None
    each: Mapping[str, Figure]
    budgets: Mapping[str, Figure]
    simulated: Simulated | None

    @property
    def simulated_said(self) -> str:
        """`83.5 (82.1 to 84.9 over seeds)`."""
        one = self.simulated
        return ABSENT if one is None else f"{_share(one.mean)} ({_share(one.least)} to {_share(one.most)})"


@dataclass(frozen=True)
class Audited:
    """An arm with all that is told of it.

    Attributes:
        name: row and arm.
        row: of `attributes`.
        undefended: whether it is its own ceiling.
        natural: main accuracy; of the victim's own people where nobody on the targets has a main label.
        drop: of it, against the undefended.
        client: parameters, macs and bytes.
        told: by attribute.
    """

    name: str
    row: str
    undefended: bool
    natural: Figure
    drop: Figure | None
    client: Mapping[str, float]
    told: Mapping[str, Told]

    @property
    def arm(self) -> str:
        """Its name in the row."""
        return self.name.split("/", 1)[1]

    @property
    def hidden(self) -> Told | None:
        """What is told of the attribute that was to be hidden; of an arm without one, none."""
        return next((one for one in self.told.values() if one.hidden), None)


def audited(table: Table, wanted: Attributes, simulated: Sequence[Simulated]) -> list[Audited]:
    """Every arm of the table.

    Args:
        table: of `evaluate_attributes`.
        wanted: the audits.
        simulated: attackers inside of trainings.
    """
    inside = {(one.subject, one.attribute): one for one in simulated}
    found = []
    for name in table.subjects(KIND):
        row = name.split("/", 1)[0]
        own = wanted.rows[row]
        told = {
            attribute: _told(
                table, name, attribute, attribute == own.attributes[0], wanted, inside.get((name, attribute))
            )
            for attribute in own.attributes
        }
        client = {
            figure: table.value(name, "client", figure, "", own.data).point
            for figure in ("parameters", "macs", "bytes")
        }
        lines = [line for line in table.lines if (line.subject, line.kind) == (name, VICTIM)]
        natural = next(line.value for line in lines if line.figure == NATURAL)
        drop = next((line.value for line in lines if line.figure == DROP), None)
        found.append(Audited(name, row, name == own.undefended, natural, drop, client, told))
    return found


def _told(
    table: Table, name: str, attribute: str, hidden: bool, wanted: Attributes, simulated: Simulated | None
) -> Told:
    own = wanted.rows[name.split("/", 1)[0]]
    fewer = [at_budget(attribute, budget) for budget in sorted(own.budgets) if budget != max(own.budgets)]
    return Told(
        attribute=attribute,
        hidden=hidden,
        fresh=table.value(name, KIND, BALANCED, CHOSEN, attribute),
        most=table.value(name, KIND, BALANCED, MAXIMUM, attribute),
        auc=table.value(name, KIND, AUC, CHOSEN, attribute),
        label=table.value(name, FLOOR, BALANCED, LABEL, attribute),
        majority=table.value(name, FLOOR, BALANCED, MAJORITY, attribute),
        share=find(table, name, KIND, RECOVERED, CHOSEN, attribute),
        each={auditor: table.value(name, KIND, BALANCED, auditor, attribute) for auditor in wanted.of(own)},
        budgets={where: table.value(name, KIND, BALANCED, CHOSEN, where) for where in fewer},
        simulated=simulated,
    )


def find(table: Table, *line: str) -> Figure | None:
    """A figure that is told only where it can be."""
    subject, kind, figure, judge, against = line
    try:
        return table.value(subject, kind, figure, judge, against)
    except InputError:
        return None


def said(found: Sequence[Audited], strengths: Sequence[Strength]) -> list[str]:
    """Findings, by the intervals."""
    if not found:
        return [NOTHING]
    sentences = []
    for row in dict.fromkeys(one.row for one in found):
        own = [one for one in found if one.row == row]
        ceiling = [one for one in found if one.undefended and one.row == row]
        sentences += [f"{row}: {sentence}" for sentence in _row(own, ceiling, strengths)]
    return sentences


def _row(own: Sequence[Audited], ceiling: Sequence[Audited], strengths: Sequence[Strength]) -> Iterator[str]:
    for one in ceiling:
        parts = [
            f"{told.attribute} of {percent(told.fresh)} % (the main label alone: {percent(told.label)} %)"
            for told in one.told.values()
        ]
        yield f"undefended, a fresh auditor tells {'; '.join(parts)}, in balanced accuracy."
    defended = [one for one in own if not one.undefended]
    for one in defended:
        if one.hidden is not None:
            yield f"{one.arm}: {_defended(one, one.hidden)}"
        for told in one.told.values():
            if not told.hidden and told.share is not None:
                yield (
                    f"{one.arm}: {told.attribute}, which nobody was to hide, is told to "
                    f"{percent(told.fresh)} %; {_left(told)}."
                )
    row = [one for one in strengths if defended and one.row == defended[0].row]
    if row:
        chosen = next((one for one in row if one.chosen), None)
        yield (
            "no strength keeps the main accuracy within 2 points of the undefended on validation images."
            if chosen is None
            else f"chosen on validation images: {chosen.arm}, which tells least among the "
            f"{sum(one.kept for one in row)} of {len(row)} strengths that keep the main accuracy within "
            "2 points."
        )


def _defended(one: Audited, told: Told) -> str:
    cost = (
        ""
        if one.drop is None
        else f" The main accuracy changes by {points(one.drop)} points{_shown(one.drop)}."
    )
    inside = told.simulated
    beside = (
        ""
        if inside is None
        else f" The attacker that it was trained against tells {_share(inside.mean)} %, which is no leakage: "
        f"it stands {abs(100 * (told.fresh.point - inside.mean)):.1f} points "
        f"{'below' if inside.mean < told.fresh.point else 'above'} the fresh one on the same features."
    )
    return f"a fresh auditor tells {told.attribute} of {percent(told.fresh)} %; {_left(told)}.{beside}{cost}"


def _left(told: Told) -> str:
    """How much of what undefended features tell beyond the floor."""
    if told.share is None:
        return f"undefended features tell too little beyond the floor for a share ({WITHHELD})"
    share = f"{percent(told.share)} % of what undefended features tell beyond the floor is left"
    if told.share.low > 0 and told.share.high < 1:
        return f"{share}: some is hidden, some is left"
    if told.share.high >= 1:
        return (
            f"{share}: it is not shown that anything is hidden"
            if told.share.low > 0
            else f"{share}: nothing is shown"
        )
    return f"{share}: no more than the floor is shown to be told"


def _shown(drop: Figure) -> str:
    return "" if sign(drop) else ", which shows no effect"


def _share(value: float) -> str:
    return f"{100 * value:.1f}"


def bill(client: Mapping[str, float]) -> str:
    """What a client costs, in words."""
    return (
        f"{client['parameters']:,.0f} parameters, {client['macs'] / 1e6:.3g} M multiply-accumulates, "
        f"{client['bytes']:,.0f} bytes sent"
    )
