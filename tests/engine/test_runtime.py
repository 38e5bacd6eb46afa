"""What a process settles before its work: threads, lean optimisers, memory kept, small pieces at once."""

import json
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.engine import runtime

TRAINING = """
import json, sys
import tasks, torch
from tasks.engine import runtime
if sys.argv[1] == "settled":
    runtime.settle(1)
    runtime.settle(1)
torch.manual_seed(0)
layer = torch.nn.Linear(5, 3)
kinds = [(torch.optim.Adam, {"amsgrad": True, "weight_decay": 0.1}), (torch.optim.SGD, {"momentum": 0.9})]
for kind, knobs in kinds:
    optimizer = kind(layer.parameters(), 0.01, **knobs)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 9)
    for _ in range(4):
        optimizer.zero_grad()
        layer(torch.ones(2, 5)).square().sum().backward()
        optimizer.step()
        falling.step()
assert layer.weight.grad_fn is None
print(json.dumps({"weights": layer.weight.tolist(), "compiler": "torch._dynamo" in sys.modules}))
"""


# Steps that make eight megabytes ten times and let them go, as those of training do; prints how many pages
# the system had to clear for them.
STEPS = """
import json, resource, sys
import torch
from tasks.engine import runtime
if sys.argv[1] == "settled":
    runtime.settle(1)
start = torch.ones(2**21)
def step():
    kept = [start]
    for _ in range(10):
        kept.append(kept[-1] + 1)
for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(json.dumps({"pages": resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before}))
"""


# NumPy's products, whose threads no variable reaches once it is loaded.
PRODUCTS = """
import json, os, sys
os.environ["OPENBLAS_NUM_THREADS"] = "2"  # as on two processors, wherever this runs
import numpy
from threadpoolctl import threadpool_info
from tasks.engine import runtime
if sys.argv[1] == "settled":
    runtime.settle(1)
print(json.dumps({"threads": [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]}))
"""


# glibc moves its own limits by what a process frees, so that what it keeps hangs on where blocks happen to
# lie: with a fixed limit every block of these steps is mapped by itself and given back.
GIVING_BACK = {"GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={2**20}"}


def printed(program: str, how: str, **variables: str) -> dict[str, Any]:
    root, environment = Path(runtime.__file__).parents[2], os.environ | variables
    command = [sys.executable, "-c", program, how]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_memory_of_tensors_that_are_gone_is_used_again() -> None:
    plain, settled = (printed(STEPS, how, **GIVING_BACK)["pages"] for how in ("plain", "settled"))
    assert plain > 150 * 2048, "glibc no longer gives it back: settle need not keep it"
    assert settled < 10 * 2048  # a few blocks that lay elsewhere


def test_optimisers_do_the_same_without_the_compiler() -> None:
    plain, settled = printed(TRAINING, "plain"), printed(TRAINING, "settled")
    assert settled["weights"] == plain["weights"]
    assert plain["compiler"], "torch no longer imports it: settle need not spare it"
    assert not settled["compiler"]


def test_products_of_numpy_have_as_many_threads_as_the_stage() -> None:
    assert set(printed(PRODUCTS, "plain")["threads"]) == {2}
    assert set(printed(PRODUCTS, "settled")["threads"]) == {1}


def test_pieces_are_worked_on_side_by_side_with_a_thread_each() -> None:
    before, both = torch.get_num_threads(), threading.Barrier(2, timeout=60)

    def work(item: int) -> tuple[int, int]:
        both.wait()  # passes only where two are at work
        time.sleep(0.02 * (item % 2))
        return item, torch.get_num_threads()

    torch.set_num_threads(2)
    try:
        assert runtime.side_by_side(work, range(6)) == [(item, 1) for item in range(6)]
        with pytest.raises(ZeroDivisionError):
            runtime.side_by_side(lambda item: 1 / item, [1, 0])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
