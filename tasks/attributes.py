"""Stage `attributes`: what fresh auditors tell of attributes from what a split victim's client sends.

One cell an arm and training seed. The client is asked once for every image (and query); all auditors learn
from what it sent. Scores are kept image by image, so that a new figure runs no auditor again.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor

from mipriv import draws
from mipriv.attacks.attributes import Known, Opened, Told
from mipriv.attacks.search.rows import in_chunks
from mipriv.data.dataset import UNKNOWN, Dataset
from mipriv.device import environment, resolve
from mipriv.models import checkpoint, simulator
from tasks.auditing.parts import IDENTITY, PARTS, Parts, Population, parts, shown
from tasks.engine.cells import Cell, Progress
from tasks.engine.events import Events
from tasks.engine.params import Block, plugin_knobs
from tasks.engine.stage import Stage, launch
from tasks.party import Party
from tasks.people import by_person

SCORES, FACTS = "scores.safetensors", "audit.json"
CHUNK = 256
Share = Annotated[float, Field(gt=0, le=1)]


class Row(Block):
    """An audit of `victim`, a row of `split`, on `data`.

    `population`, whose images the auditor has and is judged on, see `tasks.auditing.parts`; `attributes`, the
    one that ought to be hidden first (`identity`: the class of the image); `auditors`, null for all; `arms`,
    null for all; training `seeds`; `budgets`, shares of the auditor's labelled images; `queries`, how often
    each image is sent; `undefended`, a row and arm of this block (`ROW/ARM`) that is the ceiling; `targets`,
    at most.
    """

    victim: str
    data: str
    population: Population
    attributes: Annotated[list[str], Field(min_length=1)]
    auditors: list[str] | None = None
    arms: list[str] | None = None
    seeds: list[int]
    budgets: Annotated[list[Share], Field(min_length=1)] = [1.0]  # noqa: RUF012
    queries: Annotated[int, Field(gt=0)] = 1
    undefended: str
    targets: Annotated[int, Field(gt=1)] | None = None


class Attributes(Block):
    """`validation`, the share of its own images that an auditor chooses by; `seed` of the auditors; their
    knobs under `auditors`, by name; `rows`."""

    validation: Annotated[float, Field(gt=0, lt=1)]
    seed: Annotated[int, Field(ge=0)]
    auditors: dict[str, dict[str, Any]]
    rows: dict[str, Row]

    def of(self, row: Row) -> dict[str, dict[str, Any]]:
        """Auditors of a row with their knobs."""
        return {name: self.auditors[name] for name in row.auditors or self.auditors}


@dataclass(frozen=True, eq=False)
class Sent:
    """What a client sent of each part: features [q, n, *feature_shape]; the server's answer to the first."""

    features: dict[str, Tensor]
    predicted: dict[str, Tensor]


def audit(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    auditors: dict[str, dict[str, Any]],
    attributes: list[str],
    budgets: list[float],
    population: Population,
    validation: float,
    queries: int,
    targets: int | None,
    seed: int,
    device: str,
) -> None:
    """Cell: scores of every auditor, attribute and budget on one victim."""
    where = torch.device(device)
    data, party = Dataset.open(inputs["data"]), Party.load(inputs["victim"], where)
    own = parts(data, population, validation, seed, targets)
    sent = ask(party, own, queries, seed, where)
    facts = checkpoint.read_card(inputs["victim"]).facts
    kept = _labels(data, own, attributes, facts.get("task")) | {
        f"predicted/{name}": value for name, value in sent.predicted.items()
    }
    kept |= _simulated(inputs["victim"], facts.get("private"), sent)
    if all((kept[f"main/{name}"] == UNKNOWN).all() for name in PARTS):
        kept |= _natural(party, data, facts.get("task"), seed, where)
    notes: dict[str, dict[str, float]] = {}
    work = [(name, share) for name in attributes for share in budgets]
    for done, (name, share) in enumerate(work):
        for auditor, told in tell(party, own, sent, kept, name, share, auditors, seed):
            key = f"{name}/{share:g}/{auditor}"
            kept[f"scores/{key}/validation"], kept[f"scores/{key}/test"] = told.validation, told.observed
            notes[key] = told.notes
        progress(done + 1, len(work))
    save_file({key: value.contiguous() for key, value in kept.items()}, out / SCORES)
    found = {
        "notes": notes,
        "population": population,
        "queries": queries,
        "images": {name: len(own.of[name].images) for name in PARTS},
        "task": facts.get("task"),
        "private": facts.get("private"),
        "client": facts["client"],
        "seed": seed,
        "environment": environment(where),
    }
    (out / FACTS).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    events.metrics({f"images/{name}": count for name, count in found["images"].items()})


@torch.no_grad()
def ask(party: Party, own: Parts, queries: int, seed: int, device: torch.device) -> Sent:
    """One pass of every image through the client a query, frozen and in evaluation mode."""
    features, predicted = {}, {}
    for name, part in own.of.items():
        each = [
            _asked(party, part.images, draws.generator(seed, "sent", name, q), device) for q in range(queries)
        ]
        predicted[name] = in_chunks(lambda z: party.model.server(z), each[0], CHUNK).argmax(1).cpu()
        features[name] = torch.stack(each).float().cpu()
    return Sent(features, predicted)


