"""What the figures say in words: sentences chosen by the intervals, negative results as plainly as others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mipriv.stats import Figure
from tasks.leakage import NATURAL, OWN_START, REFUSED, TOP1, Table, percent, points, sign


@dataclass(frozen=True)
class Finding:
    """A question, the answer, and what each row of `invert` has to say to it."""

    question: str
    answer: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Evidence:
    """The table with what it takes to read it.

    Attributes:
        table: every figure.
        victims: the row of `finetune` that a row of `invert` attacks.
        undefended: rows of `finetune` without a defence.
        people: private people, of whom a guess names one.
    """

    table: Table
    victims: Mapping[str, str]
    undefended: frozenset[str]
    people: int

    @property
    def chance(self) -> float:
        """How often a guess names the target."""
        return 1 / self.people

    @property
    def guess(self) -> str:
        """The same in percent."""
        return f"{100 * self.chance:.1f}%"

    def signs(self, row: str, against: str) -> set[int]:
        """What the judges say of a difference in top-1 accuracy: see `leakage.sign`."""
        judges = self.table.judges
        return {sign(self.table.value(row, "difference", TOP1, judge, against)) for judge in judges}

    def above_chance(self, row: str) -> bool:
        """Whether every judge's interval lies above a guess."""
        return all(self.table.value(row, "attack", TOP1, j).low > self.chance for j in self.table.judges)

    def beats_floors(self, row: str) -> bool:
        """Whether every judge finds an attack above a guess, and above its own start."""
        return self.above_chance(row) and self.signs(row, OWN_START) == {1}

    def accuracy(self, row: str) -> str:
        """Attack accuracy by each judge."""
        judges = self.table.judges
        return listed([f"{share(self.table.value(row, 'attack', TOP1, j))} ({j})" for j in judges])

    def difference(self, row: str, against: str) -> str:
        """Difference in attack accuracy by each judge."""
        judges = self.table.judges
        found = [points(self.table.value(row, "difference", TOP1, j, against)) for j in judges]
        return listed([f"{figure} points ({j})" for figure, j in zip(found, judges, strict=True)])

    def natural(self, row: str) -> str:
        """Natural accuracy of the victim of an attack."""
        return share(self.table.value(self.victims[row], "victim", NATURAL))


def findings(evidence: Evidence) -> list[Finding]:
    """What leaks, whether that is above the floors, and what each defence changes."""
    found = [_leaks(evidence), _above_floors(evidence), _changes(evidence)]
    return (
        found
        if evidence.table.embedding is None
        else [*found, _independent(evidence, evidence.table.embedding)]
    )


def _leaks(evidence: Evidence) -> Finding:
    """Attack accuracy on undefended victims, or on all where none is undefended."""
    rows = evidence.table.subjects("attack")
    plain = [row for row in rows if evidence.victims[row] in evidence.undefended]
    judge = evidence.table.judges[0]
    reached = [100 * evidence.table.value(row, "attack", TOP1, judge).point for row in plain or rows]
    answer = (
        f"Judge {judge} names the person who was asked for in {_span(reached)} of the pictures that attacks "
        f"draw from {'undefended' if plain else 'defended'} victims; guessing among {evidence.people} people "
        f"is right in {evidence.guess}."
    )
    return Finding("What leaks?", answer, tuple((row, evidence.accuracy(row)) for row in plain or rows))


def _above_floors(evidence: Evidence) -> Finding:
    rows = evidence.table.subjects("attack")
    beaten = [row for row in rows if evidence.beats_floors(row)]
    answer = (
        f"By every judge, {len(beaten)} of {len(rows)} attacks beat a guess and their own start (pictures "
        "that are drawn or chosen, but not optimised)."
    )
    if len(beaten) < len(rows):
        answer += f" For {listed([row for row in rows if row not in beaten])} that could not be shown."
    said = ((row, _gain(evidence, row)) for row in rows)
    return Finding("Is that more than the floors?", answer, tuple(said))


def _gain(evidence: Evidence, row: str) -> str:
    gain = f"{evidence.difference(row, OWN_START)} against its own start"
    if evidence.beats_floors(row):
        return gain
    guess = "" if evidence.above_chance(row) else f"; {evidence.accuracy(row)}, a guess {evidence.guess}"
    return f"is not shown to beat its floors: {gain}{guess}"


def _changes(evidence: Evidence) -> Finding:
    question, table = "What does the defence change, at what natural accuracy?", evidence.table
    twins = {row: twin for row in table.subjects("attack") if (twin := table.twin(row)) is not None}
    if not twins:
        return Finding(question, "No defended victim has an undefended twin under the same attack.", ())
    groups: dict[str, list[str]] = {}
    for row, twin in twins.items():
        groups.setdefault(_verdict(evidence.signs(row, twin)), []).append(row)
    answer = ". ".join(f"{verdict}: {listed(rows)}" for verdict, rows in groups.items()) + "."
    said = (
        f"{evidence.difference(row, twin)} against {twin}; natural accuracy {evidence.natural(row)}, "
        f"undefended {evidence.natural(twin)}"
        for row, twin in twins.items()
    )
    return Finding(question, answer, tuple(zip(twins, said, strict=True)))


def _independent(evidence: Evidence, embedding: str) -> Finding:
    """How many of the pictures that classifiers accept an embedding without labels refuses."""
    table = evidence.table
    said, shares = [], []
    for row in table.subjects("attack"):
        accepted, wrong = (
            sum(table.value(row, "attack", figure, judge).point for judge in table.judges)
            for figure in (TOP1, REFUSED)
        )
        own = share(table.value(row, "attack", TOP1, embedding))
        if accepted:
            shares.append(100 * wrong / accepted)
            said.append(
                (row, f"of what the judges accept, {shares[-1]:.0f}% is refused; top 1 by {embedding} {own}")
            )
        else:
            said.append((row, f"no picture is accepted; top 1 by {embedding} {own}"))
    answer = (
        f"The embedding {embedding} was trained on other people and sees no labels: a picture that a judge "
        f"accepts and in which it finds somebody else nearest counts as a false positive. "
    )
    answer += f"By row that is {_span(shares)} of what is accepted." if shares else "Nothing was accepted."
    return Finding("Does a judge that knows no label agree?", answer, tuple(said))


def _verdict(signs: set[int]) -> str:
    """What a difference to the undefended twin means, all judges taken together."""
    alone = {-1: "Leaks less by every judge", 0: "No effect could be shown", 1: "Leaks more by every judge"}
    return alone[next(iter(signs))] if len(signs) == 1 else "The judges differ"


def share(figure: Figure) -> str:
    """`52.0% [39.3, 64.7]`."""
    return percent(figure).replace(" ", "% ", 1)


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, or `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def named(names: Sequence[str]) -> str:
    """Names in quotes: a victim may be called `none`, and a column has commas."""
    return listed([f"\N{LEFT DOUBLE QUOTATION MARK}{name}\N{RIGHT DOUBLE QUOTATION MARK}" for name in names])


def _span(values: Sequence[float]) -> str:
    """`5.0%`, or `5.0% to 7.0%`."""
    return " to ".join(dict.fromkeys(f"{value:.1f}%" for value in (min(values), max(values))))
