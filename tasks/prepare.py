"""Stage `prepare`: a source's images in the on-disk format, with splits as data.

A knob that is an ``s3://`` address is brought to a folder of its own first; the source sees a local path, the
manifest keeps the address.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mipriv.data import images
from mipriv.data.dataset import MANIFEST, Dataset
from mipriv.data.manifest import Manifest
from mipriv.data.sources import Named, Record, Source
from mipriv.data.splits import Indices, SplitPlan, plan_splits
from mipriv.data.transform import Transform
from mipriv.errors import InputError
from tasks.engine import cells, params, store
from tasks.engine.params import Block, plugin_knobs
from tasks.engine.progress import Progress
from tasks.engine.stage import Stage, launch

# The row that every stage reads that names none; dvc.yaml spells its path.
FACES = "faces"


class Row(Block):
    """A dataset: `source`, a plug-in of `mipriv.data.sources`, with its `knobs`; `transform`; `split`."""

    source: str
    knobs: dict[str, Any]
    transform: Transform
    split: SplitPlan

    @property
    def remote(self) -> list[str]:
        """Knobs that are addresses in a bucket."""
        return [knob for knob, value in self.knobs.items() if store.is_remote(value)]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the prepared images."""
        height, width = self.transform.size
        return self.transform.channels, height, width


class Prepare(Block):
    """`rows`."""

    rows: dict[str, Row]

    def of(self, name: str) -> "Preparation":
        """What a row asks for."""
        return Preparation(f"prepare.rows.{name}", self.rows[name])


def copies(root: Path, uri: str) -> Path:
    """Where copies of what an address holds stay, below the folder of cells."""
    return cells.store(root) / "fetched" / hashlib.sha256(uri.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Preparation:
    """What a row asks for; `where` it stands in `params.yaml` is named by whatever refuses it."""

    where: str
    row: Row

    def load_source(self, paths: Mapping[str, Path] | None = None) -> Source:
        """The source, its knobs checked; `paths` replace knobs of the same name."""
        local = {knob: str(path) for knob, path in (paths or {}).items()}
        knobs = {**self.row.knobs, **local}
        source: Source = plugin_knobs("source", self.row.source, knobs, f"{self.where}.knobs")
        return source

    def records(self, root: Path) -> list[Record]:
        """Records of the source, before any work: a bucket is only listed where names are enough.

        Args:
            root: the project.
        """
        source, knobs = self.load_source(), self.row.remote
        listed = isinstance(source, Named) and "root" in knobs
        if listed:
            names = [one.name for one in self._named("root", store.listing, self.row.knobs["root"])]
            knobs.remove("root")
        with Progress("check", len(knobs)) as progress, self.brought(root, knobs, progress) as source:
            return source.records_of(names) if isinstance(source, Named) and listed else source.records()

    def splits(self, records: Sequence[Record]) -> dict[str, Indices]:
        """See `plan_splits`; refusals name the key."""
        labels, pools = [record.label for record in records], [record.pool for record in records]
        try:
            return plan_splits(labels, self.row.split, pools)
        except InputError as error:  # it names the key within the row itself
            raise InputError(f"{params.FILE}: {self.where}.{error}") from error

    @contextmanager
    def brought(self, root: Path, knobs: list[str], progress: Progress) -> Iterator[Source]:
        """The source over local copies of these knobs; refusals name the addresses.

        Copies stay below the folder of cells, so that the next run brings only what has changed. Rows of one
        address share them: nobody brings them anew as long as the context lasts. All take addresses in one
        order, so that no two rows wait for each other.
        """
        knob_of = {self.row.knobs[knob]: knob for knob in knobs}
        local: dict[str, Path] = {}
        with ExitStack() as held:
            for uri, knob in sorted(knob_of.items()):
                started = time.monotonic()
                come = store.fetched(uri, copies(root, uri), progress.part(uri))
                local[uri] = self._named(knob, held.enter_context, come)
                progress.end(uri, False, time.monotonic() - started)
            try:
                yield self.load_source({knob: local[self.row.knobs[knob]] for knob in knobs})
            except InputError as error:
                message = str(error)
                for uri, path in local.items():
                    message = message.replace(str(path), uri)
                raise InputError(message) from error

    def _named(self, knob: str, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except InputError as error:
            raise InputError(f"{params.FILE}: {self.where}.knobs.{knob}: {error}") from error


def run(stage: Stage[Prepare]) -> None:
    """Write images, splits and manifest below the stage's output."""
    wanted = stage.params.of(stage.row or "")
    row = wanted.row
    with (
        stage.progress(len(row.remote) + 1) as progress,
        wanted.brought(stage.root, row.remote, progress) as source,
    ):
        records = source.records()
        splits = wanted.splits(records)
        images.write(stage.out, source, records, row.transform, progress.part("images"))
        digests = [source.digest(record) for record in records]
    manifest = Manifest.build(row.source, row.knobs, records, digests, splits, row.transform)
    manifest.save(stage.out / MANIFEST)
    data = Dataset.open(stage.out)
    stage.events.input("data", data.digest, stage.out / MANIFEST)
    stage.events.metrics({f"images/{name}": len(indices) for name, indices in splits.items()})
    stage.events.metrics({f"people/{pool}": data.num_classes(pool) for pool in ("public", "private")})
    stage.events.artifact(stage.out / MANIFEST)


if __name__ == "__main__":
    raise SystemExit(launch(run, [], Prepare))
