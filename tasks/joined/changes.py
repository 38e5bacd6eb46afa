"""What a defence changes: a cell against the same attack on the undefended twin, paired by person."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mipriv import stats
from mipriv.stats import Figure
from tasks import finetune, people, reconstruct
from tasks.evaluation.attacked import twins
from tasks.inversions import Inversions
from tasks.joined.cells import Cell
from tasks.leakage import NATURAL, TOP1, UNDEFENDED


def twin(subject: str, victims: Mapping[str, finetune.Row]) -> str | None:
    """The undefended victim in the table of the same backbone or split network; None for that one itself."""
    own = victims[subject]
    if own.defense == UNDEFENDED:
        return None
    plain = (
        name for name, row in victims.items() if (row.defense, row.backbone) == (UNDEFENDED, own.backbone)
    )
    return next(plain, None)


@dataclass(frozen=True)
class Pairs:
    """Figures by person, and which attacks are the same on two victims."""

    values: Mapping[people.Key, people.Values]
    every: Inversions
    reconstructions: reconstruct.Reconstruct

    def changed(self, cell: Cell, victim: str, undefended: str) -> Cell:
        """The cell with its change, where the twin was measured alike."""
        if cell.source is None or cell.source not in self.values:
            return cell
        other = self._other(cell.source, victim, undefended)
        if other is None or other not in self.values:
            return cell
        return replace(cell, change=difference(self.values[cell.source], self.values[other]))

    def _other(self, source: people.Key, victim: str, undefended: str) -> people.Key | None:
        subject, figure, judge = source
        if figure == NATURAL:
            return undefended, figure, judge
        if figure == TOP1:
            same = twins(self.every.wanted, self.every.victims).get(subject)
            return None if same is None else (same, figure, judge)
        row, _, arm = subject.partition("/")
        wanted = _setting(self.reconstructions, row)
        own, _, own_arm = undefended.partition("/")
        for name, other in self.reconstructions.rows.items():
            if other.victim == own and _setting(self.reconstructions, name) == wanted:
                return f"{name}/{own_arm or arm}", figure, judge
        return None


def _setting(attacks: reconstruct.Reconstruct, name: str) -> tuple[object, ...]:
    row = attacks.rows[name]
    return row.attack, attacks.knobs(row), row.of, row.data, row.knowledge, row.repeats, attacks.most(row)


def same(one: people.Values, other: people.Values) -> bool:
    """Whether two are equal figure by figure: no interval is wanted of a difference that is none."""
    return list(one.seeds) == list(other.seeds) and np.array_equal(one.values, other.values)


def difference(one: people.Values, other: people.Values) -> Figure | None:
    """`one` minus `other` over the training seeds and people that both have; None where they do not pair."""
    shared = [seed for seed in one.seeds if seed in other.seeds]
    if not shared or one.values.shape[1] != other.values.shape[1]:
        return None
    a, b = (each.values[[each.seeds.index(seed) for seed in shared]] for each in (one, other))
    return stats.paired_difference(a, b)
