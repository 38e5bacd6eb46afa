"""CEM (Xia et al., "Theoretical Insights in Model Inversion Robustness and Conditional Entropy Maximization
for Collaborative Inference Systems", CVPR 2025): beside a host defence, features are trained to tell less.

Of features z^ behind noise N(0, sigma^2 I), in cells j of weight pi_j and covariance Sigma_j,

    I(x; z) <= L_C = sum_j pi_j (-log pi_j + 1/2 log |Sigma_j + sigma^2 I| / |sigma^2 I|),

and with it an attacker's mean squared error is bounded from below through h(x | z) = h(x) - I(x; z).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mipriv.analysis import cells as kmeans
from mipriv.analysis.running_cells import RunningCells
from mipriv.defenses import Batch, Defense
from mipriv.errors import InputError
from mipriv.models.simulator import Simulator
from mipriv.models.split_classifier import SplitClassifier
from mipriv.plugin import one_of

MODES = ("unbiased", "paper", "code")
COVARIANCES = {"unbiased": ("isotropic", "diagonal"), "paper": ("isotropic", "diagonal", "full")}


@dataclass
class CEM(Defense):
    """The host's loss + weight L, L from the clean features of the batch and the cells of its classes.

    `unbiased`, ours. L = L_C / D. With the assignment held fixed the gradient of L_C is the mean over images
    of that of 1/2 sum_i (z^_i - mu_ji)^2 / (sigma^2 + v_ji): pi_j has none, and that through mu_j is zero. So
    a batch has an unbiased gradient, whatever share of its cells it holds, if mu and v come from outside of
    it: they are those of earlier batches, averaged as training goes on, so that no encoder pass is added. L's
    value is that of the averages with this batch. It is an estimate on training batches, never a certificate.

    `paper`, the equation as printed. L = L_C / D, pi_j and mu_j from k-means over the epoch before, Sigma_j
    the mean outer product of the batch's own deviations from mu_j. Every term stands, without threshold or
    floor; but a cell that has no image in the batch has no log-determinant there, and n_j images of D > n_j
    features underestimate that of the others.

    `code`, what the released code computes. L = 1/C' sum_j pi_j max(0, log(v_j + gamma) - log(tau sigma^2
    + gamma)) over the cells in the batch, C' classes in it, pi_j within the class, v_j = a_j m_j +
    (1 - a_j) s_j with scalar variances m_j of the batch and s_j of the epoch before, and a_j = min(0.99,
    10 n_j / (pi_j N / C)), which is all that the gradient passes. `weight` rises with the epochs, see `ramp`.
    Not reproduced: cells that shift when one is empty and classes of K images or fewer that are not a number
    (both give a loss of other cells than its images'), k-means++ by distance instead of its square, centroids
    of the encoder in evaluation mode (batches are compared with what training mode gives; an extra pass), and
    a second backward pass through the client, which is the same gradient.

    Attributes:
        host: the defence beside which this one stands; the noise is its `sigma`, which must be above 0.
        weight: lambda; 16 is published, for `code`, where a_j takes most of it away again.
        cells: K a class.
        covariance: `isotropic` (the mean variance of a cell), `diagonal`, or `full`, of `paper` alone; `code`
            knows isotropic ones only.
        classwise: cells within classes; otherwise K cells in all, and the labels unused. Classwise cells pay
            for the label's entropy in L_C.
        mode: see above.
        momentum: of the averages of `unbiased`, a step: about 1 / (1 - momentum) batches are remembered.
        warmup: epochs without L, from 1; the last of them fits the first cells.
        iterations: of k-means.
        drift: `unbiased` fits its cells anew once they leave this many times the share of their classes'
            variance unexplained that they left when they were fitted.
        starved: `unbiased` reseeds, after an epoch, cells below this share of their class's mean weight.
        gamma: of `code`.
        threshold: tau of `code`.
    """

    host: Defense = field(default_factory=Defense)
    weight: float = 1.0
    cells: int = 5
    covariance: str = "diagonal"
    classwise: bool = True
    mode: str = "unbiased"
    momentum: float = 0.99
    warmup: int = 1
    iterations: int = 20
    drift: float = 1.5
    starved: float = 0.05
    gamma: float = 0.01
    threshold: float = 0.125
    _running: RunningCells | None = field(init=False, repr=False, default=None)
    _gathered: list[tuple[Tensor, Tensor]] = field(init=False, repr=False, default_factory=list)
    _classes: int = field(init=False, repr=False, default=0)
    _key: int = field(init=False, repr=False, default=0)
    _fits: int = field(init=False, repr=False, default=0)
    _at_fit: float = field(init=False, repr=False, default=math.nan)
    _due: bool = field(init=False, repr=False, default=False)
    _images: int = field(init=False, repr=False, default=0)
    _nats: Tensor = field(init=False, repr=False, default_factory=lambda: torch.empty(0))

    def __post_init__(self) -> None:
        one_of(self.mode, MODES, "mode")
        one_of(self.covariance, COVARIANCES.get(self.mode, ("isotropic",)), f"covariance of {self.mode}")
        for name, least in (("cells", 1), ("warmup", 1), ("iterations", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: from {least}")
        for name, above in (("drift", 1), ("gamma", 0)):
            if not getattr(self, name) > above:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: above {above}")
        for name in ("momentum", "starved"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: from 0, below 1")
        for name in ("weight", "threshold"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: from 0")
        if not self.host.sigma > 0:
            raise InputError(
                f"cem: its host's sigma is {self.host.sigma}; allowed: above 0, as L_C is infinite"
            )
        self.sigma, self.freeze = self.host.sigma, self.host.freeze
        self.private, self.classes = self.host.private, self.host.classes

    def prepare(self, model: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """See `Defense.prepare`."""
        if not isinstance(model, SplitClassifier):
            raise InputError(f"cem: {type(model).__name__} sends no features; allowed: a split classifier")
        self.host.prepare(model, image_shape)
        self._classes = model.num_classes if self.classwise else 1
        self._running, self._due, self._fits = None, False, 0
        self._key = int(torch.randint(2**62, ()))  # after the host, which thus draws as it does alone

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        """See `Defense.before_epoch`."""
        self.host.before_epoch(model, epoch)

    def loss(self, batch: Batch, step: int) -> Tensor:
        """See the class and `Defense.loss`."""
        host = self.host.loss(batch, step)
        if self.weight == 0:
            return host
        if batch.epochs <= self.warmup:
            raise InputError(f"warmup: {self.warmup} of {batch.epochs} epochs; allowed: fewer than all")
        assert batch.features is not None, "prepare has seen a split classifier"
        features, labels = batch.features.flatten(1), batch.labels if self.classwise else batch.labels * 0
        features = features if features.dtype == torch.float64 else features.float()
        if self._due or (self.mode != "unbiased" and batch.epoch >= self.warmup) or self._first(batch.epoch):
            self._gathered.append((features.detach(), labels))
        if self._running is None:
            return host
        terms: dict[str, Callable[[Tensor, Tensor, RunningCells], Tensor]]
        terms = {"unbiased": self._unbiased, "paper": self._paper, "code": self._code}
        strength = self.weight * (ramp(batch.epoch, batch.epochs) if self.mode == "code" else 1.0)
        cell = self._running.assign(features.detach(), labels)
        return host + strength * terms[self.mode](features, cell, self._running)

    def after_step(self, model: nn.Module, step: int) -> None:
        """See `Defense.after_step`."""
        self.host.after_step(model, step)

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        """Fit cells to the epoch's features, or look after those there are; see `Defense.after_epoch`."""
        self.host.after_epoch(model, epoch)
        if self._gathered:
            self._fit()
        elif self._running is not None and self.mode == "unbiased":
            if self._running.reseed(self.starved):
                self._nats = self._information(self._running.variances)
            self._due = self._running.unexplained() > self.drift * self._at_fit

    def finish(self, model: nn.Module) -> None:
        """See `Defense.finish`."""
        self.host.finish(model)
        self._gathered.clear()

    def release(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """See `Defense.release`."""
        return self.host.release(features, generator)

    def simulator(self) -> Simulator | None:
        """The host's."""
        return self.host.simulator()

    def state(self) -> dict[str, Any]:
        """The host's, `cem_fits`, and of the cells `cem_weights` [J], `cem_means`, `cem_variances` [J, D]."""
        own: dict[str, Any] = {"cem_fits": self._fits}
        if self._running is not None:
            own["cem_weights"] = self._running.weights
            own["cem_means"], own["cem_variances"] = self._running.means, self._running.variances
        return {**self.host.state(), **own}

    def _first(self, epoch: int) -> bool:
        return epoch == self.warmup - 1

    def _fit(self) -> None:
        """Cells of the epoch's features; in the replications they go on from those of the epoch before."""
        features, labels = (torch.cat(parts) for parts in zip(*self._gathered, strict=True))
        self._gathered.clear()
        start = None
        if self._running is not None and self.mode != "unbiased":
            start = self._running.means.view(self._classes, self.cells, -1)
        key = ("cem", self._key, self._fits)
        found = kmeans.fit(
            features, labels, self._classes, self.cells, *key, start=start, iterations=self.iterations
        )
        self._running, self._images = RunningCells(found, self.momentum), len(labels)
        self._nats = self._information(self._running.variances)
        self._at_fit, self._due, self._fits = self._running.unexplained(), False, self._fits + 1

    def _information(self, variances: Tensor) -> Tensor:
        """1/2 log |Sigma + sigma^2 I| / |sigma^2 I| in nats, of variances [m, D]: [m]."""
        d = variances.shape[1]
        if self.covariance == "isotropic":
            return d / 2 * torch.log1p(variances.mean(1) / self.sigma**2)
        return torch.log1p(variances / self.sigma**2).sum(1) / 2

    def _unbiased(self, features: Tensor, cell: Tensor, running: RunningCells) -> Tensor:
        variances = running.variances[cell]
        if self.covariance == "isotropic":
            variances = variances.mean(1, keepdim=True)
        # A cell that had no image yet has no mean to be drawn to.
        known = (running.weights[cell] > 0)[:, None] / (self.sigma**2 + variances)
        linear = ((features - running.means[cell]).square() * known).sum(1).mean() / 2
        running.update(features.detach(), cell)
        self._nats[cell] = self._information(running.variances[cell])
        weights = running.weights
        value = (weights * self._nats).sum() - torch.xlogy(weights, weights).sum()
        return (value + linear - linear.detach()) / features.shape[1]

    def _paper(self, features: Tensor, cell: Tensor, running: RunningCells) -> Tensor:
        deviations, count, weights = features - running.means[cell], _count(cell), running.weights
        if self.covariance == "full":
            # |I + X'X / (n sigma^2)| of a cell is |I + XX' / (n sigma^2)| (Sylvester). All cells lie in one
            # matrix [n, n] without entries between them, so the factor's diagonal sorts itself by cell.
            same = (cell[:, None] == cell).to(features)
            gram = same * (deviations @ deviations.T) / count[:, None] / self.sigma**2
            eye = torch.eye(len(cell), dtype=features.dtype, device=features.device)
            factor: Tensor = torch.linalg.cholesky(eye + gram)
            nats = factor.diagonal().log()
        else:
            nats = self._information(_members_mean(deviations.square(), cell)) / count
        log_det = (weights[cell] * nats).sum()
        return (log_det - torch.xlogy(weights, weights).sum()) / features.shape[1]

    def _code(self, features: Tensor, cell: Tensor, running: RunningCells) -> Tensor:
        """No division by D: the variances are means over the features as it is."""
        deviations, count = (features - running.means[cell]).square().mean(1), _count(cell)
        by_class = running.weights.view(self._classes, self.cells)
        tiny = torch.finfo(by_class.dtype).tiny
        weights = (by_class / by_class.sum(1, keepdim=True).clamp(min=tiny)).flatten()[cell]
        usual = weights * self._images / self._classes
        share = (10 * count / usual.clamp(min=tiny)).clamp(max=0.99)
        variance = share * _members_mean(deviations[:, None], cell)[:, 0]
        variance = variance + (1 - share) * running.variances[cell].mean(1)
        floor = math.log(self.threshold * self.sigma**2 + self.gamma)
        above = ((variance + self.gamma).log() - floor).clamp(min=0)
        return (weights * above / count).sum() / len((cell // self.cells).unique())


def ramp(epoch: int, epochs: int) -> float:
    """Share of `weight` in an epoch (from 0) of the released code: 0.001 over its learning rate, then 1."""
    return (0.02, 0.1, 0.5, 1.0)[4 * epoch // epochs]


def _count(cell: Tensor) -> Tensor:
    return (cell[:, None] == cell).sum(1)


def _members_mean(values: Tensor, cell: Tensor) -> Tensor:
    """Means [n, d] of values [n, d] over every image's fellows in its cell of the batch."""
    same = (cell[:, None] == cell).to(values)
    return same @ values / same.sum(1, keepdim=True)
