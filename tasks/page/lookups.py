"""Where MLflow holds the record behind a figure: an address of its browser with the search filled in."""

from urllib.parse import urlencode

RECENT = "tags.`mipriv.recent` LIKE '%'"
EXPERIMENT = 1  # the first that a fresh server makes; the search box is filled in whichever is open


def search(server: str, wanted: str, by: str | None = None) -> str:
    """Address of the runs that a filter finds (docs/mlflow.md has the filters), the largest `by` first.

    Sorted by a metric the browser shows children themselves; else it folds them under their parents.
    """
    asked = {"searchFilter": wanted}
    if by is not None:
        asked |= {"orderByKey": f"metrics.`{by}`", "orderByAsc": "false"}
    return f"{server.rstrip('/')}/#/experiments/{EXPERIMENT}/runs?{urlencode(asked)}"


def stage(server: str, name: str) -> str:
    """The newest runs of a stage."""
    return search(server, f"tags.`mipriv.stage` = '{name}' AND {RECENT} AND tags.`mipriv.kind` = 'stage'")


def finding(server: str, victim: str) -> str:
    """Every attack on a victim, by every judge, the one that leaks most first."""
    wanted = (
        f"tags.`mipriv.kind` = 'finding' AND tags.`mipriv.stage` = 'evaluate' AND tags.victim = '{victim}'"
    )
    return search(server, f"{wanted} AND {RECENT}", "accuracy_at_1")
