"""What a victim answers to records, and how surely that tells which of them it was trained on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mipriv.attacks.membership import Answers
from mipriv.data.dataset import Dataset
from mipriv.data.splits import PRIVATE
from mipriv.errors import InputError
from mipriv.plugin import load
from mipriv.training import logits

CHUNK = 512


def private(data: Dataset) -> np.ndarray:
    """Indices [n] of all private images."""
    return np.concatenate([data.manifest.splits[split] for split in PRIVATE])


def answered(model: nn.Module, data: Dataset) -> tuple[Tensor, Tensor]:
    """Logits [n, K] of all private images, and their labels [n] within the pool.

    Few images are in memory at a time.
    """
    indices = private(data)
    people = {name: label for label, name in enumerate(data.names("private"))}
    labels = [people[data.store.label_names[i]] for i in data.store.labels[indices]]
    parts = [
        logits(model, data.store.tensor(indices[first : first + CHUNK])).cpu()
        for first in range(0, len(indices), CHUNK)
    ]
    return torch.cat(parts), torch.tensor(labels)


def refuse_shared(training: Dataset, data: Dataset) -> None:
    """Refuse images that are said to be of both kinds.

    Raises:
        InputError: naming one.
    """
    seen = {training.manifest.records[i][2] for i in private(training)}
    both = [path for path, _, digest in (data.manifest.records[i] for i in private(data)) if digest in seen]
    if both:
        said = f"{len(both)} images of data, {both[0]!r} first, are among the training images too"
        raise InputError(f"training: {said}; allowed: images that it saw in one row, others in the other")


def scores(attack: str, own: Answers, references: Answers | None) -> Tensor:
    """[N], higher: rather a member."""
    score: Tensor = load("membership", attack)(own, references)
    return score[0]


def shadows(path: Path, labels: Tensor, classes: int) -> Answers:
    """What shadow models answer to the same records, members first.

    Raises:
        InputError: no such tensors, or of another number of records or classes.
    """
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error
    if set(found) != {"logits", "members"}:
        raise InputError(f"{path}: tensors {sorted(found)}; allowed: logits [M, N, K], members [M, N]")
    said, members = found["logits"].float(), found["members"].bool()
    if said.ndim != 3 or said.shape[1:] != (len(labels), classes) or members.shape != said.shape[:2]:
        shapes = f"logits {list(said.shape)}, members {list(members.shape)}"
        raise InputError(f"{path}: {shapes}; allowed: [M, {len(labels)}, {classes}] and [M, {len(labels)}]")
    return Answers(said[:, None], labels, members)


def apart(own: Answers, references: Answers) -> tuple[Answers, Answers]:
    """Records that neither the victim nor any shadow was trained on become the population of both.

    RMIA compares with them; a record that no shadow has cannot be told by a likelihood ratio anyhow. Where
    there are none both come back as they were.
    """
    nobody = ~(own.members.any(0) | references.members.any(0))
    if not nobody.any():
        return own, references
    one, other = (
        Answers(
            answers.logits[:, :, ~nobody],
            answers.labels[~nobody],
            answers.members[:, ~nobody],
            answers.logits[:, :, nobody],
            answers.labels[nobody],
        )
        for answers in (own, references)
    )
    return one, other


def of_records(said: Sequence[Tensor], labels: Sequence[Tensor]) -> Answers:
    """A victim's answers to members and to others, in that order."""
    members = torch.cat([torch.ones(len(labels[0])), torch.zeros(len(labels[1]))]).bool()
    return Answers(torch.cat(list(said))[None, None], torch.cat(list(labels)), members[None])
