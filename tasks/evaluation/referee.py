"""Judges at work: the figures that they take of images that claim to show private people."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mipriv import stats
from mipriv.attacks.search.rows import in_chunks
from mipriv.data.dataset import Dataset
from mipriv.metrics.embedding import nearest
from mipriv.metrics.inversion import hits, knn_distance
from mipriv.models.classifiers import Classifier
from mipriv.models.embedders import Embedder
from mipriv.stats import Figure
from mipriv.training import logits
from tasks.people import by_person

CHUNK = 256
Values = NDArray[np.float64]
Measures = dict[str, Values]


@dataclass(frozen=True)
class Seen:
    """What a judge makes of k images for each of I identities.

    Attributes:
        identities: [I] int64, who is claimed to be shown.
        scores: [I * k, K], larger where a person is likelier.
        features: [I * k, d].
    """

    identities: Tensor
    scores: Tensor
    features: Tensor

    @property
    def targets(self) -> Tensor:
        """[I * k] int64, who each image is claimed to show."""
        return self.identities.repeat_interleave(len(self.scores) // len(self.identities))

    def by_identity(self, rows: Tensor) -> Values:
        """Means [I] of figures [I * k]."""
        return rows.double().view(len(self.identities), -1).mean(1).numpy()


class Referee:
    """A judge with what it needs to know of the private images; subclasses say how it looks at one."""

    def __init__(self, name: str, data: Dataset) -> None:
        self.name, self.data = name, data
        images, self.labels = data.split("private/train")
        self.private = self.embed(images)

    def embed(self, images: Tensor) -> Tensor:
        """Features [n, d] on the CPU."""
        raise TypeError(f"{type(self).__name__} does not embed")

    def scores(self, images: Tensor, features: Tensor) -> Tensor:
        """[n, K], larger where a person is likelier, of images whose features are known."""
        raise TypeError(f"{type(self).__name__} does not score")

    def look(self, images: Tensor, identities: Tensor) -> Seen:
        """At k images [I, k, C, H, W] made for each identity [I]."""
        flat = images.flatten(0, 1)
        features = self.embed(flat)
        return Seen(identities, self.scores(flat, features), features)

    def look_for_all(self, images: Tensor, identities: Tensor) -> Seen:
        """At k images [k, C, H, W] that serve for every identity alike."""
        features, people = self.embed(images), len(identities)
        return Seen(identities, self.scores(images, features).repeat(people, 1), features.repeat(people, 1))

    def measure(self, seen: Seen) -> Measures:
        """Figures averaged over the k images: name to [I]."""
        distance = knn_distance(seen.features, seen.targets, self.private, self.labels)
        rows = {
            "accuracy@1": hits(seen.scores, seen.targets, 1),
            "accuracy@5": hits(seen.scores, seen.targets, 5),
            "knn": distance,
        }
        return {name: seen.by_identity(row) for name, row in rows.items()}

    def accuracy(self) -> Figure:
        """Top-1 accuracy on the private test images."""
        images, labels = self.data.split("private/test")
        right = self.scores(images, self.embed(images)).argmax(1) == labels
        return stats.mean(by_person(right, labels)[None])


class ClassifierReferee(Referee):
    """A classifier of another architecture, trained on the same people."""

    def __init__(self, name: str, model: Classifier, data: Dataset) -> None:
        self.model = model
        super().__init__(name, data)

    def embed(self, images: Tensor) -> Tensor:
        """See `Referee.embed`."""
        return _through(self.model.embed, self.model, images)

    def scores(self, images: Tensor, features: Tensor) -> Tensor:
        """See `Referee.scores`: the head on features that are there already."""
        return _through(self.model.head, self.model, features)


class EmbeddingReferee(Referee):
    """An embedding that knows no label: the likeliest person is the one with the nearest training image."""

    def __init__(self, name: str, model: Embedder, data: Dataset) -> None:
        self.model = model
        super().__init__(name, data)

    def embed(self, images: Tensor) -> Tensor:
        """See `Referee.embed`."""
        return _through(self.model, self.model, images)

    def scores(self, images: Tensor, features: Tensor) -> Tensor:
        """See `Referee.scores`: negative distances."""
        return -nearest(features, self.private, self.labels, self.data.num_classes("private"))


def _through(function: Callable[[Tensor], Tensor], model: nn.Module, rows: Tensor) -> Tensor:
    device = next(model.parameters()).device
    return in_chunks(lambda x: function(x.to(device)).float().cpu(), rows, CHUNK)


def accuracy_by_identity(model: nn.Module, data: Dataset) -> Values:
    """Share of each private person's test images that a classifier names rightly: [I]."""
    images, labels = data.split("private/test")
    return by_person(logits(model, images).cpu().argmax(1) == labels, labels)


def test_images(data: Dataset) -> tuple[Tensor, Tensor]:
    """Private test images [I, k, C, H, W], k the fewest that a person has, and identities [I]."""
    images, labels = data.split("private/test")
    people = labels.unique()
    fewest = int(torch.bincount(labels).min())
    return torch.stack([images[labels == person][:fewest] for person in people]), people


def people(values: Values, labels: Tensor) -> Values:
    """Means [S, I] of figures [S, n] over the images of each person who has any; labels [n]."""
    return np.stack([by_person(row, labels) for row in values])
