"""Tables of Fisher information, a line a layer and a line a third of the depth; and what they say."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mipriv.errors import InputError
from mipriv.stats import Figure

LAYERS, THIRDS, PICTURE = "fisher.csv", "thirds.csv", "fisher.png"
CLASSIFICATION, INVERSION = "classification", "inversion"
FIRST, LAST, DIFFERENCE = "first third", "last third", "first minus last"
MEAN, SHARE = "mean", "share"
# The study's analysis: first layers dominate inversion (1), last layers classification (-1).
CLAIMED = {INVERSION: 1, CLASSIFICATION: -1}
MEANINGS = {MEAN: "a parameter", SHARE: "summed over parameters"}


@dataclass(frozen=True)
class Score:
    """One layer of one victim under one loss.

    Attributes:
        victim: a row of `finetune`.
        task: `classification` or `inversion`.
        kind: `true` or `empirical`.
        layer: as in `named_modules`; `place` in the order of execution, from 0.
        group: `weights` or `normalisation`.
        parameters: of the layer.
        mean: information a parameter.
        share: part of the information of all layers.
    """

    victim: str
    task: str
    kind: str
    layer: str
    place: int
    group: str
    parameters: int
    mean: Figure
    share: Figure

    def flat(self) -> dict[str, Any]:
        """One flat row for a table; six significant digits, since scores span many powers of ten."""
        words = {key: value for key, value in vars(self).items() if not isinstance(value, Figure)}
        return {**words, **_ends(MEAN, self.mean), **_ends(SHARE, self.share), "n": self.mean.n}


@dataclass(frozen=True)
class Third:
    """How much of a group's information a third of its layers holds.

    Attributes:
        victim, task, kind, group: as of a `Score`.
        normalisation: `mean`, of the sum of mean-normalised scores, or `share`, of the sum itself.
        part: `first third`, `last third` or `first minus last`.
    """

    victim: str
    task: str
    kind: str
    group: str
    normalisation: str
    part: str
    value: Figure

    def flat(self) -> dict[str, Any]:
        """One flat row for a table."""
        words = {key: value for key, value in vars(self).items() if not isinstance(value, Figure)}
        return {**words, **_ends("point", self.value), "n": self.value.n}


def _ends(name: str, figure: Figure) -> dict[str, str]:
    low, high = ("low", "high") if name == "point" else (f"{name}_low", f"{name}_high")
    return {name: f"{figure.point:.6g}", low: f"{figure.low:.6g}", high: f"{figure.high:.6g}"}


def read(path: Path) -> list[Third]:
    """The table that `Third.flat` was written to.

    Raises:
        InputError: no such file, other columns, or a cell that is no number where one belongs.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_third(row) for row in csv.DictReader(file, strict=True)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{path}: no table of thirds ({type(error).__name__}: {error})") from error


def _third(row: Mapping[str, str]) -> Third:
    point, low, high = (float(row[name]) for name in ("point", "low", "high"))
    words = {field.name: row[field.name] for field in fields(Third) if field.name != "value"}
    return Third(**words, value=Figure(point, low, high, int(row["n"]), 1, "bootstrap of rows"))


def said(table: Sequence[Third]) -> str:
    """Where the information of one victim lies, and whether the study's claim agrees, from the intervals.

    The figures are those of the study's own score, the empirical information a parameter, of convolution and
    linear layers; where another reading of the same gradients agrees otherwise, that is said too.
    """
    seen = {
        (line.kind, line.normalisation, line.task, line.part): line.value
        for line in table
        if line.group == "weights"
    }
    asked = ("empirical", MEAN)
    figures = [
        _percent(seen[*asked, task, part]) for part in (FIRST, LAST) for task in (INVERSION, CLASSIFICATION)
    ]
    where = (
        "Of the empirical Fisher information a parameter, the first third of the convolution and linear "
        f"layers holds {figures[0]} for inversion and {figures[1]} for classification, the last third "
        f"{figures[2]} and {figures[3]}."
    )
    ends = {task: seen[*asked, task, DIFFERENCE] for task in CLAIMED}
    verdict = (
        f"This {_agreement(ends)} the study's claim that first layers dominate inversion and last layers "
        f"classification: {_dominates(ends)}, and inversion {_against(ends)}."
    )
    return " ".join([where, verdict, *_otherwise(seen, asked, _agreement(ends))])


def _sign(difference: Figure) -> int:
    """1 or -1 where the interval lies above or below zero, 0 where it holds zero."""
    return int(difference.low > 0) - int(difference.high < 0)


def _agreement(ends: Mapping[str, Figure]) -> str:
    agreed = sum(_sign(ends[task]) == wanted for task, wanted in CLAIMED.items())
    return ("does not agree with", "agrees in part with", "agrees with")[agreed]


def _dominates(ends: Mapping[str, Figure]) -> str:
    what = {1: "the first third dominates", -1: "the last third dominates", 0: "neither end dominates"}
    signs = {task: _sign(ends[task]) for task in (INVERSION, CLASSIFICATION)}
    if len(set(signs.values())) == 1:
        return f"{what[signs[INVERSION]]} both"
    return " and ".join(f"{what[sign]} {task}" for task, sign in signs.items())


def _against(ends: Mapping[str, Figure]) -> str:
    inversion, classification = ends[INVERSION], ends[CLASSIFICATION]
    if inversion.low > classification.high:
        return "lies nearer to the front than classification"
    if inversion.high < classification.low:
        return "lies nearer to the back than classification"
    return "lies no clearly nearer to the front than classification"


def _otherwise(
    seen: Mapping[tuple[str, str, str, str], Figure], asked: tuple[str, str], found: str
) -> Iterable[str]:
    """Readings of the same gradients whose agreement is another one."""
    for kind, normalisation in dict.fromkeys(key[:2] for key in seen):
        ends = {task: seen[kind, normalisation, task, DIFFERENCE] for task in CLAIMED}
        if (kind, normalisation) != asked and _agreement(ends) != found:
            name = f"{kind} information {MEANINGS[normalisation]}"
            yield f"The {name} {_agreement(ends)} it: {_dominates(ends)}."


def _percent(figure: Figure) -> str:
    point, low, high = (round(100 * end, 1) + 0.0 for end in (figure.point, figure.low, figure.high))
    return f"{point:.1f}% [{low:.1f}, {high:.1f}]"
