"""Replays event files into MLflow: one run a stage row, one child run a cell or a finding.

``python -m tasks.engine.publisher FILE...`` or ``--events FOLDER`` for all in it; with ``--follow`` it
watches the folder, so that many stages pay for one import of MLflow, until its standard input is closed or
SIGTERM comes, and publishes the rest first.

A record is known by its stage, the md5 of its file and its cell: replaying it again changes nothing, and one
that was left half written is completed in place. Tracking never costs a result: a dead server is one warning,
and exit code 0 unless ``--strict``.
"""

import argparse
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from mipriv.errors import InputError
from tasks.engine import address, record
from tasks.engine.events import sha256
from tasks.engine.record import Record
from tasks.engine.watch import watch

COMPLETE, RECENT = "mipriv.complete", "mipriv.recent"
METRICS, PARAMS = 900, 100  # a batch; MLflow takes 1,000 entities, of them 100 params
PARAM_LENGTH, TAG_LENGTH, DIGEST_LENGTH = 6000, 8000, 36  # MLflow's limits
TURN = 300.0  # seconds to wait for another publisher

NOTE = """\
A run a stage, with a child a cell and a child a finding: one attack on one victim, as one judge sees it.
For the search box:

- the best defence at a natural accuracy, sorted by `accuracy_at_1`, lowest first:
  ``tags.`mipriv.kind` = 'finding' AND metrics.natural_accuracy >= 0.95``
- everything of one attack: ``tags.attack = 'ppa'``
- this evaluation and the last, to select and compare:
  ``tags.`mipriv.recent` LIKE '%' AND tags.`mipriv.stage` = 'evaluate' AND tags.`mipriv.kind` = 'stage'``
"""


class Unpublished(Exception):
    """MLflow cannot be reached or refuses; the event files stay for a later replay."""


