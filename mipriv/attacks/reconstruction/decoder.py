"""The learnt inverse: a decoder from what a client sends to images (CEM's primary attack)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mipriv.attacks.reconstruction import Access, Client, Knowledge, Progress, Recovered
from mipriv.attacks.search.inverse import InverseRecipe
from mipriv.attacks.search.releases import Releases


@dataclass(frozen=True)
class Decoder(InverseRecipe):
    """Minimise |decoder(z) - x|^2 over the attacker's images x and fresh releases z of them.

    As in CEM (Xia et al., CVPR 2025); see `InverseRecipe` for the knobs. Repeated releases of a target are
    averaged before decoding, and the decoder learns from averages of as many.
    """

    access: ClassVar[Access] = "queries"

    def __call__(
        self,
        client: Client,
        known: Knowledge,
        observed: Tensor,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Recovered:
        """See `Reconstruction`."""
        asked = Releases(client, known, observed, seed)
        inverse, error, log = self.learn(asked, known, seed=seed, progress=progress)
        return Recovered(inverse.decode(asked.targets), error, asked.queries, log)
