"""Stage `prepare`: a source's images in the on-disk format, with splits as data."""

from typing import Any

from mipriv.data import images
from mipriv.data.dataset import MANIFEST, Dataset
from mipriv.data.manifest import Manifest
from mipriv.data.sources import Source
from mipriv.data.splits import SplitPlan, plan_splits
from mipriv.data.transform import Transform
from tasks.engine.params import Block, plugin_knobs
from tasks.engine.stage import Stage, launch


class Prepare(Block):
    """`source`: a plug-in of `mipriv.data.sources`, with its `knobs`; `transform`; `split`."""

    source: str
    knobs: dict[str, Any]
    transform: Transform
    split: SplitPlan

    def load_source(self) -> Source:
        """The source, its knobs checked."""
        source: Source = plugin_knobs("source", self.source, self.knobs, "prepare.knobs")
        return source


def run(stage: Stage[Prepare]) -> None:
    """Write images, splits and manifest below the stage's output."""
    wanted = stage.params
    source = wanted.load_source()
    records = source.records()
    splits = plan_splits([record.label for record in records], wanted.split)
    with stage.progress() as progress:
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
