"""Stage `evaluate_membership`: every figure of membership over grids of shadow heads, and the laws behind."""

from typing import Annotated, Any

from pydantic import Field

from tasks import finetune, leakage, membership, shadow_victims, shadows, split
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch
from tasks.leakage import FILE
from tasks.memberships import grids, laws, scored, victims
from tasks.memberships.victims import Victims

VICTIMS = "victims"


class EvaluateMembership(Block):
    """`record_rate`: of false positives, by which records are told apart one by one; `victims`, attacks on
    those of `shadow_victims`."""

    record_rate: Annotated[float, Field(gt=0, lt=1)]
    victims: Victims


def run(stage: Stage[EvaluateMembership]) -> None:
    """Write `leakage.csv`, scores of victims below `victims`, and what pairs those with others."""
    heads = stage.block("shadows", shadows.Shadows).rows
    wanted = stage.block("membership", membership.Attacks)
    folder = stage.path("attacks")
    lines = [line for name, row in heads.items() for line in grids.heads(stage.path("shadows"), name, row)]
    lines += grids.attacks(folder, wanted.rows, heads, wanted.rates)
    lines += grids.records(folder, wanted.rows, heads, stage.params.record_rate)
    for name, row in wanted.rows.items():
        lines += laws.of_attack(folder, name, row, heads[row.of], wanted.rates)
    found = victims.attack(stage.path("victims"), *rows_of(stage), stage.params.victims)
    victims.leave(found, stage.out / VICTIMS)
    scored.write(stage.out / scored.FILE, victims.kept(found, stage.params.victims))
    lines += victims.lines(found, stage.params.victims)
    leakage.write(stage.out / FILE, lines)
    for line in lines:
        key = "/".join(part for part in (line.kind, line.subject, line.against, line.figure) if part)
        stage.events.metric(key.replace(",", ""), line.value.point)
    stage.events.artifact(stage.out / FILE)


def rows_of(stage: Stage[Any]) -> tuple[dict[str, shadow_victims.Row], dict[str, list[int]]]:
    """Rows of `shadow_victims`, and training seeds of the victim of each."""
    rows = stage.block("shadow_victims", shadow_victims.ShadowVictims).rows
    whole, parted = stage.block("finetune", finetune.Finetune).rows, stage.block("split", split.Splits).rows
    seeds = {
        name: (whole[row.victim] if row.of == "finetune" else parted[row.victim]).seeds
        for name, row in rows.items()
    }
    return rows, seeds


if __name__ == "__main__":
    raise SystemExit(launch(run, ["shadows", "attacks", "victims"], EvaluateMembership))
