"""Inversion of residual features: solvers against each other in one run: ``python -m bench.peel``.

First table: identity blocks x + W_2 relu(W_1 x) of a ResNet-18 at its initial weights, as in the released
scripts of PEEL, each from what it gives in truth: the published penalty method against the fixed point.

Second table: the first test images of CIFAR-10 from a trained ResNet-20 (of MIPRIV_DATA/cifar10; left out
where that is not there), observed after each stage, honest chains alone: what PEEL chooses itself, Adam and
total variation for as many passes over the network, the penalty method on some images, a decoder that was
learnt on other test images. Seconds are of all images together over their number, those that PEEL
selects by included, and of PEEL with one row in memory at a time; those of the processor in brackets,
since others may share the machine.

Adam for comparison has one weak total variation, as usual (weights 1e-4 and 1e-5), where PEEL's own begins
with a strong one.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import tasks  # noqa: F401  (its threads spin but shortly)
from mipriv import draws, plugin, stats
from mipriv.attacks.reconstruction import Knowledge, Recovered, Sender
from mipriv.attacks.reconstruction.decoder import Decoder
from mipriv.attacks.reconstruction.peel import PEEL
from mipriv.attacks.search import blockwise
from mipriv.attacks.search.blockwise import Penalty
from mipriv.attacks.search.stages import Descent
from mipriv.device import environment, resolve
from mipriv.metrics.reconstruction import psnr, ssim
from mipriv.models import classifiers
from mipriv.models.chain import Residual
from mipriv.models.classifiers import Normalise
from mipriv.models.fold import folded
from mipriv.models.split import split

SHAPE = (3, 32, 32)
DEEP = 3  # the stage from which Adam for as many passes is not run for comparison: it is what was chosen
WIDTHS = ((64, 32), (128, 16), (256, 8), (512, 4))  # channels and side of ResNet-18's stages at 64 pixels


def identity_block(channels: int, side: int, seed: int) -> tuple[Residual, Tensor]:
    """A block of the released scripts, and what it is given: features [2, channels, side, side]."""
    with draws.seeded(seed, "block"):
        layers = [nn.Conv2d(channels, channels, 3, 1, 1, bias=False) for _ in range(2)]
        x = torch.rand(2, channels, side, side)
    for layer in layers:
        layer.requires_grad_(False)
    affine = tuple(nn.Sequential(layer) for layer in layers)
    return Residual("block", nn.Identity(), affine, (nn.ReLU(),), nn.Identity(), relu=False), x


def timed(work: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, float]:
    """What the work returns, and its seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    found = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return found, time.perf_counter() - began


