"""How far all that an attack made lies from the private images: KID and FID with intervals over identities.

Both take every sample, not the successful ones alone, which would flatter an attack that rarely succeeds.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mipriv import stats
from mipriv.errors import InputError
from mipriv.metrics.distribution import frechet_distance, moments, polynomial_kernel

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

A_DIMENSION = 4
FRECHET_RESAMPLES = 200
GRAM_ROWS = 1_024
METHOD = "cluster bootstrap"


def kid(
    fake: Array, fake_identity: Labels, real: Array, real_identity: Labels, seed: int = 0
) -> stats.Figure:
    """Unbiased squared MMD (Gretton et al., JMLR 2012, eq. 3), KID's kernel (Binkowski et al., ICLR 2018).

    The means of the kernel over pairs of fakes and over pairs of reals, an image with itself left out, less
    twice its mean over pairs of one of each. Unbiased for images drawn independently; but images of one
    person are alike. Let w be the kernel's mean within people less that between them. Where the two sets
    show different people, each side adds about w / identities; where they show the same people in equal
    shares, that cancels, and about -w / n - w / m is left.

    The interval resamples identities, the fakes and reals of one together, and takes percentiles. A person
    drawn twice stands for two people: each copy keeps the pairs within it, and pairs between two copies of
    one person, an image with itself among them, are left out of all three means. Replicates so lie around
    the point, which those pairs would lift them above. Replicates in which a mean has no pair left (possible
    with a handful of identities) are dropped. Near zero the interval is conservative, as the bootstrap of a
    degenerate U-statistic is.

    Args:
        fake: [n, d] features of what was made.
        fake_identity: [n], whom each is to show.
        real: [m, d] features.
        real_identity: [m].
        seed: of the resampling.

    Returns:
        The figure; its n is the identities of the side that has fewer.

    Raises:
        InputError: other shapes, features not finite, or a side with fewer than 2 identities.
    """
    fake, real, (f, r), people = _checked("kid", fake, fake_identity, real, real_identity)
    terms = list(_terms(fake, f, real, r, people))
    random = np.random.Generator(np.random.PCG64(seed))
    drawn = stats.counts(people, stats.RESAMPLES, random).astype(np.float64)
    replicates = _mmd(terms, drawn)
    low, high = stats.interval(replicates[np.isfinite(replicates)])
    point = float(_mmd(terms, np.ones((1, people)))[0])
    return stats.Figure(point, low, high, _identities(f, r), 1, METHOD)


def frechet(
    fake: Array, fake_identity: Labels, real: Array, real_identity: Labels, seed: int = 0
) -> stats.Figure:
    """Frechet distance of the Gaussians fitted to two sets of features (Heusel et al., NeurIPS 2017, eq. 6).

    Biased upwards, the more so the fewer samples a dimension. Two draws of one standard Gaussian, n on each
    side, come out about d^2 / 2n apart: 0.13 d (128 dimensions) to 0.17 d (16) at the least allowed, n = 4 d.
    Where one is shifted by 1 and scaled by 1.5 in every dimension, 0.19 d to 0.26 d comes on top of the true
    1.25 d. People whose images are alike count for fewer samples yet. Compare figures of equal n and d only,
    or use `kid`.

    The interval resamples identities as `kid` does. Each replicate repeats the bias on top of that of the
    point, so that the replicates' spread is laid around the point: the interval holds chance, not the bias.

    Args:
        fake: [n, d] features of what was made.
        fake_identity: [n], whom each is to show.
        real: [m, d] features.
        real_identity: [m].
        seed: of the resampling.

    Returns:
        The figure; its n is the identities of the side that has fewer.

    Raises:
        InputError: as `kid`, or fewer than 4 samples a dimension on a side.
    """
    fake, real, (f, r), people = _checked("frechet", fake, fake_identity, real, real_identity)
    for side in (fake, real):
        if len(side) < A_DIMENSION * side.shape[1]:
            found = f"{len(side)} samples of {side.shape[1]} dimensions"
            least = f"at least {A_DIMENSION * side.shape[1]}, {A_DIMENSION} a dimension"
            raise InputError(f"frechet: {found}; allowed: {least}")
    random = np.random.Generator(np.random.PCG64(seed))
    drawn = stats.counts(people, FRECHET_RESAMPLES, random)

    def distance(times: NDArray[np.int64]) -> float:
        return frechet_distance(*moments(fake, times[f]), *moments(real, times[r]))

    point = distance(np.ones(people, dtype=np.int64))
    replicates = np.array([distance(times) for times in drawn if min(times[f].sum(), times[r].sum()) > 1])
    low, high = stats.interval(replicates - replicates.mean() + point)
    return stats.Figure(point, max(0.0, low), high, _identities(f, r), 1, f"{METHOD}, centred")


def _terms(fake: Array, f: Labels, real: Array, r: Labels, people: int) -> Iterator[tuple[Array, Array, int]]:
    """For each of the three means: kernel sums and pairs by two identities, [I, I] each, and its factor."""
    for features, identity in ((fake, f), (real, r)):
        sums, pairs = _block_sums(features, identity, features, identity, people)
        alone = (np.square(features).sum(1) / features.shape[1] + 1) ** 3
        sums -= np.diag(np.bincount(identity, alone, people))
        pairs -= np.diag(np.bincount(identity, minlength=people))
        yield sums, pairs, 1
    yield *_block_sums(fake, f, real, r, people), -2


def _block_sums(
    a: Array, a_identity: Labels, b: Array, b_identity: Labels, people: int
) -> tuple[Array, Array]:
    """Sums of the kernel and numbers of pairs by two identities, [I, I], by slices of the Gram matrix."""
    order = np.argsort(b_identity, kind="stable")
    present, starts = np.unique(b_identity[order], return_index=True)
    sums = np.zeros((people, people))
    for start in range(0, len(a), GRAM_ROWS):
        rows = slice(start, start + GRAM_ROWS)
        by_identity = np.add.reduceat(polynomial_kernel(a[rows], b[order]), starts, axis=1)
        held = np.zeros((len(by_identity), people))
        held[:, present] = by_identity
        np.add.at(sums, a_identity[rows], held)
    sizes = (np.bincount(identity, minlength=people) for identity in (a_identity, b_identity))
    return sums, np.outer(*sizes).astype(np.float64)


def _mmd(terms: list[tuple[Array, Array, int]], drawn: Array) -> Array:
    """Squared MMD for identities drawn `drawn` [B, I] times: [B], not a number where a mean has no pair."""
    total = np.zeros(len(drawn))
    for sums, pairs, factor in terms:
        held = _over_copies(pairs, drawn)
        mean = np.full(len(drawn), np.nan)
        np.divide(_over_copies(sums, drawn), held, out=mean, where=held > 0)
        total += factor * mean
    return total


def _over_copies(blocks: Array, drawn: Array) -> Array:
    """Blocks [I, I] summed over pairs of copies, those of two copies of one identity left out: [B]."""
    own = np.diag(blocks)
    between = blocks - np.diag(own)
    return np.asarray(((drawn @ between) * drawn).sum(1) + drawn @ own)


def _identities(f: Labels, r: Labels) -> int:
    return min(len(np.unique(f)), len(np.unique(r)))


def _checked(
    what: str, fake: Array, fake_identity: Labels, real: Array, real_identity: Labels
) -> tuple[Array, Array, tuple[Labels, Labels], int]:
    """Features as float64, identities counted from 0 over both sides, and how many there are."""
    fake, real = np.asarray(fake, dtype=np.float64), np.asarray(real, dtype=np.float64)
    labels = np.asarray(fake_identity), np.asarray(real_identity)
    if fake.ndim != 2 or real.ndim != 2 or fake.shape[1] != real.shape[1]:
        raise InputError(f"{what}: features {fake.shape} and {real.shape}; allowed: [n, d] and [m, d]")
    for side, identity in zip((fake, real), labels, strict=True):
        if identity.shape != side.shape[:1] or len(np.unique(identity)) < 2:
            found = f"{len(side)} samples with identities of shape {identity.shape}"
            raise InputError(f"{what}: {found}; allowed: an identity a sample, at least 2 identities")
        if not np.isfinite(side).all():
            raise InputError(f"{what}: a feature is not finite; allowed: finite numbers")
    people, index = np.unique(np.concatenate(labels), return_inverse=True)
    return fake, real, (index[: len(fake)], index[len(fake) :]), len(people)
