"""The real pipeline by its schedule: servers on PostgreSQL, artifacts on S3, cells on two Ray nodes.

Its files are held against those of a plain run of the same scale: a few stages, or all of them. Which scale
and where pictures of both browsers go is for the environment to say; docs/cluster.md has the command.
"""

import csv
import json
import os
import re
import runpy
import secrets
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from flow_deployed import at_work, completed, deploy, deployed_often, nodes, runs_of
from flow_prefect import Server
from flow_project import ROOT, environment, run, wait
from flow_services import variables

from flows import scale

LONGEST = 7 * 24 * 3600.0  # seconds: how long a scale takes is not what is tested
LOOK = 0.2  # seconds between two looks at what runs
CPUS = 2  # of a node: what a cell of the stages with most threads takes
DESK = "desk"  # params.yaml as it is
SECONDS = "training_seconds"  # measured, of every victim


def _table(content: bytes) -> bytes:
    rows = csv.DictReader(content.decode().splitlines())
    kept = [{key: value for key, value in row.items() if not key.startswith(SECONDS)} for row in rows]
    return json.dumps(kept).encode()


def _metrics(content: bytes) -> bytes:
    found = {
        victim: {key: value for key, value in figures.items() if key != SECONDS}
        for victim, figures in json.loads(content).items()
    }
    return json.dumps(found).encode()


def _page(content: bytes) -> bytes:
    """All but its numbers, which are the table's."""
    return re.sub(rb"[\d.,+-]|\xe2\x88\x92", b"", content)


TIMED: dict[str, Callable[[bytes], bytes]] = {
    "table/table.csv": _table,
    "table/metrics.json": _metrics,
    "book/report.html": _page,
}


@contextmanager
def watched(raylets: list[int]) -> Iterator[dict[int, set[str]]]:
    """Cells seen on each node while the context lasts: Ray names a worker's process after its task."""
    seen: dict[int, set[str]] = {raylet: set() for raylet in raylets}
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK):
            for process in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    title = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                    if title.startswith("ray::") and not title.startswith("ray::IDLE"):
                        parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                        if parent in seen:
                            seen[parent].add(title.removeprefix("ray::"))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def copy(name: str, project: Path, cells: Path) -> dict[str, str]:
    """The project at a scale with a DVC cache and cells that know no earlier runs; what its runs need."""
    if name == DESK:
        scale.copy(ROOT, project)
    else:
        scale.prepare(ROOT, name, project)
    run(project, "dvc", "config", "--local", "cache.dir", project / ".dvc" / "cache")
    kept = {"MIPRIV_DATA": os.environ["MIPRIV_DATA"]} if "MIPRIV_DATA" in os.environ else {}
    return {**kept, "MIPRIV_CELLS": str(cells), "MIPRIV_WARM": "on", "PYTHONPATH": str(project)}


def results(project: Path) -> dict[str, bytes]:
    """Every file that stages wrote, but for the records of what happened when, and how long training took."""
    out = project / "out"
    files = (path for path in sorted(out.rglob("*")) if path.is_file())
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in files}
    return {
        name: TIMED.get(name, bytes)(content)
        for name, content in found.items()
        if not name.startswith("events/")
    }


@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    "stages",
    [
        pytest.param(["judge", "prior"], id="four stages"),
        pytest.param([], id="all of it", marks=pytest.mark.slow),
    ],
)
def test_the_pipeline_by_its_schedule_is_that_of_a_plain_run(
    stages: list[str], served: Path, tmp_path: Path
) -> None:
    name = os.environ.get("MIPRIV_DEPLOYED_SCALE", "smoke")
    pictures = Path(os.environ.get("MIPRIV_DEPLOYED_PICTURES", tmp_path / "pictures")).absolute()
    known, project, plain = variables(served), tmp_path / "scheduled", tmp_path / "plain"
    mine = copy(name, project, tmp_path / "cells-scheduled")
    deployed_often(project, 30, stages)
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    server = Server(known["PREFECT_API_URL"], tmp_path)
    before = len(completed(server))
    with nodes(tmp_path, access, CPUS) as ray, watched(ray["raylets"]) as seen:
        env = environment(
            **known,
            **access,
            **mine,
            RAY_ADDRESS=ray["address"],
            PREFECT_HOME=str(tmp_path / "prefect"),
            PREFECT_WORKER_QUERY_SECONDS="2",
            PWD=str(project),
        )
        del env["MIPRIV_PUBLISH"]
        deploy(project, env)
        with at_work(project, tmp_path / "worker.log", env):
            wait(lambda: len(completed(server)) > before, LONGEST)
    said = completed(server)[before]
    computed, _, total = said.removesuffix(" stages computed").partition(" of ")
    assert computed == total and int(total) >= max(1, len(stages)), said
    assert all(seen.values()), f"a node computed nothing: {seen}"

    (first, *_) = [one for one in server.ended() if one["state"]["message"] == said]
    assert first["created_by"]["type"] == "SCHEDULE"
    found = runs_of(known["MLFLOW_TRACKING_URI"])
    assert {one["info"]["status"] for one in found} == {"FINISHED"} and len(found) >= int(total)
    bucket = served / ".services/s3/buckets/mipriv/mlflow"
    wait(lambda: any(path.is_file() for path in bucket.rglob("*")))
    if shutil.which("chromium") or shutil.which("google-chrome"):
        pictures.mkdir(parents=True, exist_ok=True)
        shoot = runpy.run_path(str(ROOT / "docs/screenshots.py"))["shoot"]
        site = known["PREFECT_API_URL"].removesuffix("/api")
        shoot(f"{site}/runs/flow-run/{first['id']}", pictures / "cluster_prefect.png")
        experiment = found[0]["info"]["experiment_id"]
        shoot(
            f"{known['MLFLOW_TRACKING_URI']}/#/experiments/{experiment}/runs",
            pictures / "cluster_mlflow.png",
        )
        for picture in pictures.glob("cluster_*.png"):
            assert picture.stat().st_size > 20_000, f"{picture} shows nothing"

    if there := os.environ.get("MIPRIV_DEPLOYED_PLAIN"):
        plain = Path(there)
    else:
        theirs = copy(name, plain, tmp_path / "cells-plain")
        run(plain, "env", "-u", "RAY_ADDRESS", sys.executable, "-m", "flows.whole", *stages, **theirs)
    ours, other = results(project), results(plain)
    assert ours.keys() == other.keys() and ours
    assert [path for path in ours if ours[path] != other[path]] == []
