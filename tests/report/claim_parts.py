"""Claims made by hand, the tables they are read against, and where Fisher information lies."""

from pathlib import Path
from typing import Any

from mipriv.stats import Figure
from tasks.engine.params import validate
from tasks.information import DIFFERENCE, FIRST, LAST, Third
from tasks.leakage import TOP1, Line, Table
from tasks.page.claims import Claims, Rows, Study
from tests.report.leakage_lines import JUDGES, Interval, figure, table

FOLDER = Path(__file__).parents[2] / "claims"
NAMES = {
    "attacks": {"ppa": "ppa", "gmi": "gmi", "averaged": "ppa_averaged"},
    "victims": {"undefended": "none", "tl_dmi": "frozen", "bido": "bido"},
}
DIFFERS = {
    "kind": "difference", "figure": TOP1, "row": "ppa/tl_dmi", "against": "ppa/undefended", "expected": -1,
}  # fmt: skip
ORDERED = {"kind": "order", "figure": TOP1, "above": "ppa/undefended", "below": "gmi/undefended"}
NATURALLY = {"kind": "natural", "above": "undefended", "below": "tl_dmi"}
DEEP = {
    "kind": "fisher", "victim": "undefended", "task": "inversion", "information": "empirical",
    "dominates": "first third",
}  # fmt: skip
FRONT, BACK, EVEN = (0.4, 0.2, 0.6), (-0.4, -0.6, -0.2), (0.1, -0.1, 0.3)


def claim(test: Any = None, **changed: Any) -> dict[str, Any]:
    published = [{"setting": "PPA, a network", "figure": "attack accuracy", "value": 25.1, "unit": "%"}]
    words = {"id": "one", "says": "It leaks less.", "source": "Table 8", "reliability": "paper"}
    reason = "Not of this scale." if test is None else None
    return {**words, "published": published, "test": test, "not_run": reason, **changed}


def of(*parts: dict[str, Any]) -> Claims:
    study = {"study": "TL-DMI", "paper": "A paper, 2024", "claims": list(parts)}
    return Claims(validate(Rows, NAMES, "names"), (validate(Study, study, "study"),))


def ran(**changed: Any) -> Table:
    return table(plain="ppa-none", guarded="ppa-frozen", **changed)


def attacked(row: str, *levels: Interval) -> list[Line]:
    """Top-1 accuracy of one more row, judge by judge."""
    return [Line(row, "attack", TOP1, j, "", figure(v, 1)) for j, v in zip(JUDGES, levels, strict=True)]


def thirds(
    first: Interval, victim: str = "none", task: str = "inversion", kind: str = "empirical"
) -> list[Third]:
    """A table of one task; a reader of another normalisation or group sees the opposite sign."""
    parts = {FIRST: (0.6, 0.5, 0.7), LAST: (0.2, 0.1, 0.3), DIFFERENCE: first}
    lines = []
    for part, (point, low, high) in parts.items():
        for group in ("weights", "normalisation"):
            for normalisation in ("mean", "share"):
                wanted = (group, normalisation) == ("weights", "mean")
                ends = (point, low, high) if wanted else (-point, -high, -low)
                value = Figure(*ends, n=20, seeds=1, method="by hand")
                lines.append(Third(victim, task, kind, group, normalisation, part, value))
    return lines
