"""An attack's scores on a victim, record by record: what pairs its true positives with those of another."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mipriv import stats
from mipriv.errors import InputError
from mipriv.metrics import membership as metrics
from mipriv.metrics.membership import Detection
from mipriv.stats import Figure

FILE = "scores.json"
Key = tuple[str, str]  # victim, attack


@dataclass(frozen=True)
class Scored:
    """Scores of one attack on every training seed of a victim.

    Attributes:
        attack: by name.
        records: which were asked about, in words: the same words, the same records of a data set.
        rate: of false positives.
        resamples: of an interval.
        seeds: of training.
        scores: [T, N] float64, as attacks leave them; NaN where one has none.
        members: [T, N] bool.
    """

    attack: str
    records: str
    rate: float
    resamples: int
    seeds: list[int]
    scores: Tensor
    members: Tensor

    def at(self, seeds: list[int]) -> Detection:
        """True positives of these seeds; resampled alike wherever seeds and records are as many."""
        places = [self.seeds.index(seed) for seed in seeds]
        scores, members = self.scores[places], self.members[places]
        return metrics.pooled(scores, members, self.rate, resamples=self.resamples)

    def same(self, other: "Scored") -> bool:
        """Whether two are equal score by score: no interval is wanted of a difference that is none."""
        return (
            unpaired(self, other) is None
            and self.seeds == other.seeds
            and np.array_equal(self.scores.numpy(), other.scores.numpy(), equal_nan=True)
        )

    def plain(self) -> dict[str, Any]:
        """As JSON, with every bit of a score."""
        scores = [[None if score != score else score for score in row] for row in self.scores.tolist()]
        members = ["".join(map(str, row)) for row in self.members.int().tolist()]
        kept = {name: getattr(self, name) for name in ("attack", "records", "rate", "resamples", "seeds")}
        return {**kept, "scores": scores, "members": members}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> "Scored":
        """From JSON."""
        scores = [[float("nan") if score is None else score for score in row] for row in value["scores"]]
        members = torch.tensor([[each == "1" for each in row] for row in value["members"]])
        kept = {name: value[name] for name in ("attack", "records", "rate", "resamples")}
        kept["scores"] = torch.tensor(scores, dtype=torch.float64)
        return cls(**kept, seeds=list(value["seeds"]), members=members)


def unpaired(one: Scored, other: Scored) -> str | None:
    """Why two do not pair; None: they do."""
    shared = _shared(one, other)
    if (one.attack, one.rate) != (other.attack, other.rate):
        return "another attack or rate"
    if one.resamples != other.resamples:
        return "another number of resamples"
    if not shared:
        return "no training seed in both"
    own, others = (each.members[[each.seeds.index(seed) for seed in shared]] for each in (one, other))
    if one.records != other.records or not torch.equal(own, others):
        return "other records"
    if not all(_resolved(each, shared) for each in (one, other)):
        return "too few records with a score"
    return None


def _resolved(one: Scored, seeds: list[int]) -> bool:
    """Whether these seeds alone still tell the rate: an attack may have no score of a record."""
    places = [one.seeds.index(seed) for seed in seeds]
    known, members = ~one.scores[places].isnan(), one.members[places]
    distinct = int((known & ~members).any(0).sum())
    return bool((known & members).any()) and metrics.unresolved(distinct, one.rate) is None


def difference(one: Scored, other: Scored) -> Figure | None:
    """True positives of `one` minus those of `other`, resample by resample; None where they do not pair."""
    if unpaired(one, other) is not None:
        return None
    shared = _shared(one, other)
    own, others = one.at(shared), other.at(shared)
    again = np.array(own.again) - np.array(others.again)
    low, high = stats.interval(again[~np.isnan(again)])
    point = own.tpr.point - others.tpr.point
    return Figure(point, low, high, own.tpr.n, len(shared), "paired pigeonhole bootstrap")


def _shared(one: Scored, other: Scored) -> list[int]:
    return [seed for seed in one.seeds if seed in other.seeds]


def write(path: Path, found: Mapping[Key, Scored]) -> None:
    """One JSON object; keys are victim and attack with a tab between them."""
    text = json.dumps({"\t".join(key): each.plain() for key, each in found.items()}, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> dict[Key, Scored]:
    """What `write` wrote.

    Raises:
        InputError: another file.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        pairs = ((key.split("\t"), value) for key, value in plain.items())
        return {(victim, attack): Scored.of(value) for (victim, attack), value in pairs}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: no scores of members ({type(error).__name__}: {error})") from error
