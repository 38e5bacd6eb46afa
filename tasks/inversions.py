"""All inversions together: rows of `invert`, of whole victims, and of `invert_split`, of split ones.

Who reads results asks here, and sees one block: a split victim is a victim like any other, named `ROW/ARM`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks import finetune, invert, invert_split, split
from tasks.engine.stage import Stage
from tasks.leakage import UNDEFENDED

CEM = "cem"


@dataclass(frozen=True)
class Inversions:
    """Every attack and every attacked victim.

    Attributes:
        wanted: the block `invert` with the rows of `invert_split` after its own.
        victims: rows of `finetune`, then attacked arms of rows of `split` by `ROW/ARM`. Of an arm the
            backbone is its network, which it shares with its undefended twin.
        parts: names of the victims in two parties.
    """

    wanted: invert.Invert
    victims: Mapping[str, finetune.Row]
    parts: frozenset[str]

    @classmethod
    def of(cls, stage: Stage[Any]) -> "Inversions":
        """Those that the parameters ask for."""
        return cls.joined(
            stage.block("invert", invert.Invert),
            stage.block("invert_split", invert_split.InvertSplit),
            stage.block("finetune", finetune.Finetune),
            stage.block("split", split.Splits),
        )

    @classmethod
    def joined(
        cls,
        whole: invert.Invert,
        parts: invert_split.InvertSplit,
        victims: finetune.Finetune,
        splits: split.Splits,
    ) -> "Inversions":
        """One block of two."""
        rows, arms = dict(whole.rows), {}
        for name, row in parts.rows.items():
            rows[name] = row.like_whole()
            arms[row.subject] = arm(splits, row.victim, row.arm)
        return cls(whole.model_copy(update={"rows": rows}), {**victims.rows, **arms}, frozenset(arms))

    def split_row(self, victim: str) -> bool:
        """Whether a victim is in two parties."""
        return victim in self.parts

    def folders(self, whole: Path, parts: Path) -> dict[str, Path]:
        """Where the reconstructions of every row lie, given the folders of `invert` and of `invert_split`."""
        rows = self.wanted.rows.items()
        return {name: (parts if self.split_row(row.victim) else whole) / name for name, row in rows}


def arm(splits: split.Splits, row: str, name: str) -> finetune.Row:
    """An arm of a row of `split` as a victim among others; `noise + cem` where CEM is around its host."""
    own = splits.rows[row]
    different = own.arms[name]
    knobs = {**own.knobs, **different.knobs}
    defense = own.defense
    if different.cem is not None:
        defense = f"{defense} + {CEM}" if defense != UNDEFENDED else CEM
        knobs |= {CEM: different.cem}
    network = f"{own.network}, split"
    return finetune.Row(backbone=network, defense=defense, knobs=knobs, recipe=own.recipe, seeds=own.seeds)
