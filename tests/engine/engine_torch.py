"""Cells that compute with torch, and tell how."""

import json
import os
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import save_file

import mipriv
import tasks
from tasks.engine import runtime


def numbers(out: Path, inputs: dict[str, Path], progress: Any, events: Any, seed: int) -> None:
    """Convolution, product, decomposition and a few steps of training, large enough to share threads."""
    draws = torch.Generator().manual_seed(seed)
    images, weights = (torch.randn(shape, generator=draws) for shape in ((16, 8, 33, 33), (24, 8, 3, 3)))
    weights.requires_grad_()
    for _ in range(3):
        features = torch.conv2d(images, weights).relu().mean((2, 3))
        (gradient,) = torch.autograd.grad((features @ features.T).logsumexp(1).sum(), weights)
        weights = (weights - 0.01 * gradient).detach().requires_grad_()
    matrix = torch.randn(257, 509, generator=draws)
    values, vectors = torch.linalg.eigh(matrix @ matrix.T)
    save_file(
        {"weights": weights.detach(), "values": values, "vectors": vectors.contiguous()},
        out / "numbers.safetensors",
    )


def facts(out: Path, inputs: dict[str, Path], progress: Any, events: Any, seed: int) -> None:
    """Facts of the process."""
    names = ("MIPRIV_DATA", *runtime.VARIABLES)
    found = {
        "parent": psutil.Process().parent().name(),
        "folder": str(Path.cwd()),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "sources": [mipriv.__path__[0], tasks.__path__[0]],
        "environment": {name: os.environ.get(name) for name in names},
    }
    (out / "facts.json").write_text(json.dumps(found))
