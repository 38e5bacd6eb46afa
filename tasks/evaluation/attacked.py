"""What every row of `invert` achieved, in the eyes of every judge."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from mipriv import stats
from mipriv.analysis.distribution_distance import frechet, kid
from mipriv.errors import InputError
from mipriv.metrics.agreement import false_positives
from mipriv.metrics.inversion import hits
from mipriv.stats import Figure
from tasks import finetune, invert
from tasks.evaluation.referee import Measures, Referee, Seen
from tasks.leakage import FRECHET, KID, QUERIES, REFUSED, STUDY, UNDEFENDED, Line


@dataclass(frozen=True)
class Attacked:
    """A row of `invert` as one judge sees it.

    Attributes:
        made: figures [S, I] of what it made.
        begun: figures [S, I] of where it began.
        features: [n, d] of all that it made, of every training seed.
        targets: [n] int64, whom each should show.
    """

    made: Measures
    begun: Measures
    features: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Row:
    """A row of `invert` with what it left.

    Attributes:
        name: of the row.
        wanted: the row itself.
        folder: of its reconstructions.
    """

    name: str
    wanted: invert.Row
    folder: Path

    def images(self, seed: int) -> dict[str, Tensor]:
        """`images`, `start` and `identities` of one training seed, of all its cells."""
        cells = [load_file(cell / invert.RECONSTRUCTIONS) for cell in sorted(self._cells(seed))]
        return {name: torch.cat([cell[name] for cell in cells]) for name in ("images", "start", "identities")}

    def cost(self) -> list[Line]:
        """Images that a victim was asked about: for each identity, and beforehand in the attack's study."""
        seeds = self.wanted.seeds
        people = len(self.images(seeds[0])["identities"])
        asked = sum(_facts(cell)["queries"] for seed in seeds for cell in self._cells(seed))
        studies = [self.folder / invert.STUDY / f"seed-{seed}" for seed in seeds]
        learnt = sum(_facts(folder)["queries"] for folder in studies if folder.exists())
        counts = {QUERIES: asked / len(seeds) / people, STUDY: learnt / len(seeds)}
        return [
            Line(self.name, "cost", name, "", "", Figure(value, value, value, people, len(seeds), "counted"))
            for name, value in counts.items()
        ]

    def _cells(self, seed: int) -> list[Path]:
        return list((self.folder / f"seed-{seed}").iterdir())


def look(row: Row, judges: Sequence[Referee], embedding: Referee | None) -> dict[str, Attacked]:
    """A row as each judge sees it; of a classifier also how much of what it accepts the embedding refuses."""
    everyone = [*judges, *([embedding] if embedding else [])]
    made: dict[str, list[tuple[Seen, Measures]]] = {judge.name: [] for judge in everyone}
    begun: dict[str, list[Measures]] = {judge.name: [] for judge in everyone}
    for seed in row.wanted.seeds:
        images = row.images(seed)
        seen = {judge.name: judge.look(images["images"], images["identities"]) for judge in everyone}
        independent = seen[embedding.name] if embedding else None
        for judge in everyone:
            own = seen[judge.name]
            also = {} if judge is embedding else refused(own, independent)
            made[judge.name].append((own, judge.measure(own) | also))
            start = judge.look(images["start"], images["identities"])
            begun[judge.name].append(judge.measure(start))
    return {name: _attacked(made[name], begun[name]) for name in made}


def _attacked(made: Sequence[tuple[Seen, Measures]], begun: list[Measures]) -> Attacked:
    features, targets = (
        torch.cat(parts) for parts in zip(*((s.features, s.targets) for s, _ in made), strict=True)
    )
    return Attacked(stack([measures for _, measures in made]), stack(begun), features, targets)


def fidelity(name: str, seen: Attacked, judge: Referee) -> list[Line]:
    """How far all that an attack made lies from private images, as distributions in a judge's features.

    The Fréchet distance is left out where there are too few images for it.
    """
    fake, real = seen.features.double().numpy(), judge.private.double().numpy()
    shown, labels = seen.targets.numpy(), judge.labels.numpy()
    found = [Line(name, "fidelity", KID, judge.name, "", kid(fake, shown, real, labels))]
    with contextlib.suppress(InputError):
        found.append(Line(name, "fidelity", FRECHET, judge.name, "", frechet(fake, shown, real, labels)))
    return found


def refused(seen: Seen, independent: Seen | None) -> Measures:
    """Share of the images that a judge accepts and the embedding refuses: [I]; none without an embedding."""
    if independent is None:
        return {}
    wrong = false_positives(hits(seen.scores, seen.targets, 1), independent.scores, seen.targets)
    return {REFUSED: seen.by_identity(wrong)}


def twins(wanted: invert.Invert, victims: Mapping[str, finetune.Row]) -> dict[str, str]:
    """For each attacked defence, the same attack on the undefended victim of the same backbone."""
    rows = wanted.rows

    def setting(row: invert.Row) -> tuple[str, ...]:
        knobs = json.dumps(wanted.knobs(row), sort_keys=True)
        return row.attack, knobs, row.prior, victims[row.victim].backbone

    plain = {setting(row): name for name, row in rows.items() if victims[row.victim].defense == UNDEFENDED}
    return {name: plain[setting(row)] for name, row in rows.items() if plain.get(setting(row), name) != name}


def of_seeds(measures: Measures, seeds: list[int], pairs: list[list[int]]) -> Measures:
    """Figures of the training seeds that both have, in one order."""
    shared = [seed for seed in pairs[0] if seed in pairs[1]]
    if not shared:
        raise InputError(f"params.yaml: invert.rows: seeds {pairs[0]} and {pairs[1]} share none to pair on")
    return {name: value[[seeds.index(seed) for seed in shared]] for name, value in measures.items()}


def stack(measures: list[Measures]) -> Measures:
    """Figures [S, I] of figures [I]."""
    return {name: np.stack([measure[name] for measure in measures]) for name in measures[0]}


def lines(subject: str, kind: str, judged_by: str, measures: Measures) -> list[Line]:
    """Each figure with its interval."""
    return [Line(subject, kind, name, judged_by, "", stats.mean(value)) for name, value in measures.items()]


def differences(subject: str, against: str, judged_by: str, a: Measures, b: Measures) -> list[Line]:
    """Each figure of `a` minus that of `b`, paired by seed and identity."""
    pairs = {name: stats.paired_difference(a[name], b[name]) for name in a if name in b}
    return [Line(subject, "difference", name, judged_by, against, value) for name, value in pairs.items()]


def refuse_mixed(folders: Mapping[str, Path], rows: dict[str, invert.Row]) -> None:
    """Figures pair only if they were made alike: library, device, processor.

    Raises:
        InputError: two cells were made under different ones.
    """
    made: dict[str, Path] = {}
    for row, wanted in rows.items():
        for seed in wanted.seeds:
            for path in sorted((folders[row] / f"seed-{seed}").glob(f"*/{invert.FACTS}")):
                made.setdefault(json.dumps(json.loads(path.read_text())["environment"], sort_keys=True), path)
    if len(made) > 1:
        (one, first), (two, second) = list(made.items())[:2]
        raise InputError(
            f"results made under different conditions do not pair: {first}: {one}; {second}: {two}"
        )


def _facts(cell: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((cell / invert.FACTS).read_text(encoding="utf-8"))
    return facts
