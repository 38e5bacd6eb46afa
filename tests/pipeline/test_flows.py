"""Scales, times, and the end of a whole run."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flows import scale
from tests.pipeline.conftest import ROOT, environment, run


@pytest.mark.parametrize("path", sorted((ROOT / "scales").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_scale_overrides_what_there_is_and_is_consistent(path: Path) -> None:
    from tasks.check import check

    folders = set(re.findall(r"(?:root|file|weights): \$(\w+)", path.read_text()))
    if unset := sorted(folders - os.environ.keys()):
        pytest.skip(f"{unset[0]}, the folder that this scale reads, is unset")
    yaml = YAML(typ="safe")
    values = yaml.load((ROOT / "params.yaml").read_text())
    scale.override(values, yaml.load(path.read_text()), path.name)
    check(values)


def test_an_override_of_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        scale.override({"invert": {"seed": 0}}, {"invert.sead": 1}, "scales/x.yaml")
    assert capsys.readouterr().err == "error: scales/x.yaml: 'invert.sead' is no key of params.yaml\n"


def test_an_unknown_scale_is_one_line() -> None:
    done = run(ROOT, sys.executable, "-m", "flows.scale", "smok", code=2)
    assert done.stderr.startswith("error: scale 'smok' does not exist; allowed: ") and "smoke" in done.stderr


def test_times_are_those_of_the_events(smoke: Path) -> None:
    table = run(smoke, sys.executable, "-m", "flows.times").stdout
    last = json.loads((smoke / "out/events/judge/slim_vgg.jsonl").read_text().splitlines()[-1])
    assert f"| `judge` | 1 | {last['seconds']:.0f} |" in table and "| `invert` | 3 |" in table


def living_in(folder: Path) -> set[str]:
    """Process ids whose working directory is the folder."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if link.readlink() == folder:
                found.add(link.parent.name)
        except OSError:
            continue
    return found


def test_ending_a_run_ends_its_stage_and_the_next_run_finishes_it(copy: Path) -> None:
    source = copy / "tasks" / "judge.py"
    source.write_text(source.read_text() + "\n# changed, so that it runs again\n")
    env = {**environment(), "MIPRIV_CELLS": str(copy / ".cells")}
    run_all = subprocess.Popen(
        [sys.executable, "-m", "flows.whole"], cwd=copy, env=env, stderr=subprocess.PIPE, text=True
    )
    assert run_all.stderr is not None
    for line in run_all.stderr:
        if line.startswith("Running stage 'judge@"):
            break
    time.sleep(4)
    assert len(living_in(copy)) >= 4  # DVC, the stage, its worker, the publisher
    run_all.send_signal(signal.SIGTERM)
    run_all.communicate(timeout=300)
    assert run_all.returncode not in (0, None) and living_in(copy) == set()
    done = run(copy, sys.executable, "-m", "flows.whole", MIPRIV_CELLS=str(copy / ".cells"))
    assert "Running stage 'judge@slim_vgg'" in done.stderr and "attack" in done.stdout
    assert run(copy, "dvc", "status").stdout.strip() == "Data and pipelines are up to date."
