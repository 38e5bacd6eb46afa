"""What CEM adds to a training step, and k-means over all classes against a loop: ``python -m bench.cem``.

Each table's variants take turns in one process, so that what else the machine does meets them alike: a ratio
is that of two neighbours, and the figure is the median over the turns with a distribution-free 95% interval.
A training step is forward, loss, backward and SGD of a split network whose cut sends 8 channels, on one batch
again and again. The baselines are the same host without CEM, CEM with a second backward pass through
the client, as published, and k-means of the same algorithm one class at a time.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

import tasks  # noqa: F401  (its threads spin but shortly)
from mipriv import draws, plugin
from mipriv.analysis import cells
from mipriv.defenses import Batch, Defense
from mipriv.defenses.cem import CEM
from mipriv.device import environment, place, resolve
from mipriv.models.split_classifier import SplitClassifier, build
from mipriv.training import released

# Classes and sides of images: growth with classes first, then with features (512, 1152, 2048).
STEPS = ((10, 32), (100, 32), (530, 32), (100, 48), (100, 64))
# Classes, images and features of k-means.
FITS = ((10, 50_000, 512), (100, 50_000, 512), (530, 43_000, 1152))
WIDTHS = (64, 128, 256, 512)  # of slim_vgg, which has no more by itself
BOTTLENECK = "noRELU_C8S1"
LEAST = 6  # turns of which the median has an interval at 95%


@dataclass
class Noisy(Defense):
    """The host: plain training behind noise.

    Attributes:
        sigma: standard deviation of the noise.
        silent: its loss is 0, so that what is left of CEM's is the term that CEM adds.
    """

    sigma: float = 0.025
    silent: bool = False

    def loss(self, batch: Batch, step: int) -> Tensor:
        """See `Defense.loss`."""
        return batch.logits.new_zeros(()) if self.silent else super().loss(batch, step)


@dataclass(frozen=True)
class Bench:
    """A split network with a batch of its own."""

    model: SplitClassifier
    images: Tensor
    labels: Tensor
    optimizer: torch.optim.Optimizer

    @classmethod
    def make(cls, arch: str, cut: str, classes: int, side: int, batch: int, device: torch.device) -> "Bench":
        """Untrained, in training mode: its weights change no arithmetic."""
        shape = (3, side, side)
        whole = plugin.load("classifier", arch, **({"widths": WIDTHS} if arch == "slim_vgg" else {}))
        model = place(build(whole, classes, shape, cut, BOTTLENECK, seed=0), device).train()
        images = draws.uniform((batch, *shape), "bench").float().to(device)
        labels = torch.randint(classes, (batch,), generator=draws.generator("labels")).to(device)
        return cls(model, images, labels, torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9))

    def step(self, plan: Defense, apart: CEM | None = None) -> None:
        """One training step; with `apart`, its term in a backward pass of its own."""
        with released(self.model, plan, "release"):
            logits = self.model(self.images)
        batch = Batch(self.images, self.labels, logits, 1, 2, *self.model.take())
        self.optimizer.zero_grad(set_to_none=True)
        plan.loss(batch, 0).backward(retain_graph=apart is not None)
        if apart is not None:
            apart.loss(batch, 0).backward()
        self.optimizer.step()

    def fitted(self, silent: bool) -> CEM:
        """CEM with cells of features that were drawn: 20 images a class."""
        plan, classes, width = CEM(Noisy(silent=silent)), self.model.num_classes, self.model.width
        plan.prepare(self.model, tuple(self.images.shape[1:]))  # type: ignore[arg-type]
        labels = torch.arange(20 * classes, device=self.images.device) % classes
        features = torch.rand(len(labels), width, generator=draws.generator("features")).to(self.images)
        none = features.new_zeros(len(labels), classes)
        plan.loss(Batch(none, labels, none, 0, 2, features, features), 0)
        plan.after_epoch(self.model, 0)
        return plan


def turns(works: list[Callable[[], object]], count: int, device: torch.device) -> list[list[float]]:
    """Seconds of each work in each of `count` turns, [works][turns], after one that is not counted."""
    taken: list[list[float]] = [[] for _ in works]
    for turn in range(count + 1):
        for i in range(len(works)):
            at = (i + turn) % len(works)  # none is always the first
            _settle(device)
            began = time.perf_counter()
            works[at]()
            _settle(device)
            if turn:
                taken[at].append(time.perf_counter() - began)
    return taken


def ratio(of: list[float], to: list[float]) -> str:
    """Median of the turns' ratios with the interval of order statistics (of a sign test), as text."""
    ratios = sorted(a / b for a, b in zip(of, to, strict=True))
    beyond = int(stats.binom.ppf(0.025, len(ratios), 0.5))
    low, high = ratios[beyond - 1], ratios[len(ratios) - beyond]
    return f"{statistics.median(ratios):.3f} [{low:.3f}, {high:.3f}]"


def step_row(bench: Bench, count: int) -> str:
    """A line of the table of training steps."""
    plain, ours, apart = Noisy(), bench.fitted(False), bench.fitted(True)
    device = bench.images.device
    works: list[Callable[[], object]] = [
        lambda: bench.step(plain),
        lambda: bench.step(ours),
        lambda: bench.step(plain, apart),
    ]
    host, once, twice = turns(works, count, device)
    cost = f"{1e3 * statistics.median(host):.1f} | {ratio(once, host)} | {ratio(twice, host)}"
    return f"| {bench.model.num_classes} | {bench.model.width} | {cost} |"


def fit_row(classes: int, images: int, width: int, count: int, device: torch.device) -> str:
    """A line of the table of k-means, five cells a class."""
    features = torch.rand(images, width, generator=draws.generator("features")).to(device)
    labels = torch.randint(classes, (images,), generator=draws.generator("labels")).to(device)

    def together() -> object:
        return cells.fit(features, labels, classes, 5, "bench")

    def one_by_one() -> None:
        for c in range(classes):
            own = features[labels == c]
            cells.fit(own, labels.new_zeros(len(own)), 1, 5, "bench")

    batched, loop = turns([together, one_by_one], count, device)
    middle = f"{statistics.median(batched):.2f} | {statistics.median(loop):.2f} | {ratio(loop, batched)}"
    return f"| {classes} | {images} | {width} | {middle} |"


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> int:
    """Command line: two tables in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.cem", allow_abbrev=False)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=15, help=f"of each table, from {LEAST}")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--arch", default="slim_vgg")
    parser.add_argument("--cut", default="trunk.conv2")
    parser.add_argument("--quick", action="store_true", help="small batches and few images: does it run?")
    given = parser.parse_args()
    if given.turns < LEAST:
        parser.error(f"--turns: {given.turns}; allowed: from {LEAST}")
    torch.set_num_threads(given.threads)
    device, count = resolve(given.device), LEAST if given.quick else given.turns
    batch, fewer = (4, 50) if given.quick else (given.batch, 1)
    about = f"{given.arch} cut at {given.cut}, {BOTTLENECK}, batch {batch}, {given.threads} thread(s)"
    print(f"{about}; torch {', '.join(environment(device).values())}.\n")
    print(
        "| classes | features | ms a step of the host | with CEM, to it | with two backward passes, to it |"
    )
    print("| ---: | ---: | ---: | ---: | ---: |")
    for classes, side in STEPS:
        bench = Bench.make(given.arch, given.cut, classes, side, batch, device)
        print(step_row(bench, count), flush=True)
    print("\n| classes | images | features | s, k-means at once | s, class by class | loop to at once |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for classes, images, width in FITS:
        print(fit_row(classes, images // fewer, width, LEAST, device), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
