"""Random numbers by key: a row's draws depend on what the row is, never on its neighbours.

An inversion row is (seed, identity, restart). Drawing from one shared generator would tie a
row's noise to its place in the batch; here each key opens its own counter-based stream
(Philox, Salmon et al. 2011), so a batch of one draws what the same row draws among many.
"""

import contextlib
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

Key = int | str


def stream(*key: Key) -> np.random.Generator:
    """A generator of its own for `key`, any mix of non-negative integers and words."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    # SeedSequence pads with zeros: without its length, (1, 2) and (1, 2, 0) would be one key.
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([len(words), *words])))


def uniform(shape: Sequence[int], *key: Key) -> Tensor:
    """Float64 draws from U[0, 1) of the given shape for one key."""
    return torch.from_numpy(stream(*key).random(tuple(shape)))


def normal(shape: Sequence[int], *key: Key) -> Tensor:
    """Float64 draws from N(0, 1) of the given shape for one key."""
    return torch.from_numpy(stream(*key).standard_normal(tuple(shape)))


def generator(*key: Key) -> torch.Generator:
    """A CPU torch generator seeded from a key, for code that wants one to pass along."""
    made = torch.Generator()
    made.manual_seed(int(stream(*key).integers(2**62)))
    return made


@contextlib.contextmanager
def seeded(*key: Key) -> Iterator[None]:
    """Seed torch's global generators inside the block (weight initialisation, dropout); restore after."""
    with torch.random.fork_rng():
        torch.manual_seed(int(stream(*key).integers(2**62)))
        yield
