"""Diagonal Fisher information, a figure a layer and image: which layers a loss is sensitive to.

TL-DMI freezes the front of a classifier because, by its authors' analysis, the front matters most to an
inversion loss and the back to classification (Ho et al., CVPR 2024). Two quantities bear the name, and they
differ (Kunstner et al., NeurIPS 2019): the true one takes labels from the model itself, the empirical one
the labels that are given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from mipriv import draws, stats
from mipriv.attacks.search.rows import attacked, in_chunks
from mipriv.errors import InputError
from mipriv.models.cut import execution_order
from mipriv.stats import Figure

Loss = Callable[[Tensor, Tensor], Tensor]
Progress = Callable[[int, int], None]
Group = Literal["weights", "normalisation"]
NORMALISATION = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Layer:
    """A module that owns parameters.

    Attributes:
        name: as in `named_modules`.
        group: `normalisation`, or `weights` for convolution, linear layers and whatever else learns.
        parameters: how many it owns, frozen ones among them.
    """

    name: str
    group: Group
    parameters: int


@dataclass(frozen=True)
class Information:
    """Fisher information of every image and layer, from which every score follows.

    Attributes:
        layers: in the order of execution.
        sums: float64 [n, layers], the sum over a layer's parameters of the expected squared gradient.
    """

    layers: tuple[Layer, ...]
    sums: NDArray[np.float64]

    def means(self) -> list[Figure]:
        """Mean-normalised scores, one a layer: information a parameter, over images."""
        return stats.of_rows(self.sums / [layer.parameters for layer in self.layers])

    def shares(self) -> list[Figure]:
        """Sum-normalised scores, one a layer: its part of the information of all layers, over images."""
        return stats.of_rows(self.sums, parts)


def parts(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows [b, m] of numbers from 0 as parts of their sum; a row without any has no parts: zeros."""
    total = means.sum(1, keepdims=True)
    found: NDArray[np.float64] = np.divide(means, total, out=np.zeros_like(means), where=total > 0)
    return found


