"""Stage `evaluate_membership`: every figure of membership over grids of shadow heads, and the laws behind."""

from typing import Annotated

from pydantic import Field

from tasks import leakage, membership, shadows
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch
from tasks.leakage import FILE
from tasks.memberships import grids, laws


class EvaluateMembership(Block):
    """`record_rate`: of false positives, by which records are told apart one by one."""

    record_rate: Annotated[float, Field(gt=0, lt=1)]


def run(stage: Stage[EvaluateMembership]) -> None:
    """Write `leakage.csv`."""
    heads = stage.block("shadows", shadows.Shadows).rows
    wanted = stage.block("membership", membership.Attacks)
    folder = stage.path("attacks")
    lines = [line for name, row in heads.items() for line in grids.heads(stage.path("shadows"), name, row)]
    lines += grids.attacks(folder, wanted.rows, heads, wanted.rates)
    lines += grids.records(folder, wanted.rows, heads, stage.params.record_rate)
    for name, row in wanted.rows.items():
        lines += laws.of_attack(folder, name, row, heads[row.of], wanted.rates)
    leakage.write(stage.out / FILE, lines)
    for line in lines:
        key = "/".join(part for part in (line.kind, line.subject, line.against, line.figure) if part)
        stage.events.metric(key.replace(",", ""), line.value.point)
    stage.events.artifact(stage.out / FILE)


if __name__ == "__main__":
    raise SystemExit(launch(run, ["shadows", "attacks"], EvaluateMembership))
