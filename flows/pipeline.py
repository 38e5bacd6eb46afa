"""The Prefect flow: one task a stale stage of DVC's graph, independent ones at once.

DVC says what is stale and computes it, by ``dvc --wait-for-lock repro --single-item STAGE``; Prefect says
when, how many at once, and whether again. ``python -m flows.run`` runs it from a shell.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from prefect import allow_failure, flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed
from pydantic import Field

from flows import notice, records, scale, steps
from flows.children import Children
from flows.cluster import for_run
from flows.cost import at_once, filled, minutes
from flows.launch import Launched, Settings, launch
from flows.project import Mistake, environment, events, root
from flows.publisher import Publisher
from flows.warm import parent


@flow(name="mipriv", persist_result=False, on_failure=[notice.failed], on_crashed=[notice.failed])
def pipeline(
    stages: Sequence[str] = (),
    overrides: dict[str, Any] | None = None,
    retries: Annotated[int, Field(ge=0, le=50)] = 6,
    parallel: Annotated[int, Field(ge=1)] | None = None,
) -> State[Any]:
    """Bring stages up to date, and publish what they record.

    Args:
        stages: Stages (`evaluate`, `invert@ppa-none`), all rows of a stage (`invert`) or rows (`ppa-none`),
            with all that they need; none: everything.
        overrides: Values for dotted keys of `params.yaml`, e.g. `{"evaluate.floor_samples": 60}`. The run is
            then made in a copy of the project below `.scales`, and the working tree stays as it is.
        retries: How often a stage is tried again while another DVC holds its files.
        parallel: Stages at once; default: processors divided by `cost.threads` of `params.yaml`.
    """
    try:
        return _run(stages, overrides or {}, retries, parallel)
    except Mistake as mistake:
        return Failed(message=mistake.message)


def _run(stages: Sequence[str], overrides: dict[str, Any], retries: int, parallel: int | None) -> State[Any]:
    log, source = get_run_logger(), root()
    project = scale.overridden(source, overrides) if overrides else source
    if overrides:
        log.info("with other parameters, in %s: %s", project.relative_to(source), overrides)
    planned = steps.plan.with_options(**steps.retrying(retries))(project, list(stages), return_state=True)
    if not planned.is_completed():
        return Failed(message=planned.message)
    plan = planned.result()
    assert isinstance(plan, steps.Plan)
    if not plan.stale:
        log.info("nothing to do: all %d stages are up to date", plan.known)
        return Completed(message=f"nothing to do: all {plan.known} stages are up to date")
    store = records.store(source)
    publisher = Publisher(project, capture=True, more={"MLFLOW_TRACKING_URI": store})
    try:
        with (
            for_run(project) as cluster,
            parent(project) as warm,
            Children(project, environment(MIPRIV_PUBLISH="off", **cluster, **warm)) as children,
        ):
            filling = filled(project, shared="RAY_ADDRESS" in environment(**cluster))
            settings = Settings(
                events(project), retries, parallel or at_once(project), filling, minutes(project)
            )
            launched = launch(plan, planned, children, settings)
        if publisher.on:
            needed = {name for stage in plan.stale.values() for name in stage.needs}
            ends = [allow_failure(future) for name, future in launched.futures.items() if name not in needed]
            ran = _computed(launched)
            steps.publish.submit(publisher, store, ran, wait_for=ends, return_state=False).wait()
    finally:
        publisher.close()
    steps.summary(plan.stale, launched.states)
    return _verdict(plan, launched)


def _computed(launched: Launched) -> list[str]:
    return [name for name, state in launched.states.items() if steps.computed(state)]


def _verdict(plan: steps.Plan, launched: Launched) -> State[Any]:
    """The state of the whole run, with one line that says which stages are to blame."""
    computed = len(_computed(launched))
    if launched.cancelled:
        return Cancelled(message=f"cancelled after {computed} of {len(plan.stale)} stages")
    undone = {name: state for name, state in launched.states.items() if not state.is_completed()}
    failed = sorted(name for name, state in undone.items() if state.name != steps.NOT_RUN)
    for name in failed:
        get_run_logger().error("%s", undone[name].message)
    if undone:
        left = len(undone) - len(failed)
        note = f"; not run, because they need them: {left}" if left else ""
        return Failed(message=f"failed: {', '.join(failed)}{note}")
    note = ", the others were up to date" if computed < plan.known else ""
    return Completed(message=f"{computed} of {plan.known} stages computed{note}")