class Publisher:
    """A connection to MLflow, opened at first use.

    Args:
        root: the project; ``mlflow.db`` and ``mlartifacts`` lie in it unless MLFLOW_TRACKING_URI says
            otherwise.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.root / 'mlflow.db'}"
        local = self.uri.startswith("sqlite:///")
        database = self.uri.removeprefix("sqlite:///") if local else self.root / "mlflow.db"
        self._lock = FileLock(f"{database}.lock", timeout=TURN)
        self._client: Any = None
        self._experiment = ""

    def publish(self, records: Iterable[Record]) -> int:
        """Write what is not there yet, under the file lock.

        Returns:
            How many records were new or completed.

        Raises:
            Unpublished: MLflow cannot be reached or refuses.
        """
        try:
            if address.remote(self.uri):
                address.probe(self.uri)
        except ConnectionError as error:
            raise Unpublished(str(error)) from error
        try:
            with self._lock:
                self.connect()
                return sum(self._publish(one) for one in records)
        except Exception as error:  # SQLAlchemy, requests and MLflow raise their own, without a common base
            raise Unpublished(
                f"{type(error).__name__} from {address.shown(self.uri)}: {address.brief(error)}"
            ) from error

    def connect(self) -> None:
        """Import MLflow, find or make the experiment; may create a database, hence only under the lock."""
        if self._client is not None:
            return
        _environment()
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic", "urllib3"):
            logging.getLogger(name).setLevel(logging.ERROR)
        client = MlflowClient(tracking_uri=self.uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "mipriv")
        found = client.get_experiment_by_name(name)
        remote = address.remote(self.uri)
        wanted = "" if remote else os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT", "")  # a server has its own
        place = None if remote else wanted or (self.root / "mlartifacts").as_uri()
        if found and not found.artifact_location.startswith(wanted):
            _warn(f"experiment {name!r} keeps artifacts where it was made to; set MLFLOW_EXPERIMENT_NAME")
        tags = {"mlflow.note.content": NOTE}  # shown above the table of runs
        self._experiment = found.experiment_id if found else client.create_experiment(name, place, tags)
        self._client = client

    def _publish(self, stage: Record) -> bool:
        runs = self._runs(stage)
        whole = {cell for cell, run in runs.items() if run.data.tags[COMPLETE] == "true"}
        if None in whole:
            return False
        parent = self._run(stage, runs, {})
        for child in stage.children:
            if child.cell not in whole:
                self._complete(child, self._run(child, runs, {"mlflow.parentRunId": parent}))
        self._mark(stage)
        self._complete(stage, parent)
        return True

    def _mark(self, stage: Record) -> None:
        """Tag the last two runs of a stage, and their findings: one filter shows them side by side."""
        same = f"tags.`mipriv.stage` = '{stage.address}' AND tags.`mipriv.kind` != 'cell'"
        runs = [
            run
            for which in (f"tags.`{RECENT}` LIKE '%'", f"tags.`dvc.hash` = '{stage.tags['dvc.hash']}'")
            for run in self._search(f"{same} AND {which}")
        ]
        parents = [run for run in runs if "mipriv.cell" not in run.data.tags]
        begun = {run.data.tags["dvc.hash"]: run.info.start_time for run in parents}
        order = sorted(begun, key=lambda digest: begun[digest], reverse=True)
        wanted = dict(zip(order, ("last", "previous"), strict=False))
        for run in {run.info.run_id: run for run in runs}.values():
            now, then = wanted.get(run.data.tags["dvc.hash"]), run.data.tags.get(RECENT)
            if now is None and then is not None:
                self._client.delete_tag(run.info.run_id, RECENT)
            elif now is not None and now != then:
                self._client.set_tag(run.info.run_id, RECENT, now)

    def _runs(self, stage: Record) -> dict[str | None, Any]:
        """Runs of this event file that are there, by cell; None is the stage's."""
        found = self._search(f"tags.`dvc.hash` = '{stage.tags['dvc.hash']}'")
        same = (run for run in found if run.data.tags.get("mipriv.stage") == stage.address)
        return {run.data.tags.get("mipriv.cell"): run for run in same}

    def _search(self, wanted: str) -> Iterator[Any]:
        """Every run that a filter finds."""
        token = None
        while token != "":
            page = self._client.search_runs([self._experiment], wanted, max_results=1000, page_token=token)
            yield from page
            token = page.token or ""

    def _run(self, one: Record, runs: dict[str | None, Any], tags: dict[str, str]) -> str:
        if one.cell in runs:
            return str(runs[one.cell].info.run_id)
        tags = {
            key: _cut(value, TAG_LENGTH) for key, value in {**one.tags, **tags, COMPLETE: "false"}.items()
        }
        run = self._client.create_run(self._experiment, one.begin, tags, one.cell or one.address)
        return str(run.info.run_id)

    def _complete(self, one: Record, run: str) -> None:
        """Write all of a record; every step may be repeated, and the tag that says it is whole comes last."""
        from mlflow.entities import Metric, Param

        metrics = [Metric(m.key, m.value, m.time, m.step) for m in one.metrics]
        params = [Param(key, _cut(value, PARAM_LENGTH)) for key, value in one.params.items()]
        for i in range(max(-(-len(metrics) // METRICS), -(-len(params) // PARAMS))):
            batch = metrics[i * METRICS : (i + 1) * METRICS]
            self._client.log_batch(run, batch, params[i * PARAMS : (i + 1) * PARAMS])
        self._inputs(one, run)
        self._files(one, run)
        self._client.set_terminated(run, "FAILED" if one.failed else "FINISHED", one.end)
        self._client.set_tag(run, COMPLETE, "true")

    def _inputs(self, one: Record, run: str) -> None:
        from mlflow.entities import Dataset, DatasetInput

        known = [(item, f'{{"uri": "{item.path}"}}') for item in one.inputs if item.path is not None]
        datasets = [Dataset(item.name, item.digest[:DIGEST_LENGTH], "local", uri) for item, uri in known]
        if datasets:
            self._client.log_inputs(run, [DatasetInput(dataset) for dataset in datasets])

    def _files(self, one: Record, run: str) -> None:
        """Artifacts whose bytes are still those of the record, and texts."""
        for key, value in one.texts.items():
            self._client.log_text(run, value, key if "." in key else f"{key}.txt")
        changed = []
        with tempfile.TemporaryDirectory() as folder:
            for artifact in one.artifacts:
                copy = Path(folder, artifact.name)
                copy.parent.mkdir(parents=True, exist_ok=True)
                source = self.root / artifact.path
                # The copy is what is hashed and sent: a stage may replace the file meanwhile.
                if source.is_file() and shutil.copyfile(source, copy) and sha256(copy) == artifact.sha256:
                    inside = Path(artifact.name).parent.as_posix()
                    self._client.log_artifact(run, str(copy), None if inside == "." else inside)
                else:
                    changed.append(artifact.name)
        if changed:
            self._client.set_tag(
                run, "mipriv.warning", _cut(f"changed or gone: {', '.join(changed)}", TAG_LENGTH)
            )


def replay(publisher: Publisher, paths: Sequence[Path]) -> bool:
    """Publish event files; one line on stderr for each that cannot be used.

    Returns:
        Whether every file could be used.

    Raises:
        Unpublished: MLflow cannot be reached or refuses.
    """
    records = []
    for path in paths:
        try:
            one = record.read(path)
        except InputError as error:
            _warn(str(error))
            continue
        if one.end is None:
            _warn(f"{path}: has no end, its stage was killed or is at work; left out")
        else:
            records.append(one)
    new = publisher.publish(records) if records else 0
    print(f"publisher: {new} new of {len(paths)} in {address.shown(publisher.uri)}", file=sys.stderr)
    return len(records) == len(paths)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tasks.engine.publisher", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--events", type=Path, help="folder of event files, searched at every depth")
    parser.add_argument(
        "--follow", action="store_true", help="watch the folder until standard input is closed"
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit with 1 if anything could not be published"
    )
    given = parser.parse_args(argv)
    if (given.events is None) == (not given.files) or (given.follow and given.events is None):
        parser.error("give event files, or --events FOLDER (which --follow needs)")
    publisher = Publisher(Path.cwd())
    complete = True

    def accepted(paths: Sequence[Path]) -> bool:
        nonlocal complete
        try:
            complete = replay(publisher, paths)
        except Unpublished as error:
            _warn(f"{error}; results are safe, a later replay publishes them")
            complete = False
            return False
        return True

    if given.follow:
        os.nice(10)  # the stages beside it come first; it catches up while one of them waits
        watch(given.events, accepted)
    else:
        accepted(given.files or sorted(given.events.rglob("*.jsonl")))
    return 1 if given.strict and not complete else 0


def _environment() -> None:
    """Before MLflow is imported: no telemetry, no long waits."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


def _cut(text: str, length: int) -> str:
    note = f" ... cut, {len(text)} characters"
    return text if len(text) <= length else text[: length - len(note)] + note


def _warn(text: str) -> None:
    print(f"publisher: warning: {text}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
