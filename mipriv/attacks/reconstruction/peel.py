"""Inputs of residual networks from their features, by the solver that the regime asks for.

The subject is PEEL's (Arif et al., "PEEL the Layers and Find Yourself", SaTML 2025), the unknown is another:
the image itself instead of every block's features, and with it far fewer unknowns than equations.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from mipriv import draws
from mipriv.attacks.reconstruction import Access, Client, Knowledge, Progress, Recovered, opened
from mipriv.attacks.search import blockwise
from mipriv.attacks.search.blockwise import Penalty
from mipriv.attacks.search.latents import at_least_one
from mipriv.attacks.search.matching import Matching, deterministic, roughness
from mipriv.attacks.search.pixels import total_variation
from mipriv.attacks.search.releases import Releases
from mipriv.errors import InputError
from mipriv.models.chain import Chain
from mipriv.plugin import one_of
from mipriv.solvers.levenberg_marquardt import Schedule, levenberg_marquardt

SOLVERS = ("auto", "levenberg_marquardt", "adam", "adam_levenberg_marquardt", "penalty")
PROBES = 16  # images of the attacker's own that tell what the release does to features on average
CONTRACTS = 0.95  # the largest Jacobian norm with which a fixed point is iterated
Candidate = tuple[str, Tensor]


@dataclass(frozen=True)
class Level:
    """One stage of Levenberg and Marquardt's method.

    Attributes:
        smoothness: weight of the squared roughness a pixel, in units of the squared relative feature error.
        outer, inner: see `Schedule`.
    """

    smoothness: float
    outer: int
    inner: int


@dataclass(frozen=True)
class Descent:
    """One stage of Adam on the pixels.

    Attributes:
        steps, lr: of Adam.
        tv_weight: of the total variation a pixel, in units of the squared relative feature error.
    """

    steps: int
    lr: float
    tv_weight: float


@dataclass(frozen=True)
class PEEL:
    """Minimise |network(x) - z|^2 / |z|^2 + prior(x) over images x, z the mean of a target's releases.

    - `levenberg_marquardt`, from the mean of the attacker's images, under ever less smoothness: first cuts.
      (Grey is zero to a network that normalises around it, where no ReLU without bias has a gradient.)
    - `adam` with total variation, from the mean and `starts` - 1 random images, of which the least feature
      residual is kept; `adam_levenberg_marquardt` goes on from there: deeper cuts.
    - `penalty`, the published method, block by block; see `blockwise.penalty`. Only that one needs blocks.
    - `auto`: closing blocks x + F(x) whose F contracts are undone exactly, by a fixed point. Then
      `levenberg_marquardt`, given up once a level leaves equations of the attacker's own images far from met;
      where they are not met at its end `adam`, and the polish where that comes near.

    What was recovered after every stage is a candidate, and the one of least error on the attacker's
    validation images, which are attacked along with the targets, is taken and named in `notes`, beside the
    `passes` over the network that an image took. A defence's noise thus ends the search in time. What a
    release does to features on average, as dropout does, is taken to be a factor, measured on the attacker's
    images.

    Attributes:
        solver: see above.
        levels: of `levenberg_marquardt`.
        descents: of `adam`.
        polish: levels that follow on `adam`.
        starts: of `adam`.
        met, near, lost: relative feature residuals, the median over validation images: at `met` `auto` looks
            no further, from `near` it goes on from Adam's images, above `lost` it gives up what begins at
            the mean.
        memory, iterations, tolerance: of the fixed point; see `anderson`.
        penalty: published constants.
        oracle_reset: `penalty` as released: each block's target is what the network computed in truth. No
            attack, as nobody who needs one knows that.
        selection: validation images, at most.
        chunk: most rows in memory together; on a CPU more of them than fit its caches are slower.
    """

    solver: str = "auto"
    levels: tuple[Level, ...] = (Level(1e-4, 4, 20), Level(1e-6, 8, 60), Level(1e-8, 8, 100))
    descents: tuple[Descent, ...] = (
        Descent(600, 0.05, 0.3),
        Descent(600, 0.03, 0.1),
        Descent(500, 0.02, 0.03),
    )
    polish: tuple[Level, ...] = (Level(1e-8, 6, 60), Level(1e-10, 6, 60))
    starts: int = 1
    met: float = 1e-2
    near: float = 0.05
    lost: float = 0.4
    memory: int = 5
    iterations: int = 60
    tolerance: float = 1e-6
    penalty: Penalty = field(default_factory=Penalty)
    oracle_reset: bool = False
    selection: int = 8
    chunk: int = 32

    access: ClassVar[Access] = "weights"

    def __post_init__(self) -> None:
        one_of(self.solver, SOLVERS, "solver")
        at_least_one(self, "starts", "selection", "chunk", "memory", "iterations")
        for name in ("levels", "descents"):
            if not getattr(self, name):
                raise InputError(f"{name}: none; allowed: one or more")
        if self.oracle_reset and self.solver != "penalty":
            raise InputError(f"oracle_reset: true with solver {self.solver!r}; allowed: with 'penalty'")

    def __call__(
        self,
        client: Client,
        known: Knowledge,
        observed: Tensor,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Recovered:
        """See `Reconstruction`; steps are linearisations and steps of Adam, of a row.

        Raises:
            InputError: a client whose network is not shown, or normalises by its batch or drops features.
        """
        sender = opened(client)
        deterministic(sender.network, "client")
        asked = Releases(client, known, observed, seed)
        held = known.validation[: self.selection].to(asked.targets)
        run = _Run(self, sender.network, asked, known, held, seed, progress)
        candidates, notes = run.penalty(sender.truth) if self.solver == "penalty" else run.search()
        log, best = [], -1
        for place, (_, images) in enumerate(candidates):
            error = (images[: len(held)] - held).square().mean().item()
            gap = run.matching.relative(images[: len(held)]).median().item()
            log.append({"step": float(place), "validation_error": error, "feature_error": gap})
            if best < 0 or error < log[best]["validation_error"]:
                best = place
        name, images = candidates[best]
        images = images[len(held) :]
        run.done()
        return Recovered(
            images,
            log[best]["validation_error"],
            run.counted.seen + asked.queries,
            log,
            {"solver": name, **notes, "passes": round(run.passes / len(run.z))},
        )


class _Counted(nn.Module):
    """A network that counts the images that it sees."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.seen = network, 0

    def forward(self, images: Tensor) -> Tensor:
        """What the network makes of them."""
        self.seen += len(images)
        features: Tensor = self.network(images)
        return features