def blocks(steps: int, device: torch.device) -> None:
    """The first table."""
    print("| channels, side | norm of J | s, penalty | MSE | s, fixed point | passes | MSE | times faster |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for channels, side in WIDTHS:
        block, x = identity_block(channels, side, 0)
        for layers in block.affine:
            layers.to(device)
        x = x.to(device)
        with torch.no_grad():
            y = x + block.branch(x)
        norm = float(blockwise.contraction(block, y, 0).max())
        knobs = Penalty(steps=steps)

        def by_penalty(
            block: Residual = block, y: Tensor = y, x: Tensor = x, knobs: Penalty = knobs
        ) -> Tensor:
            random = draws.generator(0, "start")
            return blockwise._split(block, y, tuple(x.shape[1:]), knobs, random, None)

        slow, slow_s = timed(by_penalty, device)
        quick: list[float] = []
        for _ in range(5):
            began = time.perf_counter()
            solved = blockwise.fixed_point(block, y, memory=5, iterations=60, tolerance=1e-6)
            quick.append(time.perf_counter() - began)
        fast_s = statistics.median(quick)
        errors = [(found - x).square().mean().item() for found in (slow, solved.x)]
        print(
            f"| {channels}, {side} | {norm:.2f} | {slow_s / 2:.2f} | {errors[0]:.1e} | {fast_s / 2:.4f} | "
            f"{int(solved.evaluations.max())} | {errors[1]:.1e} | {slow_s / fast_s:.0f} |",
            flush=True,
        )


def resnet20(folder: Path) -> nn.Module:
    """The trained network of akamaster's repository, its normalisation folded."""
    knobs = {"widths": (16, 16, 32, 64), "strides": (1, 2, 2), "stem": 3, "shortcut": "A"}
    model = classifiers.build(plugin.load("classifier", "resnet20", **knobs), 10, SHAPE, 0)
    places = {"conv1": "trunk.stem.0", "bn1": "trunk.stem.1", "linear": "head"}
    weights = {}
    for key, value in load_file(folder / "resnet20_akamaster.safetensors").items():
        first, _, rest = key.removeprefix("module.").partition(".")
        name = places.get(first, first.replace("layer", "trunk.stage"))
        weights[f"{name}.{rest}"] = value
    model.load_state_dict(weights)
    model.normalise = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return folded(model, SHAPE)


def images(folder: Path, first: int, count: int, device: torch.device) -> Tensor:
    """[count, 3, 32, 32] in [0, 1]."""
    with np.load(folder / "cifar10_test2000.npz") as held:
        some = torch.from_numpy(held["images"][first : first + count])
    return some.permute(0, 3, 1, 2).float().div(255).contiguous().to(device)


class Bench:
    """The second table, of one stage.

    Args:
        count: images, from the first.
        few: of them the penalty method gets.
        alone: of them are also solved one by one.
        chunk: most rows in memory together.
    """

    def __init__(
        self, folder: Path, stage: int, count: int, few: int, alone: int, chunk: int, device: torch.device
    ) -> None:
        self.stage, self._few, self._alone, self._chunk = stage, few, alone, chunk
        self.client = split(resnet20(folder).to(device), f"trunk.stage{stage}", SHAPE).client
        self.truth = images(folder, 0, count, device)
        self.known = Knowledge(images(folder, 1000, 900, device), images(folder, 1900, 100, device), True)

    def run(self) -> None:
        """Print its rows."""
        mean = self.known.training.mean(0)
        for name, still in (("grey", torch.full_like(mean, 0.5)), ("mean image", mean)):
            self._row(name, still.expand_as(self.truth))
        found = self._peel("auto", len(self.truth))
        if self.stage < DEEP:
            steps = float(found.notes["passes"]) / 2
            descents = (Descent(round(0.6 * steps), 0.05, 1e-4), Descent(round(0.4 * steps), 0.02, 1e-5))
            self._peel("adam", len(self.truth), descents=descents)
        self._peel("penalty", self._few)
        decoder = Decoder(width=32, blocks=2, epochs=40, batch_size=64, lr=2e-3)
        observed = self._observed(self.truth)
        learnt, seconds = timed(
            lambda: decoder(self.client_for(), self.known, observed, seed=0).images, self.truth.device
        )
        self._row("learned decoder", learnt, each=f"{seconds / len(self.truth):.2f}")

    def client_for(self) -> Sender:
        """What an attack is handed."""
        return Sender(self.client, lambda features, _: features)

    def _observed(self, truth: Tensor) -> Tensor:
        with torch.no_grad():
            return self.client(truth)[:, None]  # type: ignore[no-any-return]

    def _peel(self, solver: str, count: int, **knobs: object) -> Recovered:
        peel = PEEL(solver=solver, chunk=self._chunk, **knobs)  # type: ignore[arg-type]
        found, each = self._solve(peel, count)
        alone = None
        if solver == "auto" and self._alone:
            _, alone = self._solve(replace(peel, chunk=1), self._alone)
        passes, how = float(found.notes["passes"]), str(found.notes["solver"])
        self._row(how if solver == "penalty" else f"{solver}: {how}", found.images, passes, each, alone)
        return found

    def _solve(self, peel: PEEL, count: int) -> tuple[Recovered, str]:
        """What it makes of the first images, and seconds a row: of the clock, and of the processor."""
        found: list[Recovered] = []

        def work() -> Tensor:
            observed = self._observed(self.truth[:count])
            found.append(peel(self.client_for(), self.known, observed, seed=0))
            return found[0].images

        began = time.process_time()
        _, seconds = timed(work, self.truth.device)
        rows, own = count + peel.selection, time.process_time() - began
        return found[0], f"{seconds / rows:.2f} ({own / rows:.2f})"

    def _row(
        self,
        name: str,
        recovered: Tensor,
        passes: float | None = None,
        each: str | None = None,
        alone: str | None = None,
    ) -> None:
        truth = self.truth[: len(recovered)]
        with torch.no_grad():
            features, observed = self.client(recovered).flatten(1), self.client(truth).flatten(1)
        gap = ((features - observed).norm(dim=1) / observed.norm(dim=1)).median()
        cells = [str(self.stage), name, str(len(truth)), spelt(psnr(recovered, truth))]
        cells += [f"{ssim(recovered, truth).median():.2f}", f"{gap:.1e}"]
        cells += ["" if passes is None else f"{passes:.0f}", each or "", alone or ""]
        print(f"| {' | '.join(cells)} |", flush=True)


def spelt(values: Tensor) -> str:
    """Median with its interval, and the tenth percentile, over images."""
    own = values[None].cpu().numpy()
    middle, tenth = (stats.quantile(own, share, groups=np.arange(own.shape[1])) for share in (0.5, 0.1))
    return f"{middle.point:.1f} [{middle.low:.1f}, {middle.high:.1f}], {tenth.point:.1f}"


def main() -> int:
    """Command line: two tables in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.peel", allow_abbrev=False)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=100, help="of CIFAR-10's test set, from the first")
    parser.add_argument("--few", type=int, default=20, help="of them the penalty method gets")
    parser.add_argument("--alone", type=int, default=2, help="of them also solved one by one, for the time")
    parser.add_argument("--stages", type=int, nargs="+", choices=(1, 2, 3), default=[1, 2, 3])
    parser.add_argument("--chunk", type=int, default=PEEL.chunk, help="most rows in memory together")
    parser.add_argument("--steps", type=int, default=1000, help="of the penalty method on identity blocks")
    given = parser.parse_args()
    if given.chunk < 1:
        parser.error(f"--chunk {given.chunk}; allowed: 1 or more")
    if min(given.images, given.few) < 2:
        parser.error(f"--images {given.images} --few {given.few}; allowed: 2 or more, for a median")
    torch.set_num_threads(given.threads)
    device = resolve(given.device)
    print(f"{given.threads} thread(s); torch {', '.join(environment(device).values())}.\n")
    blocks(given.steps, device)
    folder = Path(os.environ.get("MIPRIV_DATA", "")) / "cifar10"
    if not (folder / "resnet20_akamaster.safetensors").is_file():
        print("\nMIPRIV_DATA/cifar10 is not there: no table of trained networks")
        return 0
    figures = "PSNR: median [95%], 10th percentile | SSIM, median | relative feature residual, median"
    print(f"\n| stage | solver | n | {figures} | passes | s, together | s, one by one |")
    print("| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for stage in given.stages:
        Bench(folder, stage, given.images, given.few, given.alone, given.chunk, device).run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
