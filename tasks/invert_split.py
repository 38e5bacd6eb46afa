"""Stage `invert_split`: model inversion of victims in two parties, through client, release and server.

The attacker has both parties and draws through the release as it is deployed: what the client sends is noisy
in every query, and gradients pass. The noise is the victim's: one stream a cell. A stage of its own, because
a split victim is rebuilt with its defence: a new defence leaves inversions of whole victims as they are.
"""

from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from mipriv.attacks.inversion import offer
from mipriv.device import place, resolve
from mipriv.models import checkpoint
from tasks import invert
from tasks.engine.cells import Cell, Progress
from tasks.engine.events import Events
from tasks.engine.params import Block, plugin_knobs
from tasks.engine.stage import Stage, launch
from tasks.party import Party


class Row(Block):
    """An attack on one `arm` of a `victim`, a row of `split`; the others as in a row of `invert`."""

    attack: str
    knobs: dict[str, Any] = Field(default_factory=dict)
    victim: str
    arm: str
    prior: str
    seeds: list[int]

    @property
    def subject(self) -> str:
        """The victim as tables have it."""
        return f"{self.victim}/{self.arm}"

    def like_whole(self) -> invert.Row:
        """The same row with its victim's name in one word."""
        return invert.Row(
            attack=self.attack, knobs=self.knobs, victim=self.subject, prior=self.prior, seeds=self.seeds
        )


class InvertSplit(Block):
    """`rows`; attacks, identities and the attacker's seed are those of `invert`."""

    rows: dict[str, Row]


def attack(
    out: Path,
    inputs: dict[str, Path],
    progress: Progress,
    events: Events,
    *,
    attack: str,
    knobs: dict[str, Any],
    identities: list[int],
    seed: int,
    device: str,
) -> None:
    """Cell: reconstructions of some identities from one victim. No private image is within reach."""
    where = torch.device(device)
    attacker = plugin_knobs("inversion", attack, knobs, f"invert.attacks.{attack}")
    shape = checkpoint.read_card(inputs["victim"]).image_shape
    victim = Party.load(inputs["victim"], where).composed(shape, seed, "release under attack", identities[0])
    prior = place(checkpoint.load_prior(inputs["prior"]), where)
    handed = offer(victim, attacker.access)
    invert.recover(out, events, progress, (attack, attacker), (handed, prior), torch.tensor(identities), seed)


def run(stage: Stage[InvertSplit]) -> None:
    """Cells of one row: `seed-N/ids-FIRST`."""
    wanted, row = stage.block("invert", invert.Invert), stage.params.rows[stage.row or ""]
    shared = {
        "attack": row.attack,
        "knobs": wanted.knobs(row.like_whole()),
        "seed": wanted.seed,
        "device": str(resolve(stage.cost.device)),
    }
    stage.events.tags({"attack": row.attack, "victim": row.subject, "prior": row.prior})
    work = []
    for seed in row.seeds:
        inputs = {
            "victim": stage.path("victim") / row.arm / f"seed-{seed}",
            "prior": stage.path("prior") / "model",
        }
        for part in wanted.parts(checkpoint.read_card(inputs["victim"])):
            own = {**shared, "identities": part}
            work.append(Cell(f"seed-{seed}/ids-{part[0]:05d}", "tasks.invert_split:attack", own, inputs))
    stage.cells(work)
    invert.picture(stage, row.seeds)


if __name__ == "__main__":
    raise SystemExit(launch(run, ["victim", "prior"], InvertSplit))
