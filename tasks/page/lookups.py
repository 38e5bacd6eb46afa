"""Where MLflow holds the record behind a figure: an address of its browser with the search filled in."""

from urllib.parse import urlencode

EXPERIMENT = 1  # the first that a fresh server makes; the search box is filled in whichever is open


def search(server: str, wanted: str) -> str:
    """Address of the runs that a filter finds (docs/mlflow.md has the filters)."""
    return f"{server.rstrip('/')}/#/experiments/{EXPERIMENT}/runs?{urlencode({'searchFilter': wanted})}"


def stage(server: str, name: str) -> str:
    """The newest runs of a stage."""
    return search(server, f"tags.`mipriv.stage` = '{name}' AND tags.`mipriv.recent` LIKE '%'")


def finding(server: str, victim: str) -> str:
    """Every attack on a victim, by every judge."""
    return search(server, f"tags.`mipriv.kind` = 'finding' AND tags.victim = '{victim}'")
