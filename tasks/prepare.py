"""Stage `prepare`: a source's images in the on-disk format, with splits as data.

A knob that is an ``s3://`` address is brought to a folder of its own first; the source sees a local path, the
manifest keeps the address.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mipriv.data import images
from mipriv.data.dataset import MANIFEST, Dataset
from mipriv.data.manifest import Manifest
from mipriv.data.sources import Named, Record, Source
from mipriv.data.splits import SplitPlan, plan_splits
from mipriv.data.transform import Transform
from mipriv.errors import InputError
from tasks.engine import cells, params, store
from tasks.engine.params import Block, plugin_knobs
from tasks.engine.progress import Progress
from tasks.engine.stage import Stage, launch

KNOBS = "prepare.knobs"


class Prepare(Block):
    """`source`: a plug-in of `mipriv.data.sources`, with its `knobs`; `transform`; `split`."""

    source: str
    knobs: dict[str, Any]
    transform: Transform
    split: SplitPlan

    @property
    def remote(self) -> list[str]:
        """Knobs that are addresses in a bucket."""
        return [knob for knob, value in self.knobs.items() if store.is_remote(value)]

    def load_source(self, paths: Mapping[str, Path] | None = None) -> Source:
        """The source, its knobs checked; `paths` replace knobs of the same name."""
        local = {knob: str(path) for knob, path in (paths or {}).items()}
        source: Source = plugin_knobs("source", self.source, {**self.knobs, **local}, KNOBS)
        return source

    def records(self, root: Path) -> list[Record]:
        """Records of the source, before any work: a bucket is only listed where names are enough.

        Args:
            root: the project.
        """
        source, knobs = self.load_source(), self.remote
        listed = isinstance(source, Named) and "root" in knobs
        if listed:
            names = [one.name for one in _named("root", store.listing, self.knobs["root"])]
            knobs.remove("root")
        with Progress("check", len(knobs)) as progress, self.brought(root, knobs, progress) as source:
            return source.records_of(names) if isinstance(source, Named) and listed else source.records()

    @contextmanager
    def brought(self, root: Path, knobs: list[str], progress: Progress) -> Iterator[Source]:
        """The source over local copies of these knobs; refusals name the addresses.

        Copies stay below the folder of cells, so that the next run brings only what has changed.
        """
        paths = {}
        for knob in knobs:
            uri, started = self.knobs[knob], time.monotonic()
            folder = cells.store(root) / "fetched" / hashlib.sha256(uri.encode()).hexdigest()[:16]
            paths[knob] = _named(knob, store.fetch, uri, folder, progress.part(uri))
            progress.end(uri, False, time.monotonic() - started)
        try:
            yield self.load_source(paths)
        except InputError as error:
            message = str(error)
            for knob, path in paths.items():
                message = message.replace(str(path), self.knobs[knob])
            raise InputError(message) from error


def _named(knob: str, call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except InputError as error:
        raise InputError(f"{params.FILE}: {KNOBS}.{knob}: {error}") from error


def run(stage: Stage[Prepare]) -> None:
    """Write images, splits and manifest below the stage's output."""
    wanted = stage.params
    with (
        stage.progress(len(wanted.remote) + 1) as progress,
        wanted.brought(stage.root, wanted.remote, progress) as source,
    ):
        records = source.records()
        labels, pools = zip(*((record.label, record.pool) for record in records), strict=True)
        splits = plan_splits(labels, wanted.split, pools)
        images.write(stage.out, source, records, wanted.transform, progress.part("images"))
        digests = [source.digest(record) for record in records]
    manifest = Manifest.build(wanted.source, wanted.knobs, records, digests, splits, wanted.transform)
    manifest.save(stage.out / MANIFEST)
    data = Dataset.open(stage.out)
    stage.events.input("data", data.digest, stage.out / MANIFEST)
    stage.events.metrics({f"images/{name}": len(indices) for name, indices in splits.items()})
    stage.events.metrics({f"people/{pool}": data.num_classes(pool) for pool in ("public", "private")})
    stage.events.artifact(stage.out / MANIFEST)


if __name__ == "__main__":
    raise SystemExit(launch(run, [], Prepare))