def _asked(party: Party, images: Tensor, random: torch.Generator, device: torch.device) -> Tensor:
    return in_chunks(lambda x: party.release(x.to(device), random), images, CHUNK)


def tell(
    party: Party,
    own: Parts,
    sent: Sent,
    labels: dict[str, Tensor],
    attribute: str,
    share: float,
    auditors: dict[str, dict[str, Any]],
    seed: int,
) -> Iterator[tuple[str, Told]]:
    """What each auditor tells of an attribute, given a share of the auditor's labelled images.

    Images whose attribute is unknown are neither learnt from nor chosen by; scores of validation images are
    those of the share, in order, scores of targets those of all of them.
    """
    classes = count(labels, attribute)
    rows = {name: shown(labels[f"classes/{attribute}/{name}"], share, classes) for name in PARTS[:2]}
    features = {name: sent.features[name][:, at] for name, at in rows.items()}
    known = Known(
        features["training"],
        labels[f"classes/{attribute}/training"][rows["training"]],
        features["validation"],
        labels[f"classes/{attribute}/validation"][rows["validation"]],
        classes,
    )
    for name, knobs in auditors.items():
        auditor = plugin_knobs("attributes", name, knobs, f"attributes.auditors.{name}")
        if auditor.access == "weights":
            images = [own.of[part].images[rows[part]] for part in PARTS[:2]]
            opened = Opened(party.model.client, *images)
            yield name, auditor(known, sent.features["test"], opened=opened, seed=seed)
        else:
            yield name, auditor(known, sent.features["test"], seed=seed)


def count(labels: dict[str, Tensor], attribute: str) -> int:
    """Classes of an attribute over all parts, two at least."""
    return max(2, 1 + max(int(labels[f"classes/{attribute}/{name}"].max()) for name in PARTS))


def _labels(data: Dataset, own: Parts, attributes: list[str], task: str | None) -> dict[str, Tensor]:
    """Classes of every attribute, the main label, and which images belong together."""
    found = {
        f"classes/{name}/{part}": own.attribute(data, name, part) for name in attributes for part in PARTS
    }
    found |= {f"main/{part}": own.attribute(data, task or IDENTITY, part) for part in PARTS}
    return found | {f"owners/{part}": own.of[part].owners for part in PARTS}


@torch.no_grad()
def _natural(
    party: Party, data: Dataset, task: str | None, seed: int, device: torch.device
) -> dict[str, Tensor]:
    """Accuracy [I] of the main task by person, on images of the victim's own people: others have no label."""
    found = {}
    for part in ("validation", "test"):
        images, people = data.split(f"private/{part}")
        classes = data.task(f"private/{part}", task)
        sent = _asked(party, images, draws.generator(seed, "natural", part), device)
        right = in_chunks(party.model.server, sent, CHUNK).argmax(1).cpu() == classes
        known = classes != UNKNOWN
        found[f"natural/{part}"] = torch.from_numpy(by_person(right[known], people[known]))
    return found


def _simulated(folder: Path, private: str | None, sent: Sent) -> dict[str, Tensor]:
    """What the attackers inside the training say of the targets' features, where one was left: the mean of
    their log-probabilities. A diagnosis of that training, see `tasks.auditing.simulated`."""
    if private is None or not (folder / simulator.FILE).exists():
        return {}
    logits = simulator.Simulator.load(folder).tell(sent.features["test"][0])
    scores = torch.stack([one.log_softmax(-1) for one in logits]).mean(0) if logits else None
    return {} if scores is None else {f"simulated/{private}/test": scores}


def run(stage: Stage[Attributes]) -> None:
    """Cells of one row: `ARM/seed-N`."""
    wanted, row = stage.params, stage.params.rows[stage.row or ""]
    stage.events.tags({"victim": row.victim, "data": row.data, "population": row.population})
    shared = {
        "auditors": {name: stage.plain("auditors", name) for name in wanted.of(row)},
        "attributes": row.attributes,
        "budgets": row.budgets,
        "population": row.population,
        "validation": wanted.validation,
        "queries": row.queries,
        "targets": row.targets,
        "seed": wanted.seed,
        "device": str(resolve(stage.cost.device)),
    }
    victim = stage.path("victim")
    arms = row.arms or sorted(folder.name for folder in victim.iterdir() if folder.is_dir())
    stage.cells(
        [
            Cell(
                f"{arm}/seed-{seed}",
                "tasks.attributes:audit",
                shared,
                {"data": stage.path("data"), "victim": victim / arm / f"seed-{seed}"},
            )
            for arm in arms
            for seed in row.seeds
        ]
    )


if __name__ == "__main__":
    raise SystemExit(launch(run, ["data", "victim"], Attributes))
