"""Residual networks inverted block by block, from the last to the first.

PEEL (Arif et al., "PEEL the Layers and Find Yourself: Revisiting Inference-Time Data Leakage for Residual
Neural Networks", SaTML 2025) for `penalty`; `fixed_point` is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mipriv import draws
from mipriv.errors import InputError
from mipriv.models.chain import Chain, Residual
from mipriv.solvers import Solved
from mipriv.solvers.anderson import anderson
from mipriv.solvers.jacobian import Linearised, norm

START = 1e-3  # standard deviation of the unknowns at the start
Report = Callable[[int], None]


@dataclass(frozen=True)
class Penalty:
    """The published constants.

    Attributes:
        weight: of both penalties, lambda_1 and lambda_2.
        lr: of Adam.
        steps: a block.
        stem_steps: of the layers in front of the first block.
        smoothness: of both priors on the image.
    """

    weight: float = 100.0
    lr: float = 0.01
    steps: int = 1000
    stem_steps: int = 500
    smoothness: float = 1e-5


def contraction(block: Residual, at: Tensor, seed: int, iterations: int = 10) -> Tensor:
    """[n], from below the norm of the Jacobian of F at features; where it is below 1, F contracts nearby."""
    start = torch.stack([draws.normal(at.shape[1:], seed, "contraction")] * len(at)).to(at)
    return norm(Linearised(block.branch, at), start, iterations)


def fixed_point(block: Residual, y: Tensor, *, memory: int, iterations: int, tolerance: float) -> Solved:
    """x of y = x + F(x) as the fixed point of y - F(x).

    Raises:
        InputError: the block's shortcut is not the identity, or a ReLU follows its sum.
    """
    if not block.identity or block.relu:
        what = "its sum passes a ReLU" if block.relu else "its shortcut changes shapes"
        raise InputError(f"block {block.name!r}: {what}; allowed: x + F(x) alone")
    with torch.no_grad():
        return anderson(
            lambda x, at: y[at] - block.branch(x),
            y,
            memory=memory,
            iterations=iterations,
            tolerance=tolerance,
        )


def penalty(
    chain: Chain,
    observed: Tensor,
    image_shape: tuple[int, ...],
    knobs: Penalty,
    seed: int,
    *,
    truth: list[Tensor] | None = None,
    report: Report | None = None,
) -> Tensor:
    """Images [n, C, H, W] by the published method, every block from what the one behind it left.

    Of a block with ReLU, p - n = W_1 x splits what comes in; minimised is |y - S x - W_2 p|^2 + weight
    |W_1 x - p + n|^2 + weight <n, p>^2 over x, p, n with p, n >= 0; with PReLU |y - S x - W_2 phi(W_1 x)|^2.
    As published, a ReLU behind the sum is not known of.

    Args:
        chain: without layers behind the last block.
        observed: [n, ...], what the last block gives.
        image_shape: (C, H, W).
        knobs: see `Penalty`.
        seed: of the start; every row starts alike.
        truth: what each block is given in truth, [n, ...], in order: as released, the target of a block is
            what the network really computed, so that nothing of the blocks behind it matters. None: the
            honest chain.
        report: called after each step with 1.

    Raises:
        InputError: a chain with layers behind its blocks, or with blocks of more than two layers.
    """
    if chain.tail:
        raise InputError(
            f"penalty: {len(chain.tail)} layers behind the last block; allowed: a cut at a block"
        )
    for block in chain.blocks:
        if len(block.affine) != 2:
            raise InputError(f"penalty: {block.name!r} has {len(block.affine)} layers; allowed: basic blocks")
    shapes = _shapes(chain, image_shape, observed)
    y = observed
    for i in reversed(range(len(chain.blocks))):
        block = chain.blocks[i]
        solve = _split if isinstance(block.activations[0], nn.ReLU) else _direct
        y = solve(block, y, shapes[i], knobs, draws.generator(seed, "penalty", i), report)
        if truth is not None:
            y = truth[i]
    return _stem(chain.stem, y, image_shape, knobs, draws.generator(seed, "penalty", "stem"), report)


def _shapes(chain: Chain, image_shape: tuple[int, ...], like: Tensor) -> list[tuple[int, ...]]:
    """Of what every block is given."""
    x, found = torch.zeros(1, *image_shape, dtype=like.dtype, device=like.device), []
    with torch.no_grad():
        for layer in chain.stem:
            x = layer(x)
        for block in chain.blocks:
            found.append(tuple(x.shape[1:]))
            x = block.module(x)
    return found


def _start(shape: tuple[int, ...], like: Tensor, random: torch.Generator) -> Tensor:
    one = torch.randn(1, *shape, generator=random, dtype=torch.float64).to(like) * START
    return one.expand(len(like), *shape).clone()


def _split(
    block: Residual,
    y: Tensor,
    shape: tuple[int, ...],
    knobs: Penalty,
    random: torch.Generator,
    report: Report | None,
) -> Tensor:
    """A block with ReLU."""
    x = _start(shape, y, random)
    with torch.no_grad():
        inner = tuple(block.affine[0](x[:1]).shape[1:])
    p, n = _start(inner, y, random), _start(inner, y, random)

    def losses(x: Tensor, p: Tensor, n: Tensor) -> Tensor:
        first = (y - block.shortcut(x) - block.affine[1](p)).square().flatten(1).sum(1)
        second = (block.affine[0](x) - p + n).square().flatten(1).sum(1)
        both: Tensor = (n * p).flatten(1).sum(1).square()
        total: Tensor = first + knobs.weight * second + knobs.weight * both
        return total

    return _adam([x, p, n], losses, knobs.lr, knobs.steps, (p, n), report)[0]


def _direct(
    block: Residual,
    y: Tensor,
    shape: tuple[int, ...],
    knobs: Penalty,
    random: torch.Generator,
    report: Report | None,
) -> Tensor:
    """A block with an activation that can be inverted."""

    def losses(x: Tensor) -> Tensor:
        gaps: Tensor = (y - block.shortcut(x) - block.branch(x)).square()
        return gaps.flatten(1).sum(1)

    return _adam([_start(shape, y, random)], losses, knobs.lr, knobs.steps, (), report)[0]


def _stem(
    layers: tuple[nn.Module, ...],
    y: Tensor,
    image_shape: tuple[int, ...],
    knobs: Penalty,
    random: torch.Generator,
    report: Report | None,
) -> Tensor:
    """Images by |stem(x) - y|^2 / |y|^2 + smoothness (|x|_6^6 + TV_2(x)), x from -1 to 1."""
    unit = y.square().flatten(1).sum(1).clamp(min=torch.finfo(y.dtype).tiny)

    def losses(x: Tensor) -> Tensor:
        there = (x + 1) / 2
        for layer in layers:
            there = layer(there)
        gap = (there - y).square().flatten(1).sum(1) / unit
        rough = sum(x.diff(dim=d).square().flatten(1).sum(1) for d in (2, 3))
        return gap + knobs.smoothness * (x.pow(6).flatten(1).sum(1) + rough)

    start = _start(image_shape, y, random)
    (x,) = _adam([start], losses, knobs.lr, knobs.stem_steps, (), report)
    return ((x + 1) / 2).clamp(0, 1)


@torch.enable_grad()
def _adam(
    unknowns: list[Tensor],
    losses: Callable[..., Tensor],
    lr: float,
    steps: int,
    above_zero: tuple[Tensor, ...],
    report: Report | None,
) -> list[Tensor]:
    for unknown in unknowns:
        unknown.requires_grad_()
    adam = torch.optim.Adam(unknowns, lr)
    for _ in range(steps):
        found = torch.autograd.grad(losses(*unknowns).sum(), unknowns)
        for unknown, gradient in zip(unknowns, found, strict=True):
            unknown.grad = gradient
        adam.step()
        with torch.no_grad():
            for unknown in above_zero:
                unknown.clamp_(min=0)
        if report:
            report(1)
    return [unknown.detach() for unknown in unknowns]
