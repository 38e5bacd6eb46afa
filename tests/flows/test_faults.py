"""The long rows of docs/faults.md that need a whole run: after each, the same table as undisturbed."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import flow_checkout
import psutil
import pytest
from flow_prefect import Server
from flow_project import environment, inside, run, spans, turn, wait
from flow_services import variables

pytestmark = pytest.mark.slow
KILLS, SEEDS, SECONDS = 50, 4, 4.0  # two rows at once of 4 cells of 4 s, and some 4 s to start: 20 s
WHOLE = (sys.executable, "-m", "flows.whole", "toy")


def started(project: Path, *command: str, **env: str) -> "subprocess.Popen[Any]":
    with (project.parent / "log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=project, env=environment(**env), stdout=log, stderr=log, start_new_session=True
        )


def tidy(project: Path) -> None:
    """Nothing of a killed run is left at work."""
    wait(lambda: not inside(project))


@pytest.mark.timeout(3000)
def test_killed_at_fifty_random_points(tmp_path: Path) -> None:
    """Each run is killed at a random moment of what it would take; the next one goes on where it was."""
    project, marks, draw = tmp_path / "project", tmp_path / "marks", random.Random(0)
    marks.mkdir()
    flow_checkout.make(project, SEEDS, SECONDS)
    run(project, sys.executable, "-m", "dvc", "config", "cache.dir", tmp_path / "cache")
    kills, finished, since = 0, 0, 0
    env = {"MIPRIV_MARKS": str(marks), "RAY_ADDRESS": "", "PYTHONPATH": str(project)}
    flow_checkout.edit(project / "params.yaml", lambda values: values["cost"].update(ray="never"))
    while kills < KILLS or since:
        process = started(project, *WHOLE, **env)
        if kills < KILLS:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(draw.uniform(0.0, 20.0))
        if kills < KILLS and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            tidy(project)
            kills, since = kills + 1, since + 1
            continue
        assert process.wait(300) == 0, (tmp_path / "log").read_text()[-2000:]
        assert flow_checkout.sums(project) == flow_checkout.expected(SEEDS)
        assert "up to date" in run(project, sys.executable, "-m", "dvc", "status").stdout
        begun = flow_checkout.computed(marks)
        assert len(begun) == 2 * SEEDS  # and at most what was at work is begun again: two cells a kill
        assert sum(map(len, begun.values())) <= 2 * SEEDS + 2 * since, begun
        assert not list(project.glob(".cells/*.part"))
        finished, since = finished + 1, 0
        forget(project, marks, tmp_path / "cache")
    print(f"{kills} kills, {finished} times to the end")


def forget(project: Path, *folders: Path) -> None:
    """As if nothing had ever run."""
    (project / "dvc.lock").unlink()
    for folder in (*folders, project / "out", project / ".cells", project / ".dvc/tmp"):
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def test_two_flows_at_once_do_each_stage_once(done: Path, server: Server) -> None:
    turn(done, source=3, row__left=2, row__right=2, alone=4, join=1)
    both = [started(done, sys.executable, "-m", "flows.run", PREFECT_API_URL=server.api) for _ in range(2)]
    codes = [process.wait(300) for process in both]
    assert codes == [0, 0], (done.parent / "log").read_text()[-3000:]
    assert set(spans(done)) == {"source", "row@left", "row@right", "alone", "join"}
    assert "up to date" in run(done, sys.executable, "-m", "dvc", "status").stdout


def test_postgresql_starts_again_in_the_middle(served: Path, done: Path) -> None:
    """One of its processes is killed, so that it ends all connections, recovers and takes new ones."""
    known = variables(served)
    turn(done, alone=25)
    process = started(done, sys.executable, "-m", "flows.run", "alone", **known)
    wait(lambda: list((done / "marks").glob("alone-*")))
    (data,) = (served / ".services/postgres").glob("data")
    postmaster = psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))
    victims = [one for one in postmaster.children() if "prefect" in " ".join(one.cmdline())]
    before = {one.pid for one in postmaster.children()}
    victims[0].kill()
    wait(lambda: not before & {one.pid for one in postmaster.children()})  # every one of them is new
    time.sleep(1)
    assert process.wait(180) == 0, (done.parent / "log").read_text()[-3000:]
    assert set(spans(done)) == {"alone"}
    assert "up to date" in run(done, sys.executable, "-m", "dvc", "status", "alone").stdout
    server = Server(known["PREFECT_API_URL"], done)
    wait(lambda: server.runs()[0]["state"]["type"] == "COMPLETED")
