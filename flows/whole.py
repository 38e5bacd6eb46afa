"""`make run`: every stale stage through DVC, as many at once as there are processors.

The common table comes at the end. `dvc repro` computes the same, one stage after the other.
"""

import argparse
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from flows import graph, repro
from flows.children import Children
from flows.cluster import for_run
from flows.cost import at_once, filled, minutes
from flows.graph import Busy, Graph
from flows.places import Places
from flows.project import artifact, environment, fail, root
from flows.publisher import following
from flows.repro import End, Outcome
from flows.warm import parent

BAR = "{percentage:3.0f}% |{bar:20}| {elapsed}<{remaining} {postfix}"
RETRIES = 6  # of a stage whose files another DVC holds
_terminated = threading.Event()


def run(project: Path, targets: Sequence[str] = ()) -> int:
    """Bring the project up to date, or only the targets and what they need.

    Stages do not publish by themselves: one process beside them pays for importing MLflow once.

    Returns:
        0, or 1 if a stage failed; the others are computed all the same, as far as they do not need it.
    """
    # Before DVC is asked, which takes about as long as that process to load what stages import.
    with parent(project) as warm:
        try:
            stages, selected, changed = graph.look(project, targets)
        except Busy as busy:
            fail(f"{busy}; another DVC is at work here")
        stale = graph.stale(stages, selected, changed)
        whole = True
        if stale:
            looked_at = {name: stages[name] for name in stages if name in stale}
            with for_run(project) as cluster, following(project):
                whole = _compute(project, looked_at, changed, {**cluster, **warm})
        else:
            print(f"nothing to do: all {len(selected)} stages are up to date", file=sys.stderr)
    if whole and not targets:
        table, report = artifact(project, "table"), artifact(project, "report")
        show = [sys.executable, "-m", "tasks.show", "--table", str(table), "--report", str(report)]
        subprocess.run(show, cwd=project, check=False)
    return 0 if whole else 1


def _compute(project: Path, stale: Graph, changed: Collection[str], more: Mapping[str, str]) -> bool:
    """Compute stages, each as soon as all that it needs has ended; say which failed, and whether none did.

    Those that have not changed are looked at again, as what they need may come out as it was.

    Args:
        more: variables of their environment.
    """
    order = TopologicalSorter({name: sorted(stage.needs & stale.keys()) for name, stage in stale.items()})
    order.prepare()
    env = environment(MIPRIV_PUBLISH="off", **more)
    filling = filled(project, shared="RAY_ADDRESS" in env)
    expected = dict(zip(stale, map(minutes(project), stale), strict=True))
    urgency = graph.chains(stale, expected.__getitem__)
    places, ready = Places(at_once(project), filling, urgency.__getitem__), list[str]()
    room = {name: min(filling(name), at_once(project)) for name in stale}
    about = max(1, round(sum(expected[name] * room[name] for name in stale) / at_once(project)))
    print(f"{len(stale)} stages to look at, {at_once(project)} at once, about {about} min", file=sys.stderr)
    broken: dict[str, Outcome] = {}
    computed: set[str] = set()
    running: dict[Future[Outcome], str] = {}
    with (
        Children(project, env) as children,
        tqdm(total=sum(expected.values()), bar_format=BAR, disable=None) as bar,
        ThreadPoolExecutor(at_once(project)) as pool,
    ):
        try:
            while order.is_active():
                if _terminated.is_set():
                    _terminate()
                ready += order.get_ready()
                for name in places.take(ready):
                    lacking = sorted(stale[name].needs & broken.keys())
                    likely = name in changed or not computed.isdisjoint(stale[name].needs)
                    running[pool.submit(_bring, name, children, lacking, likely)] = name
                ended, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in ended:
                    name, outcome = running.pop(future), future.result()
                    if outcome.end not in (End.COMPUTED, End.UNCHANGED):
                        broken[name] = outcome
                    if outcome.end is End.COMPUTED:
                        computed.add(name)
                    order.done(name)
                    places.give(name)
                    bar.update(expected[name])
                bar.set_postfix_str(", ".join(sorted(running.values())))
        finally:
            children.end()  # before the pool waits for its threads
    for outcome in broken.values():
        if outcome.end is not End.NOT_RUN:
            print(f"failed: {outcome.message}", file=sys.stderr)
    if left := sum(outcome.end is End.NOT_RUN for outcome in broken.values()):
        print(f"not run, because they need them: {left} stages", file=sys.stderr)
    return not broken


def _bring(name: str, children: Children, broken: Sequence[str], stale: bool) -> Outcome:
    if broken:
        return Outcome(End.NOT_RUN, f"{name}: not run, because of {', '.join(broken)}")
    for pause in [*repro.waits(RETRIES), None]:
        outcome = repro.bring(name, children, lambda line: tqdm.write(line, sys.stderr), stale)
        if outcome.end is not End.BUSY or pause is None:
            break
        time.sleep(pause)
    return outcome


def _terminate(*_: object) -> NoReturn:
    """End the run. Remembered, because Python drops an exception that meets a destructor or a callback."""
    _terminated.set()
    sys.exit(128 + signal.SIGTERM)


def main() -> int:
    """Command line: optional stages."""
    signal.signal(signal.SIGTERM, _terminate)
    parser = argparse.ArgumentParser(prog="python -m flows.whole", description=__doc__, allow_abbrev=False)
    parser.add_argument("stages", nargs="*", help="stages, rows of them, or rows alone; none: all")
    return run(root(), parser.parse_args().stages)


if __name__ == "__main__":
    raise SystemExit(main())
