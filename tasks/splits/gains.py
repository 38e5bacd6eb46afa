"""What CEM gains over its host, and over plain noise at the same accuracy."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mipriv import stats
from mipriv.analysis.matched import Point, excess
from mipriv.stats import Figure
from tasks import reconstruct, split
from tasks.evaluation.referee import Values
from tasks.leakage import MSE, NATURAL, Line
from tasks.splits.clients import Client
from tasks.splits.recovered import Recovered

PLAIN = "plain"  # the arm that others of its row are compared with
NOISE = "plain noise at equal accuracy"
HOSTS = "mean over hosts"


def lines(
    victims: split.Splits,
    attacks: reconstruct.Reconstruct,
    seen: Mapping[str, Client],
    found: Mapping[str, Recovered],
    noise: Sequence[str],
) -> list[Line]:
    """Differences and relative gains of every arm against the plain one of its row and against plain noise.

    Args:
        noise: rows of `split` whose arms without CEM are plain noise of several strengths.
    """
    told = []
    relative: dict[tuple[str, str], list[Figure]] = {}
    for one, plain in _pairs(attacks, found):
        gain = stats.gain(one.people[MSE], plain.people[MSE])
        told.append(Line(one.name, "gain", MSE, "", plain.name, gain))
        accuracy = stats.paired_difference(_of(seen[one.victim], one.row), _of(seen[plain.victim], one.row))
        told.append(Line(one.name, "difference", NATURAL, "", plain.name, accuracy))
        if victims.rows[one.row.victim].arms[one.arm].cem is not None:
            relative.setdefault((one.row.attack, place(victims, one.row)), []).append(gain)
    for (attack, where), gains in relative.items():
        points = [gain.point for gain in gains]
        low, high, method = min(points), max(points), "range over hosts"
        if len(gains) == 1:
            low, high, method = gains[0].low, gains[0].high, gains[0].method
        value = Figure(float(np.mean(points)), low, high, len(points), gains[0].seeds, method)
        told.append(Line(f"{attack}, {where}", "gain", MSE, "", HOSTS, value))
    return told + list(_against_noise(victims, attacks, seen, found, noise))


def _pairs(
    attacks: reconstruct.Reconstruct, found: Mapping[str, Recovered]
) -> Iterator[tuple[Recovered, Recovered]]:
    """Every attacked arm beside the plain arm of the same row, under the same attack."""
    for name in attacks.rows:
        plain = found.get(f"{name}/{PLAIN}")
        for one in found.values():
            if plain is not None and one.row is plain.row and one is not plain:
                yield one, plain


def _of(client: Client, row: reconstruct.Row) -> Values:
    """Natural accuracy [S, I] of the training seeds that a row attacks."""
    return client.natural[[client.seeds.index(seed) for seed in row.seeds]]


def place(victims: split.Splits, row: reconstruct.Row) -> str:
    """Where figures may be compared: data, architecture, whose images the attacker has."""
    victim = victims.rows[row.victim]
    return f"{victim.data}, {victims.networks[victim.network].arch}, {row.knowledge}"


def _against_noise(
    victims: split.Splits,
    attacks: reconstruct.Reconstruct,
    seen: Mapping[str, Client],
    found: Mapping[str, Recovered],
    noise: Sequence[str],
) -> Iterator[Line]:
    """How much larger an arm's error is than that of plain noise which leaves the same accuracy.

    Left out where plain noise does not reach that accuracy.
    """
    for one in found.values():
        if one.row.of != "split":
            continue
        curve = [
            other
            for other in found.values()
            if other.row.victim in noise
            and victims.rows[other.row.victim].arms[other.arm].cem is None
            and _alike(attacks, other.row, one.row)
            and place(victims, other.row) == place(victims, one.row)
        ]
        if len(curve) < 2 or one in curve:
            continue
        own = Point(_of(seen[one.victim], one.row), one.people[MSE])
        value = excess(own, [Point(_of(seen[c.victim], c.row), c.people[MSE]) for c in curve])
        if value is not None:
            yield Line(one.name, "gain", MSE, "", NOISE, value)


def _alike(attacks: reconstruct.Reconstruct, one: reconstruct.Row, two: reconstruct.Row) -> bool:
    same = (one.attack, one.repeats, one.seeds, one.targets) == (
        two.attack,
        two.repeats,
        two.seeds,
        two.targets,
    )
    return same and attacks.knobs(one) == attacks.knobs(two)
