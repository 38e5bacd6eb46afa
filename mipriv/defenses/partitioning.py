"""Privacy Partitioning (Chi et al., "Privacy Partitioning: Protecting User Data During the Deep Learning
Inference Phase", arXiv:1812.02863): a client trained against attackers that learn beside it.

What the abstract gives is a network in two parties and an interactive adversarial training. The form of the
game is ours: no formula or figure of the paper was at hand.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv import draws
from mipriv.defenses import Batch, Defense
from mipriv.errors import InputError
from mipriv.models.simulator import KINDS, Design, Learner, Seen, Simulator, told
from mipriv.models.split_classifier import SplitClassifier, required
from mipriv.plugin import one_of

TERMS = ("uniform", "neg", "reversal")
LEAST = {
    "classes": 2,
    "members": 1,
    "width": 1,
    "steps": 1,
    "warmup": 0,
    "meeting": 0,
    "ramp": 0,
    "restart": 0,
}


@dataclass
class Partitioning(Defense):
    """CE + r (attribute_weight H_a + image_weight H_x) against attackers of what is sent, see `Simulator`.

    `uniform`: H_a = KL(pi || A(z)), pi the frequencies of the attribute so far: 0 where the attacker says no
    more than these. `neg`: H_a = -CE(A(z), s), without a bound. `reversal`: the same, of the attacker as it
    was before it learnt from the batch, which then learns once: both follow one gradient, in opposite
    directions. H_x = -min(MSE(D(z), x), c), c the squared error of the mean image so far: to be worse than
    that gains nothing. Both are means over the attackers.

    Epochs fall into four phases: client and server alone (`warmup`); attackers alone, both parties held
    (`meeting`); all; from `until` on the server alone, behind the finished client. r rises to 1 in equal
    steps over the first `ramp` epochs of the third. Select the last epoch: one of the first phases tells all.

    Attackers see what will be shipped, features of the client in evaluation mode with noise, and the client
    is penalised by the same ones: a batch costs one more pass through the client.

    Attributes:
        private: the attribute that is hidden; None: none is.
        classes: K of the attribute.
        attribute_weight: lambda_a.
        image_weight: lambda_x.
        term: see above.
        kinds: of attackers that tell the attribute, see `Design`.
        members: of the ensemble.
        width: of attackers, see `Design`.
        bounded: whether pixels lie in [0, 1].
        lr: of attackers.
        steps: of attackers for one of the client; of `reversal` one, whatever is said here.
        warmup: epochs.
        meeting: epochs.
        until: epoch, from 0; None: the third phase is the last.
        ramp: epochs; 0: r is 1.
        restart: epochs of the third phase after which new attackers take over; 0: never.
        sigma: standard deviation of the noise on what is sent.
    """

    private: str | None = None
    classes: int = 2
    attribute_weight: float = 1.0
    image_weight: float = 0.0
    term: str = "uniform"
    kinds: tuple[str, ...] = KINDS
    members: int = 1
    width: int = 32
    bounded: bool = True
    lr: float = 1e-3
    steps: int = 5
    warmup: int = 20
    meeting: int = 5
    until: int | None = None
    ramp: int = 5
    restart: int = 10
    sigma: float = 0.0
    _model: SplitClassifier | None = field(init=False, repr=False, default=None)
    _trained: list[nn.Parameter] = field(init=False, repr=False, default_factory=list)
    _shape: tuple[int, int, int] = field(init=False, repr=False, default=(1, 1, 1))
    _key: int = field(init=False, repr=False, default=0)
    _learner: Learner | None = field(init=False, repr=False, default=None)
    _random: torch.Generator = field(init=False, repr=False, default_factory=torch.Generator)
    _counts: Tensor | None = field(init=False, repr=False, default=None)
    _moments: tuple[int, Tensor, Tensor] | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        one_of(self.term, TERMS, "term")
        self.kinds = tuple(self.kinds)
        for kind in self.kinds:
            one_of(kind, KINDS, "kinds")
        for name in ("attribute_weight", "image_weight", "sigma"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: from 0")
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: from {least}")
        if not 0 < self.lr < math.inf:
            raise InputError(f"lr: {self.lr}; allowed: above 0")
        if self.until is not None and self.until <= self.warmup + self.meeting:
            first = self.warmup + self.meeting
            raise InputError(f"until: {self.until}; allowed: null, or above warmup + meeting, {first}")
        if self.attribute_weight and self.private is None:
            raise InputError(f"attribute_weight: {self.attribute_weight}; allowed: 0 where private is null")
        if self.attribute_weight and not self.kinds:
            raise InputError("kinds: none; allowed: one or more, where attribute_weight is above 0")

    @property
    def idle(self) -> bool:
        """Whether nothing is resisted: then client and server are trained as without a defence."""
        return self.attribute_weight == self.image_weight == 0

    def phase(self, epoch: int) -> str:
        """Which of the phases an epoch is in: `alone`, `meeting`, `game` or `settled`."""
        if self.idle or epoch < self.warmup:
            return "alone"
        if epoch < self.warmup + self.meeting:
            return "meeting"
        return "game" if self.until is None or epoch < self.until else "settled"

    def strength(self, epoch: int) -> float:
        """r of an epoch of the game."""
        played = epoch - self.warmup - self.meeting + 1
        return min(1.0, played / self.ramp) if self.ramp else 1.0

    def prepare(self, model: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """See `Defense.prepare`."""
        self._model, self._shape = required(model, "partitioning"), image_shape
        super().prepare(model, image_shape)
        self._trained = [weight for weight in model.parameters() if weight.requires_grad]
        self._key = int(torch.randint(2**62, ()))
        self._random = draws.generator(self._key, "what attackers are sent")
        self._learner = self._counts = self._moments = None

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        """Hold who is not to learn, in evaluation mode; see `Defense.before_epoch`."""
        super().before_epoch(model, epoch)
        assert self._model is not None, "prepare comes first"
        phase = self.phase(epoch)
        held = {"meeting": self._model, "settled": self._model.client}.get(phase)
        for weight in self._trained:
            weight.requires_grad_(True)
        if held is not None:
            held.eval().requires_grad_(False)
        played = epoch - self.warmup - self.meeting
        if phase == "game" and self.restart and played and played % self.restart == 0:
            self._learner = None

    def loss(self, batch: Batch, step: int) -> Tensor:
        """See the class and `Defense.loss`."""
        plain = super().loss(batch, step)
        if self.idle:
            return plain
        first = self.warmup + self.meeting
        if first >= batch.epochs:
            raise InputError(f"warmup + meeting: {first} of {batch.epochs} epochs; allowed: fewer than all")
        classes, phase = self._witness(batch), self.phase(batch.epoch)
        if phase in ("alone", "settled"):
            return plain
        features = self._shipped(batch.images)
        seen, learner = (
            Seen(features.detach(), batch.images, classes),
            self._learner_of(features, batch.epoch),
        )
        if phase == "meeting":
            learner.learn(seen)
            return plain.detach().requires_grad_()  # nobody else learns
        if self.term != "reversal":
            learner.learn(seen)
        penalty = self._penalty(learner.simulator, features, batch.images, classes)
        if self.term == "reversal":
            # The attackers' step changes the weights that the penalty's gradient needs: it is taken before.
            penalty = _linear(penalty, features)
            learner.learn(seen)
        return plain + self.strength(batch.epoch) * penalty

    def finish(self, model: nn.Module) -> None:
        """See `Defense.finish`; the attackers stay, as they were at the end."""
        super().finish(model)
        for weight in self._trained:
            weight.requires_grad_(True)
        self._trained, self._model = [], None

    def simulator(self) -> Simulator | None:
        """See `Defense.simulator`."""
        return None if self._learner is None else self._learner.simulator

    def state(self) -> dict[str, Any]:
        """Of the attackers, under `simulator.`."""
        own = {} if self._learner is None else self._learner.simulator.state_dict()
        return {**super().state(), **{f"simulator.{name}": value for name, value in own.items()}}

    def _witness(self, batch: Batch) -> Tensor | None:
        """Classes of the attribute; how often each occurs and the images' moments are counted on the way."""
        images = batch.images.detach()
        n, mean, square = self._moments or (0, images.new_zeros(()), images.new_zeros(()))
        self._moments = n + len(images), mean + images.sum(0), square + images.square().sum(0)
        if not self.attribute_weight:
            return None
        classes = batch.attributes.get(str(self.private))
        if classes is None:
            said = f"{self.private!r} is not handed to training"
            raise InputError(f"private: {said}; allowed: an attribute of the images")
        if int(classes.max()) >= self.classes:
            raise InputError(
                f"classes: {self.classes}; allowed: above {int(classes.max())}, which {self.private!r} has"
            )
        counts = torch.bincount(classes[classes >= 0], minlength=self.classes).to(images)
        self._counts = counts if self._counts is None else self._counts + counts
        return classes

    def _shipped(self, images: Tensor) -> Tensor:
        """What is sent of images by the client as it is, in evaluation mode; gradients pass."""
        assert self._model is not None, "prepare comes first"
        modules = list(self._model.client.modules())
        was = [module.training for module in modules]
        self._model.client.eval()
        sent = self.release(self._model.client(images), self._random)
        for module, training in zip(modules, was, strict=True):
            module.training = training
        return sent

    def _learner_of(self, features: Tensor, epoch: int) -> Learner:
        """The attackers there are, or new ones."""
        if self._learner is None:
            classes = self.classes if self.attribute_weight else 0
            shape = tuple(features.shape[1:])
            design = Design(
                shape,
                self._shape,
                self.bounded,
                classes,
                self.kinds,
                self.image_weight > 0,
                self.width,
                self.members,
            )
            made = Simulator(design, self._key, "attackers", epoch).to(features)
            steps = 1 if self.term == "reversal" else self.steps
            self._learner = Learner(made.eval().requires_grad_(False), self.lr, steps)
        return self._learner

    def _penalty(
        self, attackers: Simulator, features: Tensor, images: Tensor, classes: Tensor | None
    ) -> Tensor:
        """attribute_weight H_a + image_weight H_x."""
        penalty = features.new_zeros(())
        if classes is not None:
            hidden = [self._hidden(logits, classes) for logits in attackers.tell(features)]
            penalty = penalty + self.attribute_weight * torch.stack(hidden).mean()
        if self.image_weight:
            errors = torch.stack([F.mse_loss(made, images) for made in attackers.decode(features)])
            penalty = penalty - self.image_weight * errors.clamp(max=self._blank()).mean()
        return penalty

    def _hidden(self, logits: Tensor, classes: Tensor) -> Tensor:
        """H_a of one attacker."""
        if self.term != "uniform":
            return -told(logits, classes)
        assert self._counts is not None, "the batch was counted"
        prior = self._counts / self._counts.sum().clamp(min=1)
        return torch.xlogy(prior, prior).sum() - (logits.log_softmax(1) @ prior).mean()

    def _blank(self) -> float:
        """c."""
        assert self._moments is not None, "the batch was counted"
        n, total, square = self._moments
        return float((square / n - (total / n).square()).mean())


def _linear(value: Tensor, at: Tensor) -> Tensor:
    """The same value and the same gradient with respect to `at`, without the graph between them."""
    (gradient,) = torch.autograd.grad(value, at, retain_graph=True)
    change = (gradient * at).sum()
    return value.detach() + change - change.detach()
