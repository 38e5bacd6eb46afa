"""What tests of defences share: knobs that suit toy networks, and what every defence is held to."""

from typing import Any

import torch
from torch import nn

from mipriv.models.classifiers.slim_resnet import SlimResNet
from mipriv.models.split_classifier import SplitClassifier
from mipriv.models.split_classifier import build as build_split
from mipriv.training import Pair, Recipe

SHAPE, KNOBS = (1, 16, 16), {"widths": (4, 8), "depth": 1}
RECIPE = Recipe(epochs=2, batch_size=6, optimizer="adam", lr=3e-3, select="last")
LAYERS = ("trunk.stage1", "trunk.stage2")
CUT = "trunk.stage1"

# Defences of whole networks. A new one adds a line here or below.
SMALL: dict[str, dict[str, Any]] = {
    "bido": {"layers": LAYERS},
    "label_smoothing": {},
    "mid": {"dim": 3},
    "none": {},
    "tl_dmi": {"cut": "trunk.stage1"},
}
# Defences of split networks.
SPLIT: dict[str, dict[str, Any]] = {
    "adversarial": {"width": 2},
    "bottleneck": {"shape": "noRELU_C2S1"},
    "dropout": {},
    "info_bottleneck": {"sigma": 0.1},
    "noise": {"sigma": 0.1},
    "nopeek": {},
    "none": {"sigma": 0.1},
    "partitioning": {
        "attribute_weight": 0.0,
        "image_weight": 0.5,
        "width": 2,
        "warmup": 0,
        "meeting": 1,
        "ramp": 0,
    },
    "patrol": {"width": 2, "prune": 0.2, "prune_epoch": 0},
}


def bright() -> Pair:
    """Three classes told apart by brightness."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(7)
    return (labels.view(-1, 1, 1, 1) / 3 + 0.2 * torch.rand(21, *SHAPE, generator=random)), labels


def parties(seed: int = 0) -> SplitClassifier:
    """Features [4, 8, 8] behind a residual stage."""
    return build_split(SlimResNet(**KNOBS), 3, SHAPE, CUT, None, seed)  # type: ignore[arg-type]


def equal(one: nn.Module, two: nn.Module) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def hooks(model: nn.Module) -> int:
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()
    )
