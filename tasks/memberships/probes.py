"""Shadows of a victim of which only the head is trained: what stands in front of it, once for all of them.

TL-DMI's cut behind the whole trunk makes the trunk the same function in every shadow. One cell computes what
it makes of every record, in as many random views as there are epochs and as it is asked about; a shadow then
trains its head on them by the very loop that trained the victim, in each epoch on another view of a record,
in an order of its own. Each shadow by itself is trained as the victim was. What differs from shadows that
compute their own features: the views are the same ones in all of them.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mipriv import draws
from mipriv.attacks.search.rows import in_chunks
from mipriv.data.augment import Augment
from mipriv.data.dataset import Dataset
from mipriv.defenses import Defense
from mipriv.device import place
from mipriv.models.classifiers import Classifier
from mipriv.models.fold import folded
from mipriv.training import Recipe
from tasks import classifier, finetune
from tasks.engine.cells import Progress
from tasks.engine.events import Events
from tasks.engine.params import validate
from tasks.memberships.asked import Asked, queries

NAME = "features"
FILE = "features.safetensors"
KEPT = ("logits", "population")
CHUNK = 256
LARGEST = 2**31  # bytes of features; beyond, every shadow computes its own


def possible(data: Dataset, inputs: dict[str, Path], made: dict[str, Any]) -> bool:
    """Whether shadows that are `made` so differ in their heads alone, and their features can be kept."""
    model, plan = _untrained(data, inputs, made, 0)
    if not plan.head_alone(model, data.image_shape):
        return False
    records = sum(
        len(data.split(name)[1]) for name in ("private/train", "private/validation", "private/test")
    )
    views = validate(Recipe, made["recipe"], "recipe").epochs + 2
    return records * views * model.head.in_features * 4 <= LARGEST


def features(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    made: dict[str, Any],
    mirrored: bool,
    seed: int,
    device: str,
) -> None:
    """Cell: features `views` [E, N, d] of records in training, `logits` [Q, N, d] as they are asked about."""
    data = Dataset.open(inputs["data"])
    asked, recipe = Asked.of(data, None, None, seed), validate(Recipe, made["recipe"], "recipe")
    victim, plan = _untrained(data, inputs, made, seed)
    plan.prepare(victim, data.image_shape)
    model = place(folded(victim, data.image_shape), torch.device(device))
    assert isinstance(model, Classifier)
    found = {"logits": queries(partial(_embedded, model), asked.images, mirrored)}
    if len(asked.population):
        found["population"] = queries(partial(_embedded, model), asked.population, mirrored)
    model.train()
    plan.before_epoch(model, 0)  # as in training: what is frozen stays in evaluation mode, dropout does not
    views = []
    with draws.seeded(seed, "dropout of views"):
        for epoch in range(recipe.epochs):
            views.append(_viewed(model, asked.images, recipe, draws.generator(seed, "views", epoch)))
            progress(epoch + 1, recipe.epochs)
    save_file({**found, "views": torch.stack(views)}, out / FILE)


def shadow(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    made: dict[str, Any],
    models: int,
    number: int,
    mirrored: bool,
    seed: int,
    device: str,
) -> None:
    """Cell: what one shadow says, from the folder of `features`."""
    data = Dataset.open(inputs["data"])
    asked, found = Asked.of(data, None, None, seed), load_file(inputs[NAME] / FILE)
    own = asked.drawn(models, number, seed)
    head = _untrained(data, inputs, made, own.seed)[0].head
    pairs = own.pairs(found["logits"][0], asked.labels)
    views, records = found["views"], own.members.nonzero()[:, 0]
    order = torch.randperm(len(views), generator=draws.generator(own.seed, "views"))
    history = classifier.fit(
        head,
        pairs,
        made["recipe"],
        Defense(),
        own.seed,
        device,
        progress,
        events,
        views=lambda rows, _, epoch: views[order[epoch], records[rows]].to(device),
    )
    events.metric("members_accuracy", history.kept.accuracy)
    with torch.no_grad():
        answers = {
            name: head(found[name].to(device)).float().cpu().contiguous() for name in KEPT if name in found
        }
    asked.write(out, answers, own.members)


def _untrained(
    data: Dataset, inputs: dict[str, Path], made: dict[str, Any], seed: int
) -> tuple[Classifier, Defense]:
    return finetune.untrained(data, inputs=inputs, defense=made["defense"], knobs=made["knobs"], seed=seed)


@torch.no_grad()
def _embedded(model: Classifier, images: Tensor) -> Tensor:
    device = next(model.parameters()).device
    return in_chunks(lambda x: model.embed(x.to(device)), images, CHUNK)


@torch.no_grad()
def _viewed(model: Classifier, images: Tensor, recipe: Recipe, random: torch.Generator) -> Tensor:
    """[N, d] float32 of one random view of each image, as a step of training computes it."""
    device = next(model.parameters()).device
    uniforms = torch.rand(len(images), Augment.DRAWS, generator=random)
    parts = []
    for places in torch.arange(len(images)).split(CHUNK):
        shown = recipe.augment(images[places].to(device), uniforms[places])
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            parts.append(model.embed(shown).float().cpu())
    return torch.cat(parts)
