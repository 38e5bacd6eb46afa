"""Launches the tasks of a plan: each as soon as all that it needs has ended, a bounded number at once."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from prefect import allow_failure, get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture

from flows import graph, records, steps
from flows.children import Children
from flows.places import Places
from flows.steps import Plan

POLL = 2.0  # seconds between looks at whether somebody has cancelled the run


@dataclass(frozen=True)
class Settings:
    """How to launch.

    Attributes:
        events: folder of the event files, relative to the project.
        retries: of a stage whose files another DVC holds.
        parallel: stages at once.
        filled: how many of these places a stage fills.
        minutes: that a stage is expected to take.
    """

    events: Path
    retries: int
    parallel: int
    filled: Callable[[str], int]
    minutes: Callable[[str], float]


@dataclass
class Launched:
    """Futures of the tasks and the states in which they ended, by address.

    A future's own `state` asks the server, which may lag behind, until the future has been waited for.
    """

    futures: dict[str, PrefectFuture[Any]] = field(default_factory=dict)
    states: dict[str, State[Any]] = field(default_factory=dict)
    cancelled: bool = False


def launch(plan: Plan, after: State[Any], children: Children, settings: Settings) -> Launched:
    """Run the stages of a plan until all have ended, or the run is cancelled and its children are ended.

    The tasks are not submitted all at once with futures to wait for: one that waits takes a thread, and those
    that wait would keep out those that could run.

    Args:
        after: the state of the task that made the plan.
    """
    order = TopologicalSorter(
        {address: sorted(stage.needs & plan.stale.keys()) for address, stage in plan.stale.items()}
    )
    order.prepare()
    launched, ended, ready, running = Launched(), SimpleQueue[str](), list[str](), 0
    urgency = graph.chains(plan.stale, settings.minutes)
    places = Places(settings.parallel, settings.filled, urgency.__getitem__)
    with get_client(sync_client=True) as client:
        watch = _Watch(client)
        while order.is_active():
            ready += order.get_ready()
            for address in () if launched.cancelled else places.take(ready):
                future = _submit(address, plan, after, children, settings, launched)
                launched.futures[address] = future
                future.add_done_callback(partial(_note, ended, address))
                running += 1
            if not running:
                break
            with suppress(Empty):
                address = ended.get(timeout=POLL)
                launched.futures[address].wait()
                launched.states[address] = launched.futures[address].state
                order.done(address)
                places.give(address)
                running -= 1
            if not launched.cancelled and watch.cancelled():
                launched.cancelled = True
                children.end()
    return launched


def _submit(
    address: str, plan: Plan, after: State[Any], children: Children, settings: Settings, launched: Launched
) -> PrefectFuture[Any]:
    """Submit a stage's task, whose edges in the run graph are those of DVC's graph."""
    stage = plan.stale[address]
    needed = sorted(stage.needs & launched.futures.keys())
    stale = address in plan.changed or any(steps.computed(launched.states[name]) for name in needed)
    file = records.events(settings.events, stage.outs)
    named = steps.stage.with_options(
        name=address.partition("@")[0], task_run_name=address, **steps.retrying(settings.retries)
    )
    return named.submit(
        address,
        children,
        None if file is None else children.cwd / file,
        stale,
        [name for name in needed if not launched.states[name].is_completed()],
        wait_for=[allow_failure(launched.futures[name]) for name in needed] if needed else [after],
        return_state=False,
    )


def _note(ended: SimpleQueue[str], address: str, _: PrefectFuture[Any]) -> None:
    ended.put(address)


class _Watch:
    """Asks the server, now and then, whether this flow run is to be cancelled.

    A run of a deployment is told so by a signal from its runner. One that was started in a shell has no
    runner, and would go on for all that its page in the browser says.
    """

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client, self._next = client, time.monotonic() + POLL
        run = FlowRunContext.get()
        self._id = None if run is None or run.flow_run is None else run.flow_run.id

    def cancelled(self) -> bool:
        if self._id is None or time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + POLL
        try:
            state = self._client.read_flow_run(self._id).state
        except Exception:  # whatever the client raises for a server that is away for a moment
            return False
        return state is not None and (state.is_cancelling() or state.is_cancelled())
