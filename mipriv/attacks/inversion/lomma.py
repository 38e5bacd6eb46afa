"""LOMMA (Nguyen et al., CVPR 2023): an identity loss of several networks, for another attack's search."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from mipriv.attacks.inversion import Access, Progress, Reconstructions, Studied
from mipriv.attacks.search import rows as engine
from mipriv.attacks.search import students, target_gan
from mipriv.attacks.search.identity import cross_entropy, logit
from mipriv.attacks.search.latents import DistributionSearch, PointSearch
from mipriv.attacks.search.students import Distillation, Surrogates
from mipriv.attacks.search.target_gan import TargetGAN, TargetRecipe
from mipriv.models.classifiers import Classifier
from mipriv.models.generators import Generator
from mipriv.plugin import one_of


class Learnt(nn.Module):
    """What LOMMA knows of a victim: its surrogates and, for KEDMI's search, its GAN."""

    def __init__(self, surrogates: Surrogates, gan: TargetGAN | None) -> None:
        super().__init__()
        self.surrogates, self.gan = surrogates, gan


@dataclass(frozen=True)
class LOMMA:
    """Logit loss and a target for features, averaged over the victim and students of it.

    A row's loss is identity_weight * mean over models of [-f_y + feature_weight * mean (h(x) - h_reg)^2]
    - realism_weight * realism, minimised by GMI's search in the prior or by KEDMI's in a GAN of the victim.

    Defaults are the published constants. In the paper h_reg is a draw; the released code replaces the draw by
    its mean, and the published figures come of that.

    Attributes:
        host: whose search: `gmi`, or `kedmi`.
        keep: reconstructions an identity: restarts (gmi) or draws of its distribution (kedmi).
        steps: of optimisation.
        lr: of Nesterov's method (gmi) or of Adam (kedmi).
        momentum: of Nesterov's method (gmi).
        log_variance: of the distribution at the start (kedmi).
        clip: latents are clamped to [-clip, clip].
        identity_weight: of the mean over models.
        feature_weight: of the squared distance of features to h_reg, a mean over their entries.
        realism_weight: of the prior's realism, or of the GAN's.
        regulariser: h_reg is the `mean` of public features, or a `sample` around it, once an identity.
        chunk: most rows in memory together in the search.
        distillation: who the students are, and how they learn.
        gan: how the GAN of the victim is learnt (kedmi).
    """

    host: str = "gmi"
    keep: int = 5
    steps: int = 2_400
    lr: float = 0.02
    momentum: float = 0.9
    log_variance: float = 1.0
    clip: float = 1.0
    identity_weight: float = 100.0
    feature_weight: float = 1.0
    realism_weight: float = 1.0
    regulariser: str = "mean"
    chunk: int = 300
    distillation: Distillation = field(default_factory=Distillation)
    gan: TargetRecipe = field(default_factory=TargetRecipe)

    access: ClassVar[Access] = "weights"
    learns: ClassVar[tuple[str, ...]] = ("host", "distillation", "gan")

    def __post_init__(self) -> None:
        one_of(self.host, ("gmi", "kedmi"), "host")
        one_of(self.regulariser, ("mean", "sample"), "regulariser")
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
        embedder = students.admit(victim)
        if self.host == "kedmi":
            target_gan.admit(prior)
        taught = len(self.distillation.students) * self.distillation.epochs
        total = taught + (self.gan.steps if self.host == "kedmi" else 0)

        def report(done: int) -> None:
            if progress:
                progress(done, total)

        surrogates, logits, log = students.learn(
            embedder, public, self.distillation, seed=seed, progress=lambda done, _: report(done)
        )
        gan = None
        if self.host == "kedmi":
            gan, more = target_gan.learn(
                prior,
                public,
                logits.softmax(1),
                self.gan,
                seed=seed,
                progress=lambda done, _: report(taught + done),
            )
            log += more
        return Studied(Learnt(surrogates, gan).eval(), len(public), log)

    def blank(
        self,
        victim: nn.Module,
        prior: Generator,
        num_classes: int,
        image_shape: tuple[int, int, int],
    ) -> Learnt:
        """See `PreparedInversion`."""
        surrogates = students.blank(students.admit(victim), self.distillation, num_classes, image_shape)
        gan = TargetGAN(prior, num_classes, self.gan) if self.host == "kedmi" else None
        return Learnt(surrogates, gan).eval()

    def __call__(
        self,
        victim: nn.Module,
        prior: Generator,
        identities: Tensor,
        *,
        knowledge: Learnt,
        seed: int,
        progress: Progress | None = None,
    ) -> Reconstructions:
        """See `PreparedInversion`; images are ordered by the victim's cross-entropy."""
        company = knowledge.surrogates.company(students.admit(victim))
        targets = knowledge.surrogates.targets(identities, seed, self.regulariser == "sample")
        space = knowledge.gan or prior

        def objective(z: Tensor, images: Tensor, labels: Tensor) -> Tensor:
            identity = self.identity_loss(company, [table[labels] for table in targets], images, labels)
            return self.identity_weight * identity - self.realism_weight * space.realism(z, images)

        def belief(images: Tensor, labels: Tensor) -> Tensor:
            return -cross_entropy(victim(images), labels)

        with engine.attacked(victim, space, knowledge):
            found = self._search()(space, identities, objective, belief, seed=seed, progress=progress)
        queries = found.steps + found.scores.numel()
        return Reconstructions(found.images, found.start, found.latents, found.scores, queries)

    def identity_loss(
        self, company: list[Classifier], targets: list[Tensor], images: Tensor, labels: Tensor
    ) -> Tensor:
        """Mean over models of -f_y + feature_weight * mean (h(x) - h_reg)^2.

        Args:
            company: the victim and its students.
            targets: h_reg of each, [r, d].
            images: [r, C, H, W].
            labels: [r] int64.

        Returns:
            [r].
        """
        losses = []
        for model, h_reg in zip(company, targets, strict=True):
            h = model.embed(images)
            losses.append(logit(model.head(h), labels) + self.feature_weight * (h - h_reg).square().mean(1))
        return torch.stack(losses).mean(0)

    def _search(self) -> PointSearch | DistributionSearch:
        if self.host == "gmi":
            return PointSearch(self.keep, self.steps, self.lr, self.momentum, self.clip, self.chunk)
        return DistributionSearch(self.keep, self.steps, self.lr, self.log_variance, self.clip, self.chunk)
