"""``python -m flows.deploy``: serves the flow on a schedule and on demand, without a worker.

Two deployments: ``nightly``, by a cron expression, and ``on-demand``, for the browser's Run button or
``prefect deployment run mipriv/on-demand``. The schedule is paused until ``--cron`` or ``--every`` says when:
hours of computing are nobody's surprise. One run at a time: while one is at work, a scheduled one of the same
kind is cancelled, since the next does its work, and every other one waits.

The server of PREFECT_API_URL or of ``make ui`` makes the scheduled runs; with neither, a new server runs as
long as this does. For a work pool and its workers there is `prefect.yaml`.
"""

import argparse
from typing import Any

from flows.project import root
from flows.server import attach

NIGHTLY = "0 2 * * *"  # in UTC


def deployments(cron: str | None, every: float | None) -> list[Any]:
    """``nightly`` and ``on-demand``, for `prefect.serve`.

    Args:
        cron, every: when ``nightly`` runs, in UTC, or its interval in seconds; both None: paused.
    """
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.schedules import Cron, Interval
    from prefect.types.entrypoint import EntrypointType

    from flows.pipeline import pipeline

    paused = cron is None and every is None
    schedule = Interval(every) if every else Cron(cron or NIGHTLY, timezone="UTC", active=not paused)
    when = {
        "nightly": (schedule, ConcurrencyLimitStrategy.CANCEL_NEW),
        "on-demand": (None, ConcurrencyLimitStrategy.ENQUEUE),
    }
    return [
        pipeline.to_deployment(
            name,
            schedule=schedule,
            concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=strategy),
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        for name, (schedule, strategy) in when.items()
    ]


def main() -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m flows.deploy", description=__doc__, allow_abbrev=False)
    when = parser.add_mutually_exclusive_group()
    when.add_argument("--cron", help=f"when `nightly` runs, in UTC, e.g. {NIGHTLY!r}")
    when.add_argument("--every", type=float, metavar="SECONDS", help="or how often")
    given = parser.parse_args()
    attach(root(), announce=True)
    from prefect import serve  # Prefect reads the server's address when it is imported

    serve(*deployments(given.cron, given.every), limit=1)  # over both deployments: one a workspace
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
