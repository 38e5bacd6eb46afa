"""The Prefect tasks of the flow: plan, one a stage, publish; and the artifacts they leave in the browser."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows import graph, records, repro
from flows.children import Children
from flows.graph import Busy, Graph
from flows.project import Mistake
from flows.publisher import Publisher
from flows.repro import End

BUSY, NOT_RUN, UNCHANGED = "Busy", "NotRun", "Unchanged"  # names of states, beside Prefect's own


@dataclass(frozen=True)
class Plan:
    """What a flow has to look at.

    Attributes:
        known: how many stages were asked for.
        changed: those that have changed.
        stale: these, and their descendants among those asked for; dependencies first.
    """

    known: int
    changed: Collection[str]
    stale: Graph


def retrying(retries: int) -> dict[str, Any]:
    """Options of a task that is tried again while another DVC holds what it needs, and for nothing else."""
    return {"retries": retries, "retry_delay_seconds": repro.waits(retries), "retry_condition_fn": _is_busy}


def _is_busy(_: object, __: object, state: State[Any]) -> bool:
    return state.name == BUSY


@task(
    name="plan",
    task_run_name="plan",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def plan(project: Path, names: Sequence[str]) -> Plan | State[Any]:
    """Ask DVC for its graph and for what has changed."""
    try:
        stages, selected, changed = graph.look(project, names)
    except Busy as busy:
        return Failed(name=BUSY, message=str(busy))
    except Mistake as mistake:
        return Failed(message=mistake.message)
    stale = graph.stale(stages, selected, changed)
    which = f": {_list(changed)}" if changed else ""
    get_run_logger().info("%d of %d stages have changed%s", len(changed), len(selected), which)
    return Plan(len(selected), changed, {address: stages[address] for address in stages if address in stale})


@task(cache_policy=NO_CACHE, persist_result=False)
def stage(
    address: str, children: Children, events: Path | None, stale: bool, broken: Sequence[str]
) -> State[Any]:
    """Bring one stage up to date.

    Args:
        events: its event file, if it has one.
        stale: see `repro.bring`.
        broken: stages that it needs and that failed: then it is not run.
    """
    if broken:
        return Failed(name=NOT_RUN, message=f"{address}: not run, because of {_list(broken)}")
    log = get_run_logger()
    outcome = repro.bring(address, children, lambda line: log.info("%s", line), stale)
    if outcome.end is End.UNCHANGED:
        return Completed(name=UNCHANGED, message=outcome.message)
    if outcome.end is not End.COMPUTED:
        name = {End.BUSY: BUSY, End.ENDED: "Ended"}.get(outcome.end, "Failed")
        return Failed(name=name, message=outcome.message)
    if events is not None:
        _table(address, outcome.seconds, events)
    return Completed(message=outcome.message)


def computed(state: State[Any]) -> bool:
    """Whether a stage's task ended with new results."""
    return state.is_completed() and state.name != UNCHANGED


@task(name="publish", task_run_name="publish", cache_policy=NO_CACHE, persist_result=False)
def publish(publisher: Publisher, store: str, addresses: Sequence[str]) -> None:
    """Wait until MLflow has everything, and link to each stage's runs there."""
    log = get_run_logger()
    for line in publisher.close():
        log.warning("%s", line) if "warning" in line else log.info("%s", line)
    page = records.page(store)
    if page is None:
        log.warning("MLflow shows no runs of this project yet, hence there are no links to them")
        return
    for address in addresses:
        link = records.search(page, address)
        note = f"Runs of `{address}` in MLflow; `make ui` serves them."
        create_link_artifact(link, f"{address} in MLflow", key=f"mlflow-{_key(address)}", description=note)


def summary(stages: Graph, states: Mapping[str, State[Any]]) -> None:
    """A table of what became of each stage, as an artifact of the flow."""
    rows = [_summarised(address, states.get(address)) for address in stages]
    create_table_artifact(rows, key="stages", description="What became of each stale stage.")


def _summarised(address: str, state: State[Any] | None) -> dict[str, Any]:
    if state is None:
        return {"stage": address, "state": "NotRun", "note": "cancelled before its turn"}
    return {"stage": address, "state": state.name, "note": state.message or ""}


def _table(address: str, seconds: float, events: Path) -> None:
    rows = records.table(events)
    note = f"What `{address}` measured, in {seconds:.1f} s with DVC's own work."
    try:
        create_table_artifact(rows, key=_key(address), description=note)
    except Exception as error:  # the server's; a picture of a result never costs the result
        get_run_logger().warning("no table of %s: %s", address, type(error).__name__)


def _key(address: str) -> str:
    return re.sub("[^a-z0-9]+", "-", address.lower()).strip("-")


def _list(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
