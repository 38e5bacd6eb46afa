"""Stage `evaluate_attributes`: what fresh auditors tell of every arm, over which floors, at which price."""

import re

from tasks import attributes, leakage, split
from tasks.auditing import arms, simulated, strengths
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch
from tasks.leakage import Line

UNNAMED = re.compile(r"[^A-Za-z0-9_.:/ -]")  # what no event is named with


class EvaluateAttributes(Block):
    """Nothing to choose: what is measured follows from the audits."""


def run(stage: Stage[EvaluateAttributes]) -> None:
    """Write `leakage.csv`; beside it which strengths are chosen, and a diagnosis of simulated attackers."""
    wanted = stage.block("attributes", attributes.Attributes)
    victims = stage.block("split", split.Splits)
    names = {name: row.arms or list(victims.rows[row.victim].arms) for name, row in wanted.rows.items()}
    found = arms.look(stage.path("audits"), wanted, names)
    ceilings = {name: found[arm.row.undefended] for name, arm in found.items()}
    lines: list[Line] = []
    with stage.progress() as progress:
        report = progress.part("arms")
        for done, (name, arm) in enumerate(found.items(), 1):
            lines += arm.lines(ceilings[name])
            report(done, len(found))
    _leave(stage, lines)
    strengths.write(stage.out / strengths.FILE, strengths.strengths(found.values(), ceilings))
    simulated.write(stage.out / simulated.FILE, [one for arm in found.values() for one in arm.simulated()])


def _leave(stage: Stage[EvaluateAttributes], lines: list[Line]) -> None:
    leakage.write(stage.out / leakage.FILE, lines)
    for line in lines:
        words = (line.kind, line.subject, line.against, line.judge, line.figure)
        stage.events.metric(UNNAMED.sub("", "/".join(word for word in words if word)), line.value.point)
    stage.events.artifact(stage.out / leakage.FILE)


if __name__ == "__main__":
    raise SystemExit(launch(run, ["audits"], EvaluateAttributes))
