"""What an audit costs beside the training that it audits: ``python -m bench.attributes``.

One defended model is trained (a row of `split` with its recipe), then every auditor is run with all labels on
what its client sent, cached, for each attribute of an audit of that row. Processor seconds of one process on
one thread, one run. The ratio is that of auditing one attribute, the mean over attributes, to training the
model; the pass of the images through the client is counted with the audit.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import tasks  # noqa: F401  (its threads spin but shortly)
from mipriv.data.dataset import Dataset
from mipriv.device import environment
from mipriv.models import checkpoint
from tasks import attributes, split
from tasks.auditing.parts import parts
from tasks.engine import params
from tasks.party import Network, Party


class Silent:
    """Where progress and events go."""

    def __call__(self, *_: object) -> None: ...

    def metric(self, *_: object, **__: object) -> None: ...

    def metrics(self, *_: object, **__: object) -> None: ...

    def text(self, *_: object) -> None: ...


def train(values: dict[str, Any], name: str, arm: str, inputs: dict[str, Path], out: Path) -> float:
    """Processor seconds of one cell of `split`."""
    row, silent = values["rows"][name], Silent()
    own = params.validate(split.Row, row, f"split.rows.{name}")
    given = {
        "network": Network.model_validate(values["networks"][own.network]).model_dump(),
        "task": own.task,
        "defense": own.defense,
        "knobs": {**own.knobs, **own.arms[arm].knobs},
        "cem": own.arms[arm].cem,
        "recipe": values["recipes"][own.recipe],
    }
    began = time.process_time()
    split.victim(out, inputs, silent, silent, **given, seed=own.seeds[0], device="cpu")  # type: ignore[arg-type]
    return time.process_time() - began


def main() -> int:
    """Command line: a table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.attributes", allow_abbrev=False)
    parser.add_argument("--data", type=Path, default=Path("out/prepare"), help="folder of prepared rows")
    parser.add_argument("--row", default=None, help="of attributes; the last with all auditors")
    parser.add_argument("--arm", default=None, help="of its victim; the last")
    given = parser.parse_args()
    torch.set_num_threads(1)
    values = params.load()
    wanted = params.validate(attributes.Attributes, values["attributes"], "attributes")
    whole = [name for name, row in wanted.rows.items() if row.auditors is None]
    row = wanted.rows[given.row or whole[-1]]
    arm = given.arm or list(values["split"]["rows"][row.victim]["arms"])[-1]
    inputs, cpu = {"data": given.data / row.data}, torch.device("cpu")
    with TemporaryDirectory() as folder:
        trained = train(values["split"], row.victim, arm, inputs, Path(folder))
        party, task = Party.load(Path(folder), cpu), checkpoint.read_card(Path(folder)).facts["task"]
        data = Dataset.open(inputs["data"])
        own = parts(data, row.population, wanted.validation, wanted.seed)
        began = time.process_time()
        sent = attributes.ask(party, own, row.queries, wanted.seed, cpu)
        asked = time.process_time() - began
        labels = attributes._labels(data, own, row.attributes, task)
        print(f"torch {', '.join(environment(cpu).values())}; {row.victim}/{arm}, one thread, one run.\n")
        print(f"| auditor | {' | '.join(f's, {name}' for name in row.attributes)} |")
        print(f"| --- |{' ---: |' * len(row.attributes)}")
        seconds: dict[str, list[float]] = {name: [] for name in wanted.of(row)}
        for attribute in row.attributes:
            began = time.process_time()
            for name, _ in attributes.tell(
                party, own, sent, labels, attribute, 1.0, wanted.of(row), wanted.seed
            ):
                now = time.process_time()
                seconds[name].append(now - began)
                began = now
    for name, own_seconds in seconds.items():
        print(f"| {name} | {' | '.join(f'{one:.2f}' for one in own_seconds)} |")
    audit = asked + sum(map(sum, seconds.values())) / len(row.attributes)
    print(f"\nTraining: {trained:.1f} s. Audit of an attribute, {asked:.2f} s of the client: {audit:.1f} s.")
    print(f"Audit to training: {audit / trained:.2f}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
