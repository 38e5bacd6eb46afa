"""Inputs of residual networks from their features, by the solver that the regime asks for.

The subject is PEEL's (Arif et al., "PEEL the Layers and Find Yourself", SaTML 2025), the unknown is another:
the image itself instead of every block's features, and with it far fewer unknowns than equations.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from mipriv.attacks.reconstruction import Access, Client, Knowledge, Progress, Recovered, opened
from mipriv.attacks.search import blockwise
from mipriv.attacks.search.blockwise import Penalty
from mipriv.attacks.search.channel import measured
from mipriv.attacks.search.latents import at_least_one
from mipriv.attacks.search.matching import deterministic
from mipriv.attacks.search.pixels import gaussian
from mipriv.attacks.search.releases import Releases
from mipriv.attacks.search.stages import Candidate, Counted, Descent, Level, Posterior, Stages
from mipriv.errors import InputError
from mipriv.models.chain import Chain
from mipriv.plugin import one_of

SOLVERS = ("auto", "levenberg_marquardt", "adam", "adam_levenberg_marquardt", "penalty")
CONTRACTS = 0.95  # the largest Jacobian norm with which a fixed point is iterated


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
      Of a release that draws noise, first the mean of the attacker's images itself, and the most probable
      image under the Gaussian of those images and the noise as measured: with r releases of noise variance s
      the minimum of r/(2s) |network(x) - z|^2 + 1/2 |u|^2 in whitened coordinates u of x. Where noise alone
      leaves more than `met` of the features nothing else is tried.

    What was recovered after every stage is a candidate, and the one of least error on the attacker's
    validation images, which are attacked along with the targets, is taken and named in `notes`, beside the
    `passes` over the network that an image took. A defence's noise thus ends the search in time. What a
    release does to features on average, as dropout does, is taken to be a factor, measured like the noise on
    the attacker's images; see `Channel`.

    Attributes:
        solver: see above.
        levels: of `levenberg_marquardt`.
        descents: of `adam`.
        polish: levels that follow on `adam`.
        starts: of `adam`.
        posterior: of the most probable image.
        met, near, lost: relative feature residuals, the median over validation images: at `met` `auto` looks
            no further, from `near` it goes on from Adam's images, above `lost` it gives up what begins at
            the mean.
        memory, iterations, tolerance: of the fixed point; see `anderson`.
        penalty: published constants.
        oracle_reset: `penalty` as released: each block's target is what the network computed in truth. No
            attack, as nobody who needs one knows that.
        selection: validation images, at most.
        chunk: most rows in memory together; on a CPU more than 16 are no faster, and one by one is slower.
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
    posterior: Posterior = field(default_factory=Posterior)
    met: float = 1e-2
    near: float = 0.05
    lost: float = 0.4
    memory: int = 5
    iterations: int = 60
    tolerance: float = 1e-6
    penalty: Penalty = field(default_factory=Penalty)
    oracle_reset: bool = False
    selection: int = 8
    chunk: int = 16

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
            gap = run.stages.matching.relative(images[: len(held)]).median().item()
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
            {"solver": name, **notes, "passes": round(run.stages.passes / len(run.stages.z))},
        )


class _Run:
    """Candidates for validation images and targets together, [v + n, C, H, W]."""

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
        self._shape, self._held = tuple(held.shape[1:]), held
        self._training = known.training.to(held)
        self.counted = Counted(network)
        z = torch.cat([asked.mean(held), asked.targets])
        self._channel = measured(asked, self.counted, known.training)
        self._noise = self._channel.noise / asked.repeats
        self.stages = Stages(
            self._channel.through(self.counted),
            z,
            self._shape,
            box=(0.0, 1.0) if known.bounded else None,
            held=len(held),
            chunk=knobs.chunk,
            report=self._report,
        )
        rows = len(z)
        steps = sum(level.outer for level in (*knobs.levels, *knobs.polish))
        steps += sum(d.steps for d in knobs.descents) * knobs.starts
        if knobs.solver == "auto" and self._channel.random:
            steps = knobs.posterior.outer + (0 if self._drowned() else steps)
        self._total = max(1, steps * rows)
        self._spent = 0

    def penalty(self, truth: Tensor | None) -> tuple[list[Candidate], dict[str, str | float]]:
        """The published method; the only candidate."""
        knobs = self._knobs
        chain = Chain.of(self.counted.network)
        given = self._given(chain, truth) if knobs.oracle_reset else None
        self._total = len(chain.blocks) * knobs.penalty.steps + knobs.penalty.stem_steps
        z = self.stages.z
        self.stages.passes = 2 * self._total * len(z)  # each over one block
        images = blockwise.penalty(
            chain, z, self._shape, knobs.penalty, self._seed, truth=given, report=self._report
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
        x = torch.cat([self._held, truth.to(self._held)])
        for layer in chain.stem:
            x = layer(x)
        found = []
        for block in chain.blocks:
            found.append(x)
            x = block.module(x)
        return found

    def search(self) -> tuple[list[Candidate], dict[str, str | float]]:
        """Candidates of the solver, cheap ones first, and what was noted on the way."""
        knobs, stages, lazy = self._knobs, self.stages, self._knobs.solver == "auto"
        notes = self._undo() if lazy else {}
        mean = self._training.mean(0).expand(len(stages.z), *self._shape)
        found: list[Candidate] = []
        if lazy and self._channel.random:
            prior = gaussian(self._training)
            found += [("mean image", mean), stages.most_probable(prior, self._noise, knobs.posterior)]
            if self._drowned():
                return found, notes
        if lazy or knobs.solver == "levenberg_marquardt":
            found += stages.levels("levenberg_marquardt", mean, knobs.levels, knobs.lost if lazy else None)
            if lazy and self._channel.exact and stages.gap(found[-1][1]) <= knobs.met:
                return found, notes
        if knobs.solver != "levenberg_marquardt":
            found += stages.descend(mean, knobs.descents, knobs.starts, self._seed)
            if knobs.solver == "adam_levenberg_marquardt" or (
                lazy and stages.gap(found[-1][1]) <= knobs.near
            ):
                found += stages.levels("adam, levenberg_marquardt", found[-1][1], knobs.polish)
        return found, notes

    def _drowned(self) -> bool:
        """Whether noise alone leaves more of the validation images' features than `met`."""
        norms = self.stages.matching.unit[: len(self._held), 0]
        noise = (self._noise * self.stages.z[0].numel()) ** 0.5
        return float((noise / norms).median()) > self._knobs.met

    def _undo(self) -> dict[str, str | float]:
        """Undo closing blocks whose branch contracts; what is left is matched from then on."""
        knobs, z, largest, undone = self._knobs, self.stages.z, 0.0, 0
        try:
            chain = Chain.of(self.counted.network)
        except InputError:  # no residual network: the image is searched for all the same
            return {}
        blocks = list(chain.blocks)
        while (
            blocks and not chain.tail and self._channel.exact and blocks[-1].identity and not blocks[-1].relu
        ):
            norm = float(blockwise.contraction(blocks[-1], z[: len(self._held)], self._seed).max())
            if norm >= CONTRACTS:
                break
            solved = blockwise.fixed_point(
                blocks[-1],
                z,
                memory=knobs.memory,
                iterations=knobs.iterations,
                tolerance=knobs.tolerance,
            )
            if not bool(solved.converged[: len(self._held)].all()):
                break
            largest, undone = max(largest, norm), undone + 1
            self.stages.passes += int(solved.evaluations.sum())
            z = solved.x
            blocks.pop()
        if not undone:
            return {}
        self.counted.network = nn.Sequential(*chain.stem, *(block.module for block in blocks))
        self.stages.observe(self.counted, z)
        return {"undone": float(undone), "contraction": largest}

    def _report(self, steps: int) -> None:
        self._spent += steps
        if self._progress and self._spent < self._total:
            self._progress(self._spent, self._total)

    def done(self) -> None:
        """Say so, whatever was not needed."""
        if self._progress:
            self._progress(self._total, self._total)
