"""Inversion of residual features: solvers against each other in one run: ``python -m bench.peel``.

First table: identity blocks x + W_2 relu(W_1 x) of a ResNet-18 at its initial weights, as in the released
scripts of PEEL, each from what it gives in truth: the published penalty method against the fixed point.

Second table: the first test images of CIFAR-10 from a trained ResNet-20 (of MIPRIV_DATA/cifar10; left out
where that is not there), observed after each stage: every solver, honest chains alone. Seconds are of all
images together over their number, and of images one by one.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import tasks  # noqa: F401  (its threads spin but shortly)
from mipriv import draws, plugin, stats
from mipriv.attacks.reconstruction import Knowledge, Recovered, Sender
from mipriv.attacks.reconstruction.peel import PEEL
from mipriv.attacks.search import blockwise
from mipriv.attacks.search.blockwise import Penalty
from mipriv.device import environment, resolve
from mipriv.metrics.reconstruction import psnr
from mipriv.models import classifiers
from mipriv.models.chain import Residual
from mipriv.models.classifiers import Normalise
from mipriv.models.fold import folded
from mipriv.models.split import split

SHAPE = (3, 32, 32)
WIDTHS = ((64, 32), (128, 16), (256, 8), (512, 4))  # channels and side of ResNet-18's stages at 64 pixels
SOLVERS = ("levenberg_marquardt", "adam", "adam_levenberg_marquardt", "auto", "penalty")


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


def attack(
    client: nn.Module, truth: Tensor, known: Knowledge, solver: str, **knobs: object
) -> tuple[Recovered, float]:
    """What a solver recovers, and its seconds."""
    with torch.no_grad():
        observed = client(truth)[:, None]
    sender = Sender(client, lambda features, _: features)
    peel = PEEL(solver=solver, **knobs)  # type: ignore[arg-type]
    found: list[Recovered] = []

    def work() -> Tensor:
        found.append(peel(sender, known, observed, seed=0))
        return found[0].images

    _, seconds = timed(work, truth.device)
    return found[0], seconds


def stages(folder: Path, count: int, alone: int, wanted: list[str], device: torch.device) -> None:
    """The second table."""
    model, truth = resnet20(folder).to(device), images(folder, 0, count, device)
    known = Knowledge(images(folder, 1000, 64, device), images(folder, 1100, 16, device), True)
    figures = "PSNR: median [95%], 10th percentile | relative feature residual | s, together | s, one by one"
    print(f"| stage | solver | {figures} |")
    print("| --- | --- | --- | ---: | ---: | ---: |")
    for stage in (1, 2, 3):
        client = split(model, f"trunk.stage{stage}", SHAPE).client
        grey = psnr(torch.full_like(truth, 0.5), truth)
        mean = psnr(known.training.mean(0).expand_as(truth), truth)
        for name, values in (("grey", grey), ("mean image", mean)):
            print(f"| {stage} | {name} | {spelt(values)} | | | |", flush=True)
        for solver in wanted:
            found, seconds = attack(client, truth, known, solver)
            single = sum(attack(client, truth[i : i + 1], known, solver)[1] for i in range(alone))
            with torch.no_grad():
                features, observed = client(found.images).flatten(1), client(truth).flatten(1)
            gap = ((features - observed).norm(dim=1) / observed.norm(dim=1)).median()
            label = (
                f"{solver}: {found.notes['solver']}" if solver != "penalty" else str(found.notes["solver"])
            )
            each = f"{single / alone:.2f}" if alone else ""
            values = psnr(found.images, truth)
            print(
                f"| {stage} | {label} | {spelt(values)} | {gap:.1e} | {seconds / count:.2f} | {each} |",
                flush=True,
            )


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
    parser.add_argument("--alone", type=int, default=3, help="of them also solved one by one, for the time")
    parser.add_argument("--solvers", nargs="+", choices=SOLVERS, default=list(SOLVERS))
    parser.add_argument("--steps", type=int, default=1000, help="of the penalty method on identity blocks")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = resolve(given.device)
    print(f"{given.threads} thread(s); torch {', '.join(environment(device).values())}.\n")
    blocks(given.steps, device)
    folder = Path(os.environ.get("MIPRIV_DATA", "")) / "cifar10"
    if not (folder / "resnet20_akamaster.safetensors").is_file():
        print("\nMIPRIV_DATA/cifar10 is not there: no table of trained networks")
        return 0
    print()
    stages(folder, given.images, given.alone, given.solvers, device)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
