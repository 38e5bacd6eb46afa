"""An attacker who knows where a transfer-learnt victim was cut: only the tuned layers are inverted.

Freezing the front of a public network (TL-DMI, Ho et al., CVPR 2024) is defended on the ground that its
gradients say little to a search over images. Reviewers asked what an attacker does who knows the public
front and the cut. This one learns on public images to undo the front, and searches where the tuned layers
begin.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from mipriv import draws
from mipriv.attacks.inversion import Access, Progress, Reconstructions, Studied
from mipriv.attacks.search import rows as engine
from mipriv.attacks.search.identity import LOSSES
from mipriv.attacks.search.latents import at_least_one, ranked
from mipriv.attacks.search.rows import Rows
from mipriv.data.augment import mirrored
from mipriv.errors import InputError
from mipriv.models.decoders import ConvDecoder, Decoder
from mipriv.models.generators import Generator
from mipriv.models.split import PROBES, Split, split
from mipriv.plugin import one_of


class FeatureSpace(Generator):
    """Principal components of public features at a cut, and the decoder from there to images.

    Latents are whitened coordinates: features are `mean + z @ directions`, images what the decoder makes
    of them.

    Attributes:
        mean: [*feature_shape].
        directions: [d, *feature_shape], components times their standard deviations.
        variance: of public features, the mean over their entries.
    """

    mean: Tensor
    directions: Tensor
    variance: Tensor

    def __init__(
        self, decoder: Decoder, feature_shape: tuple[int, ...], components: int, limit: float
    ) -> None:
        super().__init__()
        self.latent_dim, self.limit, self.decoder = components, limit, decoder
        self.register_buffer("mean", torch.zeros(feature_shape))
        self.register_buffer("directions", torch.zeros(components, *feature_shape))
        self.register_buffer("variance", torch.ones(()))

    @property
    def like(self) -> Tensor:
        """See `Generator.like`."""
        return self.mean

    def features(self, z: Tensor) -> Tensor:
        """Features [n, *feature_shape] of latents [n, d]."""
        moved: Tensor = torch.tensordot(z, self.directions, 1)
        return self.mean + moved

    def forward(self, z: Tensor) -> Tensor:
        """See `Generator.forward`."""
        images: Tensor = self.decoder(self.features(z))
        return images

    def bound(self, z: Tensor) -> Tensor:
        """Coordinates clamped to `limit` standard deviations."""
        return z.clamp(-self.limit, self.limit)

    def fit(self, features: Tensor) -> None:
        """Take mean, components and variance of public features [m, *feature_shape]."""
        rows = features.double().flatten(1)
        mean = rows.mean(0)
        _, spread, axes = torch.linalg.svd(rows - mean, full_matrices=False)
        # The sign of a singular vector is the library's choice: fix it, so that bytes do not depend on it.
        axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
        directions = (spread / (len(rows) - 1) ** 0.5)[: self.latent_dim, None] * axes[: self.latent_dim]
        self.mean.copy_(mean.view_as(self.mean))
        self.directions.copy_(directions.view_as(self.directions))
        self.variance.copy_(rows.var(0).mean())


@dataclass(frozen=True)
class TLAware:
    """Minimise loss(server(h), y) + consistency_weight |h - client(decoder(h))|^2 over features h at the cut.

    `client` is the victim's front up to the cut, `server` the rest. The second term, the mean over entries
    in units of their public variance, keeps h where images live: features that no image has can please the
    server without showing anybody. The study, of `client` and public images alone, learns the decoder and
    the principal components of public features, in whose coordinates h is searched. Of a pool of random
    coordinates the rows begin at those that `server` believes most: so the study keeps nobody's features.

    Of a frozen front the study learns nothing that is private, and one study would serve every victim that
    shares it. An undefended victim's front has moved away from the public one; the attacker, who holds
    its weights, studies the victim's own, so that the same attack at the same cut is a fair baseline.
    The row's prior is used for nothing: the decoder takes its place.

    Attributes:
        cut: name of the last module in front of the cut, of TL-DMI the last frozen one.
        decoder: how the decoder is built and learnt.
        components: of public features, that are searched.
        limit: standard deviations within which a coordinate is believed.
        samples: random coordinates scored for every identity.
        candidates: of them that are optimised, an identity; each is one reconstruction.
        steps: of optimisation.
        lr: of Adam.
        loss: identity loss, a name in `mipriv.attacks.search.identity.LOSSES`.
        consistency_weight: of the second term.
        chunk: most rows in memory together.
    """

    cut: str
    decoder: ConvDecoder = field(default_factory=ConvDecoder)
    components: int = 150
    limit: float = 2.5
    samples: int = 2_000
    candidates: int = 5
    steps: int = 300
    lr: float = 0.05
    loss: str = "max_margin"
    consistency_weight: float = 1.0
    chunk: int = 100

    access: ClassVar[Access] = "weights"
    learns: ClassVar[tuple[str, ...]] = ("cut", "decoder", "components")

    def __post_init__(self) -> None:
        one_of(self.loss, LOSSES, "loss")
        at_least_one(self, "components", "candidates", "steps", "chunk")
        if self.candidates > self.samples:
            raise InputError(f"candidates: {self.candidates}; allowed: 1 to samples ({self.samples})")
        if self.limit <= 0:
            raise InputError(f"limit: {self.limit}; allowed: above 0")
        if self.consistency_weight < 0:
            raise InputError(f"consistency_weight: {self.consistency_weight}; allowed: 0 or more")

    def study(
        self,
        victim: nn.Module,
        prior: Generator,
        public: Tensor,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Studied:
        """See `PreparedInversion`; nothing behind the cut is evaluated."""
        parts = self._parts(victim, tuple(public.shape[1:]))  # type: ignore[arg-type]
        everyone = torch.cat([public, mirrored(public)])
        if len(everyone) <= self.components:
            allowed = f"fewer than the {len(everyone)} public images and mirror images"
            raise InputError(f"components: {self.components}; allowed: {allowed}")
        with engine.attacked(victim):
            decoder, log = self.decoder.fit(parts.client, public, seed=seed, progress=progress)
            space = FeatureSpace(decoder, parts.feature_shape, self.components, self.limit).to(public)
            space.fit(engine.in_chunks(parts.client, everyone, self.chunk))
        queries = PROBES + self.decoder.evaluations + len(everyone)
        return Studied(space.eval(), queries, log)

    def blank(
        self, victim: nn.Module, prior: Generator, num_classes: int, image_shape: tuple[int, int, int]
    ) -> FeatureSpace:
        """See `PreparedInversion`; also raises for a cut that the victim cannot be cut at."""
        parts = self._parts(victim, image_shape)
        decoder = self.decoder.build(parts.feature_shape, image_shape)
        return FeatureSpace(decoder, parts.feature_shape, self.components, self.limit).eval()

    def __call__(
        self,
        victim: nn.Module,
        prior: Generator,
        identities: Tensor,
        *,
        knowledge: FeatureSpace,
        seed: int,
        progress: Progress | None = None,
    ) -> Reconstructions:
        """See `PreparedInversion`; latents are coordinates: `knowledge(latents)` are the images.

        Images are ordered by the confidence of the whole victim in them and their mirror images.
        """
        with engine.attacked(victim, knowledge):
            parts = self._parts(victim, knowledge.decoder.image_shape)
            start = self._begin(parts.server, knowledge, identities, seed)
            labels = Rows.of(identities, self.candidates, seed).identity.to(start.device)
            z = engine.descend(
                start,
                lambda z, chunk, step: self.objective(parts, knowledge, z, labels[chunk.to(labels.device)]),
                lambda z: torch.optim.Adam([z], self.lr),
                steps=self.steps,
                chunk=self.chunk,
                bound=knowledge.bound,
                progress=progress,
            )
            steps = self.steps * len(z)
            found = ranked(knowledge, z, start, labels, _belief(victim), self.candidates, self.chunk, steps)
        queries = PROBES + self.samples + steps + 2 * len(z)
        return Reconstructions(found.images, found.start, found.latents, found.scores, queries)

    def objective(self, parts: Split, space: FeatureSpace, z: Tensor, labels: Tensor) -> Tensor:
        """The loss of each row: latents [c, d] and labels [c] to [c]."""
        h = space.features(z)
        identity = LOSSES[self.loss](parts.server(h), labels)
        if not self.consistency_weight:
            return identity
        gap: Tensor = (h - parts.client(space.decoder(h))).square().flatten(1).mean(1)
        total: Tensor = identity + self.consistency_weight * gap / space.variance
        return total

    def _parts(self, victim: nn.Module, image_shape: tuple[int, int, int]) -> Split:
        parts = split(victim, self.cut, image_shape)
        if not any(True for _ in parts.server.parameters()):
            raise InputError(
                f"cut: {self.cut!r} leaves nothing to invert; allowed: a module before the last layer"
            )
        return parts

    def _begin(self, server: nn.Module, space: FeatureSpace, identities: Tensor, seed: int) -> Tensor:
        """For every identity the coordinates of the pool that the server believes most: [r, d]."""
        pool = space.begin(draws.normal((self.samples, self.components), seed, "pool").to(space.like))
        belief = engine.in_chunks(lambda z: server(space.features(z)).softmax(1), pool, self.chunk)
        best = engine.keep_best(belief.T[identities.to(pool.device)], self.candidates)
        return pool[best.flatten()]


def _belief(victim: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """Confidence in the target, the mean over an image and its mirror image: one a row."""

    def belief(images: Tensor, labels: Tensor) -> Tensor:
        mean: Tensor = (victim(images).softmax(1) + victim(mirrored(images)).softmax(1)) / 2
        return mean.gather(1, labels[:, None]).squeeze(1)

    return belief
