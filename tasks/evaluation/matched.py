"""Defences at equal natural accuracy: each swept over its strengths, the curve read at given levels."""

from collections.abc import Mapping, Sequence

from mipriv.analysis.matched import Point, at
from tasks import finetune, invert
from tasks.curves import curves
from tasks.evaluation.attacked import of_seeds
from tasks.evaluation.referee import Measures, Values
from tasks.leakage import TOP1, Line


def lines(
    wanted: invert.Invert,
    victims: Mapping[str, finetune.Row],
    natural: Mapping[str, Values],
    made: Mapping[str, Measures],
    judge: str,
    levels: Sequence[float],
) -> list[Line]:
    """Attack accuracy of every defence at every level of natural accuracy that its curve reaches.

    Args:
        natural: natural accuracy [S, I] of each victim, over its own training seeds.
        made: figures [S, I] of each row of `invert`, over the row's seeds.
        judge: who took those figures.
        levels: natural accuracies.
    """
    found = []
    for (where, defense), rows in curves(wanted, victims).items():
        shared = sorted(set.intersection(*(set(wanted.rows[row].seeds) for row in rows)))
        if not shared:
            continue
        curve = []
        for name in rows:
            row = wanted.rows[name]
            own = of_seeds({TOP1: natural[row.victim]}, victims[row.victim].seeds, [shared, row.seeds])
            attack = of_seeds(made[name], row.seeds, [shared, row.seeds])
            curve.append(Point(own[TOP1], attack[TOP1]))
        for level in levels:
            figure = at(curve, level)
            if figure is not None:
                found.append(Line(f"{defense}: {where}", "matched", TOP1, judge, f"{level:g}", figure))
    return found
