"""Attackers that live inside a training: what a split network is trained against, never what it is judged by.

A simulator learns beside its client, so that the client learns to be hard for this one opponent. What it
scores afterwards is a diagnosis of that training: an auditor that starts anew on the finished client is what
tells leakage (Song and Shmatikov, "Overlearning Reveals Sensitive Attributes", ICLR 2020).
"""

import json
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv import draws
from mipriv.errors import InputError
from mipriv.models.decoders import Decoder
from mipriv.plugin import one_of

FILE = "simulator.safetensors"
KINDS = ("conv", "mlp")


@dataclass(frozen=True)
class Design:
    """Which attackers there are.

    Attributes:
        feature_shape: of what a client sends of an image.
        image_shape: (C, H, W).
        bounded: whether pixels lie in [0, 1].
        classes: K of the attribute; 0: nobody tells one.
        kinds: of the attackers that tell it, `conv` or `mlp`, each once for every member.
        images: whether there are decoders.
        width: of hidden layers: channels of convolutions and at half a decoder's side; 4 times as many units.
        members: of the ensemble.
    """

    feature_shape: tuple[int, ...]
    image_shape: tuple[int, int, int]
    bounded: bool
    classes: int
    kinds: tuple[str, ...]
    images: bool
    width: int
    members: int

    def __post_init__(self) -> None:
        for kind in self.kinds:
            one_of(kind, KINDS, "kinds")


class Simulator(nn.Module):
    """An ensemble of attackers on features.

    Args:
        design: see `Design`.
        key: of the weights, and of each attacker's own draws.
    """

    def __init__(self, design: Design, *key: draws.Key) -> None:
        super().__init__()
        self.design = design
        with draws.seeded(*key):
            told = design.kinds * design.members if design.classes else ()
            self.tellers = nn.ModuleList([_teller(kind, design) for kind in told])
            count = design.members if design.images else 0
            self.decoders = nn.ModuleList(
                [
                    Decoder(design.feature_shape, design.image_shape, design.width, design.bounded)
                    for _ in range(count)
                ]
            )

    def tell(self, features: Tensor) -> list[Tensor]:
        """Logits [n, K] of the attribute, by each attacker that tells it."""
        return [teller(features) for teller in self.tellers]

    def decode(self, features: Tensor) -> list[Tensor]:
        """Images [n, C, H, W], by each decoder."""
        return [decoder(features) for decoder in self.decoders]

    def save(self, folder: Path) -> None:
        """As `FILE` in a model's folder."""
        state = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(state, folder / FILE, {"design": json.dumps(asdict(self.design), sort_keys=True)})

    @classmethod
    def load(cls, folder: Path) -> "Simulator":
        """The one that `save` left, in evaluation mode.

        Raises:
            InputError: none there, or not one.
        """
        try:
            with safe_open(folder / FILE, "pt") as file:
                values = json.loads((file.metadata() or {})["design"])
            lists = ("feature_shape", "image_shape", "kinds")
            design = Design(**{**values, **{name: tuple(values[name]) for name in lists}})
            made = cls(design, "overwritten")
            made.load_state_dict(load_file(folder / FILE))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            said = " ".join(str(error).split())
            raise InputError(f"{str(folder / FILE)!r}: no simulator ({said})") from error
        return made.eval().requires_grad_(False)


@dataclass(frozen=True)
class Seen:
    """A batch as attackers see it.

    Attributes:
        features: [n, *feature_shape], as they were sent, without their graph.
        images: [n, C, H, W].
        classes: [n] int64 of the attribute, below 0 where unknown; None: nobody tells one.
    """

    features: Tensor
    images: Tensor
    classes: Tensor | None


class Learner:
    """A simulator that learns as batches come.

    Its steps at a batch are over as many of the last batches, the newest last: the same one over and over
    would be learnt by heart, and the client be made hard for an attacker who knows nothing else.

    Args:
        simulator: learns in place.
        lr: of Adam.
        steps: at every batch.
    """

    def __init__(self, simulator: Simulator, lr: float, steps: int) -> None:
        self.simulator = simulator
        self._adam = torch.optim.Adam(simulator.parameters(), lr)
        self._steps, self._seen = steps, deque[Seen](maxlen=steps)

    def learn(self, batch: Seen) -> None:
        """All steps at a new batch; the simulator is left frozen and in evaluation mode."""
        self._seen.append(batch)
        self.simulator.train().requires_grad_(True)
        for back in reversed(range(self._steps)):
            self._adam.zero_grad(set_to_none=True)
            self._error(self._seen[-1 - back % len(self._seen)]).backward()
            self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        self.simulator.eval().requires_grad_(False)

    def _error(self, seen: Seen) -> Tensor:
        """Cross-entropies of known classes and squared errors of images, added up over attackers."""
        errors = [F.mse_loss(made, seen.images) for made in self.simulator.decode(seen.features)]
        if seen.classes is not None:
            errors += [told(logits, seen.classes) for logits in self.simulator.tell(seen.features)]
        return torch.stack(errors).sum()


def told(logits: Tensor, classes: Tensor) -> Tensor:
    """Mean cross-entropy over images whose class is known; 0, with a graph, where none is."""
    known = classes >= 0
    return F.cross_entropy(logits[known], classes[known]) if known.any() else logits.sum() * 0


def _teller(kind: str, design: Design) -> nn.Module:
    """Logits of the attribute from features of any shape; without batch statistics.

    `conv`: two convolutions, the mean over places, and one hidden layer (features without places become one
    place); `mlp`: two hidden layers.
    """
    units = 4 * design.width
    if kind == "mlp":
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(int(torch.Size(design.feature_shape).numel()), units),
            nn.ReLU(),
            nn.Linear(units, units),
            nn.ReLU(),
            nn.Linear(units, design.classes),
        )
    shape = design.feature_shape if len(design.feature_shape) == 3 else (*design.feature_shape, 1, 1)[:3]
    return nn.Sequential(
        nn.Unflatten(1, shape) if shape != design.feature_shape else nn.Identity(),
        nn.Conv2d(shape[0], design.width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(design.width, 2 * design.width, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * design.width, units),
        nn.ReLU(),
        nn.Linear(units, design.classes),
    )
