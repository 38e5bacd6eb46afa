"""Membership of victims that other attacks meet, too: what each attack tells of a checkpoint, by shadows."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from mipriv.attacks.membership import Answers, Membership
from mipriv.errors import InputError
from mipriv.metrics import membership as metrics
from mipriv.stats import Figure
from tasks import shadow_victims
from tasks.engine.params import Block, plugin_knobs
from tasks.leakage import Line
from tasks.memberships import scored
from tasks.memberships.grids import AUC, TPR
from tasks.memberships.scored import Scored
from tasks.shadow_victims import Row

KIND, DIFFERENCE, FLOOR = "membership of a victim", "membership difference", "membership floor"
GUESSING = "guessing"


class Attack(Block):
    """An `attack` with `knobs`."""

    attack: str
    knobs: Annotated[dict[str, Any], Field(default_factory=dict)]


class Victims(Block):
    """`attacks` by name; `rate` of false positives; `resamples` of an interval; `undefended`, a row of
    `shadow_victims` to which the others are compared, or null."""

    attacks: dict[str, Attack]
    rate: Annotated[float, Field(gt=0, lt=1)]
    resamples: Annotated[int, Field(gt=19)]
    undefended: str | None


@dataclass(frozen=True)
class Told:
    """What an attack tells of a victim.

    Attributes:
        subject: the victim, as other tables call it.
        row: of `shadow_victims`.
        attack: by name.
        records: which were asked about, in words.
        seeds: of the victim.
        scores: [T, N], a target a training seed; of a refused attack, empty.
        members: [T, N] bool.
        refused: why there are no scores; None: there are.
    """

    subject: str
    row: str
    attack: str
    records: str
    seeds: list[int]
    scores: Tensor
    members: Tensor
    refused: str | None

    def scored(self, wanted: Victims) -> Scored:
        """What pairs it with others."""
        return Scored(
            self.attack, self.records, wanted.rate, wanted.resamples, self.seeds, self.scores, self.members
        )


def attack(
    folder: Path, rows: Mapping[str, Row], seeds: Mapping[str, list[int]], wanted: Victims
) -> list[Told]:
    """Every attack on every victim.

    Args:
        folder: what `shadow_victims` left.
        rows: its rows.
        seeds: training seeds of the victim of each row.
    """
    found = []
    for name, row in rows.items():
        targets, references = shadow_victims.load(folder / name, row, seeds[name])
        for called, plan in wanted.attacks.items():
            attacker: Membership = plugin_knobs(
                "membership", plan.attack, plan.knobs, "evaluate_membership.victims"
            )
            scores, refused = _scored(attacker, targets, references)
            asked = f"{row.data}, pool {row.seed}"
            found.append(
                Told(row.subject, name, called, asked, seeds[name], scores, targets.members, refused)
            )
    return found


def _scored(attacker: Membership, targets: Answers, references: Answers) -> tuple[Tensor, str | None]:
    try:
        scores = attacker(targets, references)
    except InputError as error:  # an attack that compares with records of nobody, where there are none
        return torch.zeros(0, 0), str(error)
    if scores.isnan().all():
        return torch.zeros(0, 0), f"{len(references.logits)} shadows leave no score; allowed: more of them"
    return scores, None


def leave(found: list[Told], folder: Path) -> None:
    """Scores as `ROW/ATTACK.safetensors`, of a refused attack why as `ROW/ATTACK.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for told in found:
        own = folder / told.row
        own.mkdir(exist_ok=True)
        if told.refused is None:
            kept = {"scores": told.scores.float().contiguous(), "members": told.members}
            save_file(kept, own / f"{told.attack}.safetensors")
        else:
            text = json.dumps({"not applicable": told.refused})
            (own / f"{told.attack}.json").write_text(f"{text}\n", encoding="utf-8")


def scores(folder: Path, row: str, name: str) -> tuple[Tensor, Tensor] | str:
    """Scores and members [T, N] of an attack on a row, or why there are none."""
    refused = folder / row / f"{name}.json"
    if refused.exists():
        return str(json.loads(refused.read_text(encoding="utf-8"))["not applicable"])
    found = load_file(folder / row / f"{name}.safetensors")
    return found["scores"], found["members"]


def kept(found: list[Told], wanted: Victims) -> dict[scored.Key, Scored]:
    """Scores by victim and attack, where the rate of false positives can be told.

    Of a victim with several rows those of the first: the table shows its figure.
    """
    first: dict[scored.Key, Scored] = {}
    for one in found:
        if one.refused is None and _resolved(one, wanted):
            first.setdefault((one.subject, one.attack), one.scored(wanted))
    return first


def _resolved(told: Told, wanted: Victims) -> bool:
    return metrics.unresolved(_distinct(told), wanted.rate) is None


def _distinct(told: Told) -> int:
    return int((~told.members).any(0).sum())


def lines(found: list[Told], wanted: Victims) -> Iterator[Line]:
    """Of every victim and attack TPR and AUC; TPR against that of the undefended one on the same records."""
    figure = TPR.format(wanted.rate)
    told = {(one.row, one.attack): one for one in found if one.refused is None}
    for (row, name), own in told.items():
        if _resolved(own, wanted):
            seen = own.scored(wanted).at(own.seeds)
            yield Line(own.subject, KIND, figure, name, "", seen.tpr)
            exact = Figure(
                wanted.rate, wanted.rate, wanted.rate, _distinct(own), len(own.seeds), "by definition"
            )
            yield Line(own.subject, FLOOR, figure, GUESSING, name, exact)
            other = told.get((str(wanted.undefended), name))
            if other is not None and row != wanted.undefended:
                change = scored.difference(own.scored(wanted), other.scored(wanted))
                if change is not None:
                    yield Line(own.subject, DIFFERENCE, figure, own.attack, other.subject, change)
        yield Line(own.subject, KIND, AUC, name, "", _auc(own))


def _auc(own: Told) -> Figure:
    values = [metrics.auc(*pair) for pair in zip(own.scores, own.members, strict=True)]
    ends = (float(np.mean(values)), min(values), max(values))
    return Figure(*ends, own.scores.shape[1], len(values), "range over seeds")
