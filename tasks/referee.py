"""A judge at work: the figures it takes of images that claim to show private people."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipriv import stats
from mipriv.attacks.search.rows import in_chunks
from mipriv.data.dataset import Dataset
from mipriv.metrics.inversion import hits, knn_distance
from mipriv.models.classifiers import Classifier
from mipriv.stats import Figure
from mipriv.training import logits

CHUNK = 256
Values = NDArray[np.float64]
Measures = dict[str, Values]


class Referee:
    """A judge with what it needs to know of the private images."""

    def __init__(self, name: str, model: Classifier, data: Dataset) -> None:
        self.name, self.model, self.data = name, model, data
        images, self.labels = data.split("private/train")
        self.private = self._embed(images)

    def measure(self, images: Tensor, identities: Tensor) -> Measures:
        """Figures of k images made for each identity, averaged over the k: name to [I].

        Args:
            images: [I, k, C, H, W].
            identities: [I] int64.
        """
        seen = self._see(images.flatten(0, 1))
        return self._figures(*seen, identities, images.shape[1])

    def measure_for_all(self, images: Tensor, identities: Tensor) -> Measures:
        """The same of k images [k, C, H, W] that serve for every identity alike."""
        scores, features = self._see(images)
        people = len(identities)
        return self._figures(scores.repeat(people, 1), features.repeat(people, 1), identities, len(images))

    def accuracy(self) -> Figure:
        """Top-1 accuracy on the private test images."""
        return stats.mean(accuracy_by_identity(self.model, self.data)[None])

    def _see(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return logits(self.model, images).cpu(), self._embed(images)

    def _figures(self, scores: Tensor, features: Tensor, identities: Tensor, k: int) -> Measures:
        targets = identities.repeat_interleave(k)
        distance = knn_distance(features, targets, self.private, self.labels)
        rows = {
            "accuracy@1": hits(scores, targets, 1),
            "accuracy@5": hits(scores, targets, 5),
            "knn": distance,
        }
        return {name: row.double().view(-1, k).mean(1).numpy() for name, row in rows.items()}

    def _embed(self, images: Tensor) -> Tensor:
        device = next(self.model.parameters()).device
        return in_chunks(lambda x: self.model.embed(x.to(device)).cpu(), images, CHUNK)


def accuracy_by_identity(model: Classifier, data: Dataset) -> Values:
    """Share of each private person's test images that a classifier names rightly: [I]."""
    images, labels = data.split("private/test")
    right = (logits(model, images).cpu().argmax(1) == labels).double()
    counts = torch.bincount(labels).double()
    return (torch.bincount(labels, weights=right) / counts).numpy()


def test_images(data: Dataset) -> tuple[Tensor, Tensor]:
    """Private test images [I, k, C, H, W], k the fewest that a person has, and identities [I]."""
    images, labels = data.split("private/test")
    people = labels.unique()
    fewest = int(torch.bincount(labels).min())
    return torch.stack([images[labels == person][:fewest] for person in people]), people
