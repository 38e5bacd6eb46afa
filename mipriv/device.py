"""Where work runs, and what to record about it: figures pair only if they were made alike."""

import platform
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from mipriv.errors import InputError

M = TypeVar("M", bound=nn.Module)


def resolve(device: str) -> torch.device:
    """The device behind `auto` (CUDA where there is one, else the CPU), `cpu`, `cuda` or `cuda:N`.

    Raises:
        InputError: a CUDA device that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = torch.device(device)
    count = torch.cuda.device_count()
    if found.type == "cuda" and (found.index or 0) >= count:
        raise InputError(
            f"device: {device!r} is not there; allowed: auto, cpu, or one of {count} CUDA devices"
        )
    return found


def place(model: M, device: torch.device) -> M:
    """The model on a device, its weights channels-last, for faster convolutions on CPU and CUDA."""
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def environment(device: torch.device) -> dict[str, str]:
    """What the bytes of a result depend on beside its parameters: library, processor, instruction set."""
    if device.type == "cuda":
        processor = torch.cuda.get_device_name(device)
    else:
        processor = f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}"
    return {"torch": torch.__version__.split("+")[0], "device": device.type, "processor": processor}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()
