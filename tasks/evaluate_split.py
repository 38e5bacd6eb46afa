"""Stage `evaluate_split`: what every client gives away, measured and bounded, and what its defence costs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field

from mipriv import plugin
from mipriv.data.dataset import Dataset
from mipriv.device import place, resolve
from mipriv.models.embedders import Embedding
from tasks import people, reconstruct, split
from tasks.auditing import simulated
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch
from tasks.evaluation.referee import EmbeddingReferee
from tasks.leakage import FILE, MSE, NATURAL, SSIM, Line
from tasks.splits import certificates, clients, gains, recovered
from tasks.tables import write_csv


class EvaluateSplit(Block):
    """How the bound is computed, and what counts as the plain alternative.

    `cells` a class, fitted on training images; `covariance` of a cell; `level` of the one-sided limit;
    `noise`, a row of `split` for each network whose arms are plain noise of several strengths; `embeddings`,
    who names people on recovered images: an embedder for each row of `prepare` that shows faces.
    """

    cells: Annotated[int, Field(gt=0)]
    covariance: Literal["isotropic", "diagonal"]
    level: Annotated[float, Field(gt=0.5, lt=1)]
    noise: list[str]
    embeddings: dict[str, str]


def run(stage: Stage[EvaluateSplit]) -> None:
    """Write `leakage.csv`: every figure; beside it a diagnosis of simulated attackers."""
    victims, attacks = stage.block("split", split.Splits), stage.block("reconstruct", reconstruct.Reconstruct)
    device = resolve(stage.cost.device)
    sets = _datasets(stage.path("data"), victims, attacks)
    with stage.progress(2) as progress:
        seen = clients.look(
            stage.path("victims"), victims, sets, stage.params, device, progress.part("victims")
        )
        judges = _judges(stage.params.embeddings, sets, device)
        found = recovered.look(
            stage.path("reconstructions"), attacks, victims, sets, judges, progress.part("attacks")
        )
    lines = [line for client in seen.values() for line in client.lines()]
    lines += recovered.floors(sets, attacks, victims, judges)
    lines += [line for row in found.values() for line in row.lines()]
    lines += gains.lines(victims, attacks, seen, found, stage.params.noise)
    lines += certificates.lines(seen, found, sets)
    _leave(stage, lines)
    people.write(stage.out / people.FILE, _by_person(seen, found))
    simulated.write(stage.out / simulated.FILE, [one for row in found.values() for one in row.simulated()])


def _by_person(
    seen: Mapping[str, clients.Client], found: Mapping[str, recovered.Recovered]
) -> dict[people.Key, people.Values]:
    """Accuracies of victims, and errors of what was recovered."""
    own = {(name, NATURAL, ""): people.Values(one.seeds, one.natural) for name, one in seen.items()}
    return own | {
        (name, figure, ""): people.Values(one.row.seeds, one.people[figure])
        for name, one in found.items()
        for figure in (MSE, SSIM)
    }


def _datasets(folder: Path, victims: split.Splits, attacks: reconstruct.Reconstruct) -> Mapping[str, Dataset]:
    names = [row.data for row in victims.rows.values()] + [row.data for row in attacks.rows.values()]
    return {name: Dataset.open(folder / name) for name in dict.fromkeys(names)}


def _judges(
    embeddings: Mapping[str, str], sets: Mapping[str, Dataset], device: torch.device
) -> dict[str, EmbeddingReferee]:
    """Those of the datasets that are attacked."""
    found = {}
    for name, embedder in embeddings.items():
        if name in sets:
            made: Embedding = plugin.load("embedder", embedder)
            found[name] = EmbeddingReferee(embedder, place(made.build(), device), sets[name])
    return found


def _leave(stage: Stage[EvaluateSplit], lines: list[Line]) -> None:
    write_csv(stage.out / FILE, [line.flat() for line in lines])
    for line in lines:
        key = "/".join(part for part in (line.kind, line.subject, line.against, line.figure) if part)
        stage.events.metric(key.replace("@", "_at_").replace(",", ""), line.value.point)
    stage.events.artifact(stage.out / FILE)


if __name__ == "__main__":
    raise SystemExit(launch(run, ["data", "victims", "reconstructions"], EvaluateSplit))