class _Run:
    """Candidates for validation images and targets together, [v + n, C, H, W].

    Attributes:
        z: what is to be matched, [v + n, *feature_shape].
        passes: over the network so far, forward ones and products with its Jacobian or the transpose alike.
    """

    def __init__(
        self,
        knobs: PEEL,
        network: nn.Module,
        asked: Releases,
        known: Knowledge,
        held: Tensor,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self._knobs, self._seed, self._progress = knobs, seed, progress
        self._shape, self._box = tuple(held.shape[1:]), (0.0, 1.0) if known.bounded else None
        self._held, self._images = len(held), held
        self._mean = known.training.to(held).mean(0)
        self.counted = _Counted(network)
        self.z = torch.cat([asked.mean(held), asked.targets])
        factor = self._factor(asked, known)
        self._network: Callable[[Tensor], Tensor] = lambda x: factor * self.counted(x)
        if factor == 1:
            self._network = self.counted
        self._exact = factor == 1 and not self._random
        self.matching = Matching(self._network, self.z, self._shape)
        rows = len(self.z)
        levels = sum(level.outer for level in (*knobs.levels, *knobs.polish)) * rows
        self._total = max(1, levels + sum(d.steps for d in knobs.descents) * rows * knobs.starts)
        self._spent, self.passes = 0, 0

    @torch.no_grad()
    def _factor(self, asked: Releases, known: Knowledge) -> float:
        """By what the release multiplies features on average; 1 where it draws nothing."""
        some = known.training[:PROBES].to(asked.targets)
        features = self.counted(some)
        sent = [asked.once(some) for _ in range(2)]
        self._random = not torch.equal(sent[0], sent[1])
        if torch.equal(sent[0], features):
            return 1.0
        sent += [asked.once(some) for _ in range(PROBES - 2)]
        return float((torch.stack(sent).mean(0) * features).sum() / features.square().sum())

    def penalty(self, truth: Tensor | None) -> tuple[list[Candidate], dict[str, str | float]]:
        """The published method; the only candidate."""
        knobs = self._knobs
        chain = Chain.of(self.counted.network)
        given = self._given(chain, truth) if knobs.oracle_reset else None
        self._total = len(chain.blocks) * knobs.penalty.steps + knobs.penalty.stem_steps
        self.passes = 2 * self._total * len(self.z)  # each over one block
        images = blockwise.penalty(
            chain, self.z, self._shape, knobs.penalty, self._seed, truth=given, report=self._report
        )
        how = "oracle reset" if knobs.oracle_reset else "honest chain"
        return [(f"penalty, {how}", images)], {"oracle_reset": str(knobs.oracle_reset).lower()}

    @torch.no_grad()
    def _given(self, chain: Chain, truth: Tensor | None) -> list[Tensor]:
        """What every block is given in truth."""
        if truth is None:
            raise InputError(
                "oracle_reset: the client shows no true images; allowed: one that does, or false"
            )
        x = torch.cat([self._images, truth.to(self.z)])
        for layer in chain.stem:
            x = layer(x)
        found = []
        for block in chain.blocks:
            found.append(x)
            x = block.module(x)
        return found

    def search(self) -> tuple[list[Candidate], dict[str, str | float]]:
        """Candidates of the solver, cheap ones first, and what was noted on the way."""
        knobs, lazy = self._knobs, self._knobs.solver == "auto"
        notes = self._undo() if lazy else {}
        mean = self._mean.expand(len(self.z), *self._shape)
        found: list[Candidate] = []
        if lazy or knobs.solver == "levenberg_marquardt":
            found += self._levels("levenberg_marquardt", mean, knobs.levels, knobs.lost if lazy else None)
            if lazy and self._exact and self._gap(found[-1][1]) <= knobs.met:
                return found, notes
        if knobs.solver != "levenberg_marquardt":
            found += self._descend(mean)
            if knobs.solver == "adam_levenberg_marquardt" or (lazy and self._gap(found[-1][1]) <= knobs.near):
                found += self._levels("adam, levenberg_marquardt", found[-1][1], knobs.polish)
        return found, notes

    def _gap(self, images: Tensor) -> float:
        """Relative feature residual of the validation images, the median."""
        return float(self.matching.relative(images[: self._held]).median())

    def _undo(self) -> dict[str, str | float]:
        """Undo closing blocks whose branch contracts; what is left is matched from then on."""
        knobs, largest, undone = self._knobs, 0.0, 0
        try:
            chain = Chain.of(self.counted.network)
        except InputError:  # no residual network: the image is searched for all the same
            return {}
        blocks = list(chain.blocks)
        while blocks and not chain.tail and self._exact and blocks[-1].identity and not blocks[-1].relu:
            norm = float(blockwise.contraction(blocks[-1], self.z[: self._held], self._seed).max())
            if norm >= CONTRACTS:
                break
            solved = blockwise.fixed_point(
                blocks[-1],
                self.z,
                memory=knobs.memory,
                iterations=knobs.iterations,
                tolerance=knobs.tolerance,
            )
            if not bool(solved.converged[: self._held].all()):
                break
            largest, undone = max(largest, norm), undone + 1
            self.passes += int(solved.evaluations.sum())
            self.z = solved.x
            blocks.pop()
        if not undone:
            return {}
        front = nn.Sequential(*chain.stem, *(block.module for block in blocks))
        self.counted.network = front
        self.matching = Matching(self.counted, self.z, self._shape)
        return {"undone": float(undone), "contraction": largest}

    def _levels(
        self, name: str, start: Tensor, levels: tuple[Level, ...], lost: float | None = None
    ) -> list[Candidate]:
        """What every level leaves, each from where the one before ended; none after one above `lost`."""
        found = []
        for level in levels:
            parts = []
            for rows in self._chunks():
                solved = levenberg_marquardt(
                    self._equations(rows, level.smoothness),
                    start[rows],
                    Schedule(level.outer, level.inner),
                    box=self._box,
                )
                parts.append(solved.x)
                self.passes += int(solved.evaluations.sum())
                self._report(level.outer * len(rows))
            start = torch.cat(parts)
            found.append((f"{name}, smoothness {level.smoothness:g}", start))
            if lost is not None and self._gap(start) > lost:
                break
        return found

    def _chunks(self) -> tuple[Tensor, ...]:
        rows: tuple[Tensor, ...] = torch.arange(len(self.z), device=self.z.device).split(self._knobs.chunk)
        return rows

    def _equations(self, rows: Tensor, smoothness: float) -> Callable[[Tensor, Tensor], Tensor]:
        """Of a chunk: features that do not match yet, and roughness."""
        root = smoothness**0.5
        return lambda x, at: torch.cat([self.matching(x, rows[at]), root * roughness(x)], 1)

    def _descend(self, mean: Tensor) -> list[Candidate]:
        """What every stage of Adam leaves; of each row, over starts, the image of least feature residual."""
        knobs = self._knobs
        best = [mean] * len(knobs.descents)
        least = [torch.full((len(mean),), torch.inf, dtype=mean.dtype, device=mean.device)] * len(best)
        for start in range(knobs.starts):
            # All rows start alike: what one begins from depends on no other.
            first = mean
            if start:
                random = draws.uniform(self._shape, self._seed, "start", start).to(mean)
                first = random.expand_as(mean)
            parts = [self._adam(first[rows], rows) for rows in self._chunks()]
            for place, images in enumerate(map(torch.cat, zip(*parts, strict=True))):
                gaps = self.matching.relative(images)
                better = gaps < least[place]
                best[place] = torch.where(better[:, None, None, None], images, best[place])
                least[place] = torch.where(better, gaps, least[place])
        return [
            (f"adam, variation {d.tv_weight:g}", images)
            for d, images in zip(knobs.descents, best, strict=True)
        ]

    @torch.enable_grad()
    def _adam(self, start: Tensor, rows: Tensor) -> list[Tensor]:
        """Images after every stage."""
        x, found = start.clone().requires_grad_(), []
        for descent in self._knobs.descents:
            adam = torch.optim.Adam([x], descent.lr)
            for _ in range(descent.steps):
                losses = self.matching(x, rows).square().sum(1) + descent.tv_weight * total_variation(x)
                (x.grad,) = torch.autograd.grad(losses.sum(), x)
                adam.step()
                if self._box is not None:
                    with torch.no_grad():
                        x.clamp_(*self._box)
                self._report(len(rows))
            self.passes += 2 * descent.steps * len(rows)
            found.append(x.detach().clone())
        return found

    def _report(self, steps: int) -> None:
        self._spent += steps
        if self._progress and self._spent < self._total:
            self._progress(self._spent, self._total)

    def done(self) -> None:
        """Say so, whatever was not needed."""
        if self._progress:
            self._progress(self._total, self._total)
