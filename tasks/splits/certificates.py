"""Where the law of the images is known, bounds are certificates: no attack may do better.

There, and for a client that is an affine map, the least mean squared error that any attack could reach
is known too, and how far the bound lies below it.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mipriv import stats
from mipriv.analysis import error_bound
from mipriv.data.dataset import Dataset
from mipriv.data.law import GaussianLaw
from mipriv.stats import Figure
from tasks.leakage import MSE, Line
from tasks.party import Party
from tasks.splits.clients import Client
from tasks.splits.recovered import Recovered

POPULATION, GEOMETRIC, LEAST = (
    "population bound",
    "geometric mean of posterior eigenvalues",
    "least possible mse",
)
BEST = "best attack"
PROBES = 8


class Violation(Exception):
    """An attack did better than its bound allows: one of the two is wrong."""


def lines(
    seen: Mapping[str, Client], found: Mapping[str, Recovered], sets: Mapping[str, Dataset]
) -> list[Line]:
    """The best attack on every client; beside it, where the client is affine, what is possible at all.

    Raises:
        Violation: an attack's error is below the bound on it.
    """
    told: list[Line] = []
    for name, client in seen.items():
        own = [one for one in found.values() if one.row.of == "split" and one.victim == name]
        if own:
            best = min(own, key=lambda one: one.validation_error)
            told.append(Line(name, "certificate", BEST, "", best.name, stats.mean(best.people[MSE])))
        law = sets[client.data].law
        if law is not None and client.limits:
            told += _possible(client, sets[client.data], law)
        _hold(client, own)
    return told


def _hold(client: Client, attacks: Sequence[Recovered]) -> None:
    for one in attacks:
        bound, reached = client.bound(one.row.repeats), float(one.people[MSE].mean())
        if bound is not None and reached < bound:
            raise Violation(
                f"{one.name}: mean squared error {reached:.6g} is below its bound {bound:.6g}: a bug"
            )


def _possible(client: Client, data: Dataset, law: GaussianLaw) -> Iterator[Line]:
    """Figures of an affine client, averaged over training seeds; none of another."""
    rows = []
    for folder in client.folders:
        party = Party.load(folder, torch.device("cpu"))
        encoder = affine(party.model.client, data.image_shape)
        if encoder is None:
            return
        sigma = party.defense.sigma
        eigenvalues = torch.linalg.eigvalsh(law.posterior(encoder, sigma))
        bound = error_bound.mse_bound(law.entropy, law.information(encoder, sigma), law.dim)
        rows.append((float(bound), float(eigenvalues.log().mean().exp()), law.mmse(encoder, sigma)))
    for name, values in zip((POPULATION, GEOMETRIC, LEAST), zip(*rows, strict=True), strict=True):
        figure = Figure(
            float(np.mean(values)),
            min(values),
            max(values),
            len(values),
            len(values),
            "closed form, range over seeds",
        )
        yield Line(client.name, "certificate", name, "", client.data, figure)


@torch.no_grad()
def affine(client: nn.Module, shape: Sequence[int]) -> Tensor | None:
    """W, float64 [D, d], of a client that computes W x + b, found by asking it; None of any other.

    The client is in double precision afterwards.
    """
    client = client.double()
    random = torch.Generator().manual_seed(0)
    probes = torch.randn(PROBES, *shape, generator=random, dtype=torch.float64)
    zero = client(torch.zeros(1, *shape, dtype=torch.float64)).flatten(1)
    images = client(probes).flatten(1) - zero
    # Superposition: what a sum of images gives is the sum of what they give.
    whole = client(probes.sum(0, keepdim=True)).flatten(1) - zero
    if not torch.allclose(whole[0], images.sum(0), rtol=1e-6, atol=1e-9 * float(images.abs().max())):
        return None
    pixels = int(np.prod(shape))
    unit: Tensor = torch.eye(pixels, dtype=torch.float64).view(pixels, *shape)
    found: Tensor = (client(unit).flatten(1) - zero).T
    return found
