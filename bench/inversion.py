"""Seconds a candidate-step of inversion against rows in the batch: ``python -m bench.inversion``.

One candidate-step is what every white-box attack here spends its time on: a latent through the prior and the
victim, the identity loss back to the latent, one step of Adam. The baseline is one row at a time, as a loop
over candidates would do it. On a CUDA device the same in bf16 with channels-last. Arithmetic is counted by
torch's own counter and set against what the device reaches in this run on a large matrix product (FLOP/s)
and on a large copy (bytes/s).
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import tasks  # noqa: F401  (its threads spin but shortly)
from mipriv import draws, plugin
from mipriv.attacks.search.identity import poincare
from mipriv.attacks.search.rows import attacked, descend
from mipriv.device import environment, place, resolve
from mipriv.models import classifiers
from mipriv.models.fold import folded
from mipriv.models.generators import Generator

ROWS = (1, 5, 60, 100, 1_000)
CLASSES = 20


def victim(arch: str, shape: tuple[int, int, int], device: torch.device) -> nn.Module:
    """An untrained victim, folded as the stage folds it: its weights change no arithmetic."""
    model = classifiers.build(plugin.load("classifier", arch), CLASSES, shape, seed=0).eval()
    return place(folded(model, shape), device)


def prior(name: str, shape: tuple[int, int, int], device: torch.device) -> Generator:
    """An unlearnt prior of the size that params.yaml has."""
    knobs = {"eigenfaces": {"components": 150}, "gan": {"width": 16, "kernel": 4}}[name]
    model: Generator = plugin.load("prior", name, **knobs).build(shape)
    return place(model.eval(), device)


def seconds(model: nn.Module, generator: Generator, rows: int, steps: int, bf16: bool) -> float:
    """Median of three runs of a candidate-step, in seconds."""
    device = next(model.parameters()).device
    labels = (torch.arange(rows) % CLASSES).to(device)
    start = generator.begin(draws.normal((rows, generator.noise_dim), "bench").to(generator.like))

    def objective(z: Tensor, chunk: Tensor, step: int) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model(generator(z))
        return poincare(logits.float(), labels[chunk.to(device)])

    def run(count: int) -> None:
        descend(
            start,
            objective,
            lambda z: torch.optim.Adam([z], 0.05),
            steps=count,
            chunk=rows,
            bound=generator.bound,
        )

    with attacked(model, generator):
        run(1)
        return _timed(lambda: run(steps), device) / steps / rows


def flops(model: nn.Module, generator: Generator) -> float:
    """Floating-point operations of one candidate-step, forward and backward, by torch's counter."""
    z = generator.begin(draws.normal((2, generator.noise_dim), "bench").to(generator.like)).requires_grad_()
    with attacked(model, generator), FlopCounterMode(display=False) as counter:
        model(generator(z)).sum().backward()
    return float(counter.get_total_flops()) / 2


def ceilings(device: torch.device) -> tuple[float, float]:
    """What the device reaches here: FLOP/s of a matrix product, bytes/s of a copy (read and written)."""
    side = 8_192 if device.type == "cuda" else 1_024
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    a = torch.randn(side, side, device=device, dtype=kind)
    product = _timed(lambda: a @ a, device)
    block = torch.empty(2**28 if device.type == "cuda" else 2**24, device=device)
    copied = _timed(lambda: block.clone(), device)
    return 2 * side**3 / product, 2 * block.numel() * block.element_size() / copied


def _timed(work: Callable[[], object], device: torch.device) -> float:
    taken = []
    for _ in range(3):
        _settle(device)
        began = time.perf_counter()
        work()
        _settle(device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> int:
    """Command line: a table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.inversion", allow_abbrev=False)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3, help="of each timed run")
    parser.add_argument("--size", type=int, default=64, help="side of the images")
    parser.add_argument("--arch", default="mobilenet_v2")
    parser.add_argument("--prior", default="eigenfaces", choices=["eigenfaces", "gan"])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device, shape = resolve(given.device), (1, given.size, given.size)
    model, generator = victim(given.arch, shape, device), prior(given.prior, shape, device)
    work, (peak, bandwidth) = flops(model, generator), ceilings(device)
    place_ = ", ".join(environment(device).values())
    print(f"{given.arch} behind {given.prior}, {given.size} px, {given.threads} thread(s); torch {place_}.")
    print(f"A candidate-step is {work / 1e6:.0f} MFLOP; a matrix product reaches {peak / 1e9:.0f} GFLOP/s,")
    print(f"a copy {bandwidth / 1e9:.1f} GB/s.\n")
    kinds = (False, True) if device.type == "cuda" else (False,)
    print("| rows | precision | ms a candidate-step | against one row at a time | of the product's FLOP/s |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for bf16 in kinds:
        alone = seconds(model, generator, 1, given.steps, bf16)
        for rows in ROWS:
            steps = max(1, given.steps * 60 // max(60, rows))  # a large batch takes long enough as it is
            took = alone if rows == 1 else seconds(model, generator, rows, steps, bf16)
            share = 100 * work / took / peak
            name = "bf16" if bf16 else "fp32"
            print(f"| {rows} | {name} | {1e3 * took:.3f} | {alone / took:.2f} | {share:.0f}% |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
