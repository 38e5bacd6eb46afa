"""The rows of the leakage table: one figure each, with its interval, floor and n."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mipriv.stats import Figure


@dataclass(frozen=True)
class Line:
    """One figure of one subject.

    Attributes:
        subject: a row of `invert`, of `finetune`, of `prior` or of `judge`, or the name of a floor.
        kind: `victim`, `attack`, `floor`, `ceiling`, `difference` or `judge`.
        figure: what was measured.
        judge: who judged it; empty where nobody did.
        against: of a difference, what was subtracted.
    """

    subject: str
    kind: str
    figure: str
    judge: str
    against: str
    value: Figure

    def flat(self) -> dict[str, Any]:
        """One flat row for a table."""
        row = asdict(self)
        return {**{key: row[key] for key in row if key != "value"}, **row["value"]}


def metrics(lines: Iterable[Line]) -> Mapping[str, Any]:
    """Points alone, nested by subject and judge, as `dvc metrics` shows them."""
    nested: dict[str, Any] = {}
    for line in lines:
        if line.kind in ("victim", "attack", "judge"):
            place = nested.setdefault(line.subject, {})
            if line.judge:
                place = place.setdefault(line.judge, {})
            place[line.figure] = round(line.value.point, 4)
    return nested
