"""A fine-tuned copy of the client as a teacher: features that were censored are translated back."""

import copy
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv import draws
from mipriv.attacks.attributes import Known, Opened, Told
from mipriv.attacks.search.audit_nets import CHUNK, Steps, fit, predictor
from mipriv.attacks.search.audits import FromFeatures, Predict, Rows
from mipriv.attacks.search.rows import in_chunks


class Translated(nn.Module):
    """head(z + translation(z)); at the start the translation adds nothing."""

    def __init__(self, shape: tuple[int, ...], width: int, head: nn.Module) -> None:
        super().__init__()
        maps = len(shape) == 3
        ends = (shape[0], shape[0]) if maps else (int(torch.Size(shape).numel()),) * 2
        last = nn.Conv2d(width, ends[1], 3, padding=1) if maps else nn.Linear(width, ends[1])
        first = nn.Conv2d(ends[0], width, 3, padding=1) if maps else nn.Linear(ends[0], width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.translation = nn.Sequential(*([] if maps else [nn.Flatten()]), first, nn.ReLU(), last)
        self.head = head

    def translate(self, z: Tensor) -> Tensor:
        """What the fine-tuned copy would have made of the image, [n, *feature_shape]."""
        translated: Tensor = z + self.translation(z).view_as(z)
        return translated

    def forward(self, z: Tensor) -> Tensor:
        """Scores [n, K] of scaled features [n, *feature_shape]."""
        scores: Tensor = self.head(self.translate(z))
        return scores


@dataclass(frozen=True)
class FineTuned(FromFeatures):
    """De-censoring, after Song and Shmatikov, Overlearning Reveals Sensitive Attributes (ICLR 2020).

    Three steps: a copy E' of the client and a head are trained on images to tell the attribute; a
    translation T of what was sent is fitted to E'(x), from the identity on; T and the head are trained
    together on what was sent. Targets send features alone, so that the copy itself never meets them.

    Attributes:
        width: of the translation's hidden layer.
        hidden: of the head.
        weight: of |T(z) - E'(x)|^2 beside the cross-entropy, in the third step.
        tuning: of the copy.
        translating: of the translation with its head.
    """

    access: ClassVar[Literal["weights"]] = "weights"
    width: int = 32
    hidden: int = 128
    weight: float = 1.0
    tuning: Steps = field(default_factory=lambda: Steps(epochs=20, patience=5))
    translating: Steps = field(default_factory=lambda: Steps(epochs=25, patience=6))

    def __call__(self, known: Known, observed: Tensor, *, opened: Opened, seed: int) -> Told:
        """See `OpenAuditor`."""
        return self._told(known, observed, lambda rows: self._learn(rows, opened, seed))

    def _learn(self, rows: Rows, opened: Opened, seed: int) -> tuple[Predict, dict[str, float]]:
        times = len(rows.y) // len(opened.training)
        images = [part.float().cpu() for part in (opened.training, opened.validation)]
        classes = [rows.y[: len(images[0])], rows.held_y[: len(images[1])]]
        shape = tuple(rows.x.shape[1:])
        with draws.seeded(seed, "fine_tuned"):
            head = nn.Sequential(
                nn.Flatten(),
                nn.Linear(int(torch.Size(shape).numel()), self.hidden),
                nn.ReLU(),
                nn.Linear(self.hidden, rows.classes),
            )
            copied = copy.deepcopy(opened.network).float().cpu().requires_grad_(True)
            teacher = nn.Sequential(copied, Normalised(shape), head)
        own = Rows(images[0], classes[0], images[1], classes[1], rows.classes)
        tuned = fit(teacher, own, self.tuning, seed, "fine_tuned", "copy")
        wanted = in_chunks(teacher[:2], images[0], CHUNK)
        with draws.seeded(seed, "translation"):
            net = Translated(shape, self.width, copy.deepcopy(head))

        def loss(batch: Tensor) -> Tensor:
            translated = net.translate(rows.x[batch])
            entropy = F.cross_entropy(net.head(translated), rows.y[batch], rows.weights)
            return entropy + self.weight * F.mse_loss(translated, wanted[batch % len(images[0])])

        epoch = fit(net, rows, self.translating, seed, "fine_tuned", "translation", loss=loss)
        return predictor(net), {"copy's epoch": float(tuned), "epoch": float(epoch), "queries": float(times)}


class Normalised(nn.Module):
    """Features by their running means and deviations, as those that were sent are scaled."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        width = int(torch.Size(shape).numel())
        self.norm = nn.BatchNorm1d(width, affine=False)

    def forward(self, z: Tensor) -> Tensor:
        """[n, *feature_shape]."""
        return self.norm(z.flatten(1)).view_as(z)  # type: ignore[no-any-return]
