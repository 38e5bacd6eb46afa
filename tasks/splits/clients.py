"""What every split victim keeps, costs and may tell: accuracy, its client's bill, a bound on information."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mipriv import stats
from mipriv.analysis import cells, error_bound
from mipriv.analysis.entropy_bound import Covariance
from mipriv.analysis.entropy_limit import Reference, UpperLimit, held_out
from mipriv.attacks.search.rows import in_chunks
from mipriv.data.dataset import UNKNOWN, Dataset
from mipriv.device import place
from mipriv.models import checkpoint
from mipriv.models.fold import folded
from mipriv.stats import Figure
from mipriv.training import released
from tasks.engine import runtime
from tasks.evaluation.referee import CHUNK, Values
from tasks.leakage import FACTOR, INFORMATION, MSE, NATURAL, Line
from tasks.party import Party
from tasks.people import by_person
from tasks.split import Splits


class Settings(Protocol):
    """How the bound is computed; see `EvaluateSplit`."""

    @property
    def cells(self) -> int:
        """A class."""
        ...

    @property
    def covariance(self) -> Covariance:
        """Of a cell."""
        ...

    @property
    def level(self) -> float:
        """Of the one-sided limit."""
        ...


@dataclass(frozen=True)
class Client:
    """One arm of a row of `split`.

    Attributes:
        name: row and arm.
        data: a row of `prepare`.
        folders: of each training seed.
        seeds: training seeds.
        natural: accuracy [S, I] on test images.
        limits: of I(x; z) in nats a training seed; none without noise.
        dim: d, pixels of an image.
        entropy: h(x | identity) in nats, where the source's law is known.
        cost: of the client for one image, by name.
    """

    name: str
    data: str
    folders: list[Path]
    seeds: list[int]
    natural: Values
    limits: list[UpperLimit]
    dim: int
    entropy: float | None
    cost: dict[str, float]

    @property
    def upper(self) -> float | None:
        """The largest upper limit over training seeds."""
        return max((limit.upper for limit in self.limits), default=None)

    def bound(self, repeats: int = 1) -> float | None:
        """Least mean squared error of any attack that is shown `repeats` releases; where it is known."""
        if self.upper is None or self.entropy is None:
            return None
        return error_bound.mse_bound(self.entropy, error_bound.repeated(self.upper, repeats), self.dim)

    def lines(self) -> list[Line]:
        """Accuracy, cost, and the bound where there is one."""
        count = self.natural.shape[1]
        found = [Line(self.name, "split victim", NATURAL, "", self.data, stats.mean(self.natural))]
        for name, value in self.cost.items():
            exact = Figure(value, value, value, count, len(self.seeds), "counted")
            found.append(Line(self.name, "client", name, "", self.data, exact))
        if self.upper is None:
            return found
        nats = float(np.mean([limit.nats for limit in self.limits]))
        n, seeds, method = self.limits[0].n, len(self.seeds), f"{self.limits[0].method}, largest over seeds"
        found.append(
            Line(
                self.name,
                "bound",
                INFORMATION,
                "",
                self.data,
                Figure(nats, 0.0, self.upper, n, seeds, method),
            )
        )
        factors = [error_bound.factor(value, self.dim) for value in (nats, self.upper)]
        found.append(
            Line(
                self.name,
                "bound",
                FACTOR,
                "",
                self.data,
                Figure(factors[0], factors[1], 1.0, n, seeds, method),
            )
        )
        if self.entropy is not None:
            least = self.bound()
            middle = error_bound.mse_bound(self.entropy, nats, self.dim)
            assert least is not None
            found.append(
                Line(self.name, "bound", MSE, "", self.data, Figure(middle, least, middle, n, seeds, method))
            )
        return found


def look(
    folder: Path,
    victims: Splits,
    sets: Mapping[str, Dataset],
    wanted: Settings,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> dict[str, Client]:
    """Every arm of every row, by name."""
    found = {}
    for done, (row, own) in enumerate(victims.rows.items(), 1):
        data = sets[own.data]
        law, dim = data.law, int(np.prod(data.image_shape))
        cells_of = {arm: [folder / row / arm / f"seed-{seed}" for seed in own.seeds] for arm in own.arms}
        # Not inside the threads: what traces a network on loading does so for the whole process.
        parties = [
            (_party(path, data, device), seed)
            for folders in cells_of.values()
            for path, seed in zip(folders, own.seeds, strict=True)
        ]
        measured = iter(runtime.side_by_side(partial(_measure, data, own.task, wanted, device), parties))
        for arm, folders in cells_of.items():
            natural, limits = zip(*itertools.islice(measured, len(folders)), strict=True)
            name = f"{row}/{arm}"
            found[name] = Client(
                name,
                own.data,
                folders,
                own.seeds,
                np.stack(natural),
                [limit for limit in limits if limit is not None],
                dim,
                None if law is None else law.entropy,
                {key: float(value) for key, value in _facts(folders[0])["client"].items()},
            )
        progress(done, len(victims.rows))
    return found


def _party(folder: Path, data: Dataset, device: torch.device) -> Party:
    """A victim whose client has its normalisation folded: most of the time here is that of its features."""
    party = Party.load(folder, device)
    party.model.client = place(folded(party.model.client, data.image_shape), device)
    return party


def _measure(
    data: Dataset, task: str | None, wanted: Settings, device: torch.device, victim: tuple[Party, int]
) -> tuple[Values, UpperLimit | None]:
    """Accuracy and, where there is noise, the limit on information of a victim and its seed."""
    party, seed = victim
    test = _features(party, data.split("private/test")[0], device)
    limit = _limit(party, test, data, wanted, device) if party.defense.sigma > 0 else None
    return _accuracy(party, test, data, task, seed), limit


def _accuracy(party: Party, features: Tensor, data: Dataset, task: str | None, seed: int) -> Values:
    """Share of each person's test images of which the task is told rightly, given their features."""
    model, labels = party.model, data.split("private/test")[1]
    classes = data.task("private/test", task)
    known = classes != UNKNOWN
    with released(model, party.defense, seed, "test"):
        scores = in_chunks(lambda z: model.server(model.release(z)), features, CHUNK)
    return by_person((scores.cpu().argmax(1) == classes)[known], labels[known])


def _limit(party: Party, test: Tensor, data: Dataset, wanted: Settings, device: torch.device) -> UpperLimit:
    """I(x; z) from above: cells and a reference of training features, held against those of test images."""
    images, labels = data.split("private/train")
    features = _rows(_features(party, images, device))
    own = cells.fit(features, labels, data.num_classes("private"), wanted.cells, 0, "cells of the bound")
    count = own.counts.numel()
    variance = party.defense.sigma**2
    reference = Reference.fit(features, labels * wanted.cells + own.assignment, count, wanted.covariance)
    fresh, labels = _rows(test), data.split("private/test")[1]
    nearest = cells.nearest(fresh, labels, own.centroids, own.counts > 0)[0]
    return held_out(fresh, labels * wanted.cells + nearest, reference, variance, wanted.level)


@torch.no_grad()
def _features(party: Party, images: Tensor, device: torch.device) -> Tensor:
    return in_chunks(lambda x: party.model.client(x.to(device)), images, CHUNK)


def _rows(features: Tensor) -> Tensor:
    """As rows in double precision, of which moments are taken."""
    return features.flatten(1).double().cpu()


def _facts(folder: Path) -> dict[str, Any]:
    return checkpoint.read_card(folder).facts
