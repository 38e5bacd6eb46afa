"""Which strength of a defence is worth its price: chosen by the fresh auditors' validation images alone."""

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.auditing.arms import Arm
from tasks.tables import write_csv

FILE = "strengths.csv"
ALLOWED = 0.02  # main accuracy below that of the undefended, at most


@dataclass(frozen=True)
class Strength:
    """An arm among those of its row, by validation images of the auditor, which no defender saw.

    Attributes:
        row, arm: names.
        attribute: the hidden one.
        told: balanced accuracy of the auditor that is chosen.
        main: accuracy of the main task; where nobody on the images has a main label, on the images that the
            victim was selected by.
        kept: main accuracy within `ALLOWED` of the undefended.
        chosen: of those kept, the one that tells least.
    """

    row: str
    arm: str
    attribute: str
    told: float
    main: float
    kept: bool
    chosen: bool


def strengths(arms: Iterable[Arm], undefended: dict[str, Arm]) -> list[Strength]:
    """Of every arm that is not its own ceiling.

    Args:
        arms: of all rows.
        undefended: the ceiling of each arm, by the arm's name.
    """
    found: list[Strength] = []
    for arm in arms:
        row, name = arm.name.split("/", 1)
        ceiling = undefended[arm.name]
        if arm.name != ceiling.name:
            own, other = (float(one.natural("validation").mean()) for one in (arm, ceiling))
            kept = own >= other - ALLOWED
            found.append(
                Strength(row, name, arm.private, arm.whole[arm.private].validation, own, kept, False)
            )
    best: dict[str, Strength] = {}
    for one in found:
        if one.kept and (one.row not in best or one.told < best[one.row].told):
            best[one.row] = one
    return [Strength(**{**asdict(one), "chosen": best.get(one.row) == one}) for one in found]


def write(path: Path, found: list[Strength]) -> None:
    """Its columns alone where there is none."""
    if found:
        write_csv(path, [asdict(one) for one in found])
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(",".join(Strength.__dataclass_fields__) + "\n", encoding="utf-8")


def read(path: Path) -> list[Strength]:
    """What `write` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Strength(
                row["row"],
                row["arm"],
                row["attribute"],
                float(row["told"]),
                float(row["main"]),
                row["kept"] == "True",
                row["chosen"] == "True",
            )
            for row in csv.DictReader(file)
        ]
