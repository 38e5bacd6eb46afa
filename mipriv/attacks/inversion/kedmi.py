"""Knowledge-Enriched Distributional Model Inversion (Chen et al., ICCV 2021)."""

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from mipriv.attacks.inversion import Access, Progress, Reconstructions, Studied
from mipriv.attacks.search import rows as engine
from mipriv.attacks.search import target_gan
from mipriv.attacks.search.identity import cross_entropy
from mipriv.attacks.search.latents import DistributionSearch
from mipriv.attacks.search.target_gan import TargetGAN, TargetRecipe
from mipriv.models.generators import Generator


@dataclass(frozen=True)
class KEDMI:
    """Learn a GAN of the victim's classes, then recover a distribution of latents an identity.

    Study: `mipriv.attacks.search.target_gan`, anew for every victim. Search: of the mean and deviation of a
    Gaussian in the latents of that GAN, [sp(lse D) - lse D] * realism_weight + CE * identity_weight.

    Defaults are the published constants, with the start of two released codes (log variance 1; a third begins
    with 0) and no clamping of latents (two released codes clamp them to [-1, 1], one does not).

    Attributes:
        draws: reconstructions an identity.
        steps: of optimisation.
        lr: of Adam.
        identity_weight: of the cross-entropy.
        realism_weight: of the discriminator's belief.
        log_variance: of the distribution at the start.
        clip: latents are clamped to [-clip, clip] before the generator sees them; null: not at all.
        chunk: most rows in memory together.
        gan: how the GAN of the victim is learnt.
    """

    draws: int = 5
    steps: int = 2_400
    lr: float = 0.02
    identity_weight: float = 100.0
    realism_weight: float = 1.0
    log_variance: float = 1.0
    clip: float | None = None
    chunk: int = 300
    gan: TargetRecipe = field(default_factory=TargetRecipe)

    access: ClassVar[Access] = "weights"
    learns: ClassVar[tuple[str, ...]] = ("gan",)

    def __post_init__(self) -> None:
        self._search()

    def study(
        self,
        victim: nn.Module,
        prior: Generator,
        public: Tensor,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Studied:
        """See `PreparedInversion`; the victim sees every public image once."""
        target_gan.admit(prior)
        with engine.attacked(victim):
            answers = engine.in_chunks(victim, public, self.gan.batch_size).softmax(1)
        gan, log = target_gan.learn(prior, public, answers, self.gan, seed=seed, progress=progress)
        return Studied(gan, len(public), log)

    def blank(
        self,
        victim: nn.Module,
        prior: Generator,
        num_classes: int,
        image_shape: tuple[int, int, int],
    ) -> TargetGAN:
        """See `PreparedInversion`."""
        return TargetGAN(prior, num_classes, self.gan).eval()

    def __call__(
        self,
        victim: nn.Module,
        prior: Generator,
        identities: Tensor,
        *,
        knowledge: TargetGAN,
        seed: int,
        progress: Progress | None = None,
    ) -> Reconstructions:
        """See `PreparedInversion`; the GAN of the study is searched in place of the prior."""

        def objective(z: Tensor, images: Tensor, labels: Tensor) -> Tensor:
            identity = cross_entropy(victim(images), labels)
            return self.identity_weight * identity - self.realism_weight * knowledge.realism(z, images)

        def belief(images: Tensor, labels: Tensor) -> Tensor:
            return -cross_entropy(victim(images), labels)

        with engine.attacked(victim, knowledge):
            found = self._search()(knowledge, identities, objective, belief, seed=seed, progress=progress)
        queries = found.steps + found.scores.numel()
        return Reconstructions(found.images, found.start, found.latents, found.scores, queries)

    def _search(self) -> DistributionSearch:
        return DistributionSearch(self.draws, self.steps, self.lr, self.log_variance, self.clip, self.chunk)