@dataclass(frozen=True)
class Fisher:
    """E[(dL / d theta)^2] summed over each layer's parameters, image by image.

    The gradient is that of one image and one label and squared before any mean: the square of a mean
    gradient is another, smaller thing. The model is evaluated as it is attacked: in evaluation mode,
    frozen parameters counted like all others.

    Attributes:
        draws: labels that the true information samples an image; None: the exact expectation over all
            classes, which a decisive model calls for, since its rare labels carry most of the sum.
        chunk: most gradients in memory together; it changes no result beyond rounding.
    """

    draws: int | None = None
    chunk: int = 10

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise InputError(f"chunk: {self.chunk}; allowed: 1 or more")
        if self.draws is not None and self.draws < 1:
            raise InputError(f"draws: {self.draws}; allowed: 1 or more, or null for the exact expectation")

    def true(
        self, model: nn.Module, images: Tensor, loss: Loss, *, seed: int, progress: Progress | None = None
    ) -> Information:
        """Labels from the model's own softmax: for cross-entropy E[g g'] = -E[Hessian of log p].

        With another loss it is the expected squared gradient under the same labels.

        Args:
            model: images to logits [n, K].
            images: [n, C, H, W].
            loss: (logits [r, K], labels [r]) to losses [r], each of its own row alone.
            seed: of sampled labels; an image's depend on it and on the image's place.
            progress: called with (images done, images).

        Raises:
            InputError: a loss that is not one a row, or a model that torch.func cannot batch.
        """
        with attacked(model):
            logits = self._logits(model, images)
            chances = logits.softmax(1)
            if self.draws is None:
                labels, weights = torch.arange(logits.shape[1]).expand(logits.shape), chances
            else:
                labels = _sampled(chances.cpu(), self.draws, seed)
                weights = torch.full(labels.shape, 1 / self.draws, dtype=torch.float64)
            places = labels.to(logits.device), weights.to(logits.device)
            return self._information(model, images, logits, *places, loss, progress)

    def empirical(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        loss: Loss,
        *,
        progress: Progress | None = None,
    ) -> Information:
        """The given labels [n] int64, which need not be what the model believes; else as `true`."""
        with attacked(model):
            logits = self._logits(model, images)
            given = labels[:, None].to(logits.device)
            return self._information(
                model, images, logits, given, torch.ones_like(given, dtype=torch.float64), loss, progress
            )

    def _logits(self, model: nn.Module, images: Tensor) -> Tensor:
        # In float64 a confident p - 1 keeps its digits, which the square doubles.
        return in_chunks(model, images, self.chunk).double()

    def _information(
        self,
        model: nn.Module,
        images: Tensor,
        logits: Tensor,
        labels: Tensor,
        weights: Tensor,
        loss: Loss,
        progress: Progress | None,
    ) -> Information:
        """Sums over labels [n, m] under weights [n, m], at most `chunk` gradients at a time."""
        shape = images.shape[1], images.shape[2], images.shape[3]
        owned = _owned(model, shape)
        squares = _squares(model, list(owned.values()))
        count = labels.shape[1]
        sums = torch.zeros(len(images), len(owned), dtype=torch.float64, device=logits.device)
        for rows in torch.arange(len(images), device=logits.device).split(max(1, self.chunk // count)):
            cotangents = _cotangents(logits[rows], labels[rows], loss).to(images.dtype)
            for some in torch.arange(count, device=logits.device).split(self.chunk):
                found = _batched(model, squares, images[rows], cotangents[:, some])
                sums[rows] += (found * weights[rows][:, some, None]).sum(1)
            if progress:
                progress(int(rows[-1]) + 1, len(images))
        return Information(_layers(model, owned), sums.cpu().numpy())


def _sampled(chances: Tensor, count: int, seed: int) -> Tensor:
    """Labels [n, count] from chances [n, K], those of an image from a key of its own."""
    spots = torch.stack([draws.uniform((count,), seed, i, "fisher label") for i in range(len(chances))])
    return torch.searchsorted(chances.cumsum(1), spots, right=True).clamp(max=chances.shape[1] - 1)


def _cotangents(logits: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """dL / d logits for every label: [c, m, K] from logits [c, K] and labels [c, m].

    Outside of vmap, so that a loss may do what vmap cannot.
    """
    flat = logits.repeat_interleave(labels.shape[1], 0).requires_grad_()
    with torch.enable_grad():
        losses = loss(flat, labels.flatten())
        if losses.shape != flat.shape[:1]:
            raise InputError(f"loss: shape {tuple(losses.shape)}; allowed: one a row, ({len(flat)},)")
        (found,) = torch.autograd.grad(losses.sum(), flat)
    cotangents: Tensor = found.unflatten(0, labels.shape)
    return cotangents


def _squares(model: nn.Module, owned: Sequence[Sequence[str]]) -> Callable[[Tensor, Tensor], Tensor]:
    """(images [c, ...], cotangents [c, m, K]) to sums of squared gradients [c, m, layers]."""
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    asked = {name: weights[name] for names in owned for name in names}

    def of_image(image: Tensor, cotangents: Tensor) -> Tensor:
        def logits(parameters: dict[str, Tensor]) -> Tensor:
            found: Tensor = functional_call(model, {**weights, **parameters}, (image[None],))
            return found[0]

        pull: Any = vjp(logits, asked)[1]

        def of_label(cotangent: Tensor) -> Tensor:
            (gradient,) = pull(cotangent)
            squares = {name: part.double().square().sum() for name, part in gradient.items()}
            return torch.stack([torch.stack([squares[name] for name in names]).sum() for names in owned])

        found: Tensor = vmap(of_label)(cotangents)
        return found

    batched: Callable[[Tensor, Tensor], Tensor] = vmap(of_image)
    return batched


def _batched(
    model: nn.Module, squares: Callable[[Tensor, Tensor], Tensor], images: Tensor, cotangents: Tensor
) -> Tensor:
    try:
        return squares(images, cotangents)
    except RuntimeError as error:
        said = f"{type(model).__name__}: {' '.join(str(error).split())}"
        raise InputError(
            f"per-sample gradients of {said}; allowed: a model that torch.func.vmap runs"
        ) from error


def _owned(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, list[str]]:
    """Names of parameters by layer, in the order of execution.

    A module that is never called, because the one above it uses its weights directly (attention does), counts
    as the one above; what nothing reaches computes nothing and is left out.
    """
    reached = [leaf.name for leaf in execution_order(model, image_shape)]
    owned: dict[str, list[str]] = {name: [] for name in reached}
    for parameter in dict(model.named_parameters()):
        module = parameter.rpartition(".")[0]
        above = [name for name in reached if module == name or module.startswith(f"{name}.")]
        if above:
            owned[max(above, key=len)].append(parameter)
    return {name: parameters for name, parameters in owned.items() if parameters}


def _layers(model: nn.Module, owned: dict[str, list[str]]) -> tuple[Layer, ...]:
    sizes = {name: weight.numel() for name, weight in model.named_parameters()}
    groups: dict[str, Group] = {
        name: "normalisation" if isinstance(model.get_submodule(name), NORMALISATION) else "weights"
        for name in owned
    }
    return tuple(Layer(n, groups[n], sum(sizes[p] for p in names)) for n, names in owned.items())
