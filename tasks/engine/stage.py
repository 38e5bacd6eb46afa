"""What every stage module in ``tasks/`` has in common: command line, parameters, events, cells, exit code.

A stage module ends with ``raise SystemExit(launch(run, ["data"], Finetune))``; its name is the stage's, its
command ``python -m tasks.finetune --row none --data out/prepare/faces --out out/finetune/none --events
out/events/finetune/none.jsonl``.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from mipriv.errors import InputError
from mipriv.plugin import one_of
from tasks.engine import cells, fanout, imports, local, params, runtime
from tasks.engine.cells import Cell, Place
from tasks.engine.events import Events
from tasks.engine.params import Cost
from tasks.engine.progress import Progress

P = TypeVar("P")
B = TypeVar("B")
Deps = Callable[[str, Path], tuple[Path, ...]]


@dataclass(frozen=True)
class Stage(Generic[P]):
    """What a stage's ``run`` is given.

    Attributes:
        name, row: e.g. ``finetune`` and ``none``; `row` is None for a stage that is not repeated.
        params: the stage's own block of ``params.yaml``, typed. `block` gives another.
        cost: the block ``cost``.
        out: where its results go.
        events: the record of what happens.
        deps: project sources that DVC names for it, or None outside of a DVC project.
        options: the command line, by name.
        root: the project.
    """

    name: str
    row: str | None
    params: P
    cost: Cost
    out: Path
    events: Events
    deps: tuple[Path, ...] | None
    options: Mapping[str, str]
    root: Path
    values: Mapping[str, Any] = field(repr=False)
    started: float = field(default_factory=time.perf_counter)

    @property
    def address(self) -> str:
        """The stage as DVC calls it, e.g. ``finetune@none``."""
        return _address(self.name, self.row)

    @property
    def seconds(self) -> float:
        """Seconds since the stage began."""
        return time.perf_counter() - self.started

    def path(self, option: str) -> Path:
        """The path that a command-line option holds."""
        return Path(self.options[option])

    def plain(self, *keys: str) -> Any:
        """Plain values in the stage's own block of ``params.yaml``: what a cell can be handed."""
        value: Any = self.values[self.name]
        for key in keys:
            value = value[key]
        return value

    def block(self, name: str, model: type[B]) -> B:
        """Another block of ``params.yaml``, validated.

        Raises:
            InputError: no such block, or a mistake in it.
        """
        return _block(self.values, name, model)

    def progress(self, parts: int = 1) -> Progress:
        """Progress of work outside of cells: ``with stage.progress() as p: work(p.part("images"))``."""
        self._announce()
        return Progress(self.address, parts)

    def cells(self, work: Sequence[Cell]) -> dict[str, Path]:
        """Compute cells that are not there yet and copy their files below `out`.

        Returns:
            Folder of each cell's files by cell name.
        """
        runtime.check(self.address)
        self._announce(f"{len(work)} cell{'' if len(work) == 1 else 's'}")
        cost = self.cost
        store = cells.store(self.root)
        expected = cost.expected(self.address)
        workers = local.most(1 if expected is None else expected.workers, cost.threads)
        place = Place(self.root, store, self.name, self.row, cost.threads, cost.gpus, cost.retries, workers)
        results = fanout.run([replace(cell, sources=self.deps) for cell in work], place)
        folders = cells.collect(results, self.out)
        for name, result in results.items():
            self.events.cell(name, result.key, result.resumed, folders[name], result.events())
        return folders

    def _announce(self, *facts: str) -> None:
        """Say, before the work, what it is and how long it should take."""
        expected = self.cost.expected(self.address)
        minutes = [] if expected is None else [f"about {expected.minutes:g} min"]
        if facts or minutes:
            print(f"{self.address}: {', '.join([*facts, *minutes])}", file=sys.stderr, flush=True)


def launch(
    run: Callable[[Stage[P]], None],
    arguments: Sequence[str],
    model: type[P],
    argv: Sequence[str] | None = None,
    deps: Deps | None = imports.named_by_dvc,
) -> int:
    """Run a stage from its command line.

    Args:
        run: the stage's work; the stage is named after the module that defines it.
        arguments: names of its options beside ``--row``, ``--out`` and ``--events``; each is required.
        model: type of its block in ``params.yaml``.
        argv: the command line; None takes the process's.
        deps: gives the sources that a stage may import; None, outside of a DVC project, checks nothing.

    Returns:
        Exit code: 0, 2 with one line on stderr for an `InputError`, or 1 with a traceback.
    """
    name = Path(run.__code__.co_filename).stem
    options = _parse(name, arguments, argv)
    try:
        one_of(publish := os.environ.get("MIPRIV_PUBLISH", "on"), ("on", "off"), "MIPRIV_PUBLISH")
        values = params.load()
        block = _block(values, name, model)
        cost = _block(values, "cost", Cost).of(_address(name, options.get("row")))
    except InputError as error:
        return _refused(error)
    runtime.settle(cost.threads)
    handler = signal.signal(signal.SIGTERM, _terminated)
    try:
        _work(run, name, options, values, block, cost, deps)
    except InputError as error:
        code = _refused(error)
    except Exception:
        traceback.print_exc()
        code = 1
    else:
        code = 0
    finally:
        signal.signal(signal.SIGTERM, handler)
    if publish == "on":
        _publish(options["events"])
    return code


def _work(
    run: Callable[[Stage[P]], None],
    name: str,
    options: dict[str, str],
    values: Mapping[str, Any],
    block: P,
    cost: Cost,
    deps: Deps | None,
) -> None:
    root, row, out = Path.cwd(), options.get("row"), Path(options["out"])
    address = _address(name, row)
    with Events(Path(options["events"]), root, root, name, row, None) as events:
        events.params(_shown(values[name], row))
        sources = None if deps is None else deps(address, root)
        run(Stage(name, row, block, cost, out, events, sources, options, root, values))
        runtime.check(f"tasks/{name}.py")
        if sources is None:
            events.text("deps", "not checked: run outside of DVC")
        else:
            imports.check(address, sources, root)


def _address(name: str, row: str | None) -> str:
    return f"{name}@{row}" if row else name


def _refused(error: InputError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


def _parse(name: str, arguments: Sequence[str], argv: Sequence[str] | None) -> dict[str, str]:
    parser = argparse.ArgumentParser(prog=f"python -m tasks.{name}", allow_abbrev=False)
    parser.add_argument("--row", help="name of the row in params.yaml, where the stage has rows")
    for option in (*arguments, "out", "events"):
        parser.add_argument(f"--{option}", dest=option, required=True)
    return {option: value for option, value in vars(parser.parse_args(argv)).items() if value is not None}


def _block(values: Mapping[str, Any], name: str, model: type[B]) -> B:
    one_of(name, values, f"{params.FILE}: block")
    return params.validate(model, values[name], name)


def _shown(block: Mapping[str, Any], row: str | None) -> dict[str, Any]:
    """The parameters that this row depends on: the block, of its ``rows`` only this one.

    Raises:
        InputError: the block has rows and this is none of them.
    """
    if row is None or "rows" not in block:
        return dict(block)
    one_of(row, block["rows"], f"{params.FILE}: row")
    return {**{key: value for key, value in block.items() if key != "rows"}, "row": block["rows"][row]}


def _terminated(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would interrupt the cleaning up
    raise SystemExit(128 + signal.SIGTERM)  # an exception, so that the events are ended


def _publish(events: str) -> None:
    """Publish from a process of its own, so that no stage imports MLflow; its fate is not the stage's."""
    subprocess.run([sys.executable, "-m", "tasks.engine.publisher", events], check=False)
