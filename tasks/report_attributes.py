"""Stage `report_attributes`: one offline page on what features tell beside their task."""

import json
from collections.abc import Sequence
from typing import Any

from tasks import attributes, leakage
from tasks.auditing import simulated, strengths
from tasks.auditing.strengths import Strength
from tasks.engine.params import Block
from tasks.engine.stage import Stage, launch
from tasks.page import audited, auditing
from tasks.page.audited import ABSENT, WITHHELD, Audited, Told
from tasks.page.render import html, leave, parameters, uri

BLOCKS = ("split", "attributes", "report_attributes")


class ReportAttributes(Block):
    """Nothing to choose: the page shows every audit."""


def run(stage: Stage[ReportAttributes]) -> None:
    """Write `report.html` and its pictures."""
    folder = stage.path("evaluation")
    wanted = stage.block("attributes", attributes.Attributes)
    chosen = strengths.read(folder / strengths.FILE)
    facts = {name: _facts(stage, name, row) for name, row in wanted.rows.items()}
    found = audited.audited(
        leakage.read(folder / leakage.FILE),
        wanted,
        simulated.read(folder / simulated.FILE),
    )
    pictures = _pictures(found, wanted)
    page: dict[str, Any] = {
        "said": audited.said(found, chosen),
        "rows": [_row(name, found, wanted, facts[name], chosen, pictures) for name in wanted.rows],
        "work": uri(pictures["work"]) if "work" in pictures else None,
        "made": _made(wanted, facts),
        "params": {name: dict(parameters(stage.values[name])) for name in BLOCKS},
    }
    leave(stage, {"report.html": html("attributes", page)}, pictures)


def _facts(stage: Stage[ReportAttributes], name: str, row: attributes.Row) -> dict[str, Any]:
    """Of a cell of a row whose defence hides something, or of the first."""
    cells = sorted((stage.path("audits") / name).glob(f"*/seed-{row.seeds[0]}/{attributes.FACTS}"))
    found = [json.loads(path.read_text(encoding="utf-8")) for path in cells]
    return next((one for one in found if one["private"]), found[0])


def _arms(name: str, found: Sequence[Audited], wanted: attributes.Attributes) -> list[Audited]:
    """Of a row, after its ceiling where that is another's."""
    own = [one for one in found if one.row == name]
    ceiling = wanted.rows[name].undefended
    return [one for one in found if one.name == ceiling and one not in own] + own


def _hidden(arms: Sequence[Audited]) -> str:
    """The attribute that pictures show: the hidden one, or the first."""
    told = next((one.hidden for one in arms if one.hidden is not None), None)
    return next(iter(arms[0].told)) if told is None else told.attribute


def _pictures(found: Sequence[Audited], wanted: attributes.Attributes) -> dict[str, bytes]:
    """A trade-off a row; work of the client where clients differ in it."""
    pictures = {}
    for name in wanted.rows:
        arms = _arms(name, found, wanted)
        pictures[f"tradeoff-{name}"] = auditing.tradeoff(name, arms, _hidden(arms))
    if found and len({one.client["macs"] for one in found}) > 1:
        shared = _hidden(found)
        pictures["work"] = auditing.work([one for one in found if shared in one.told], shared)
    return pictures


def _row(
    name: str,
    found: Sequence[Audited],
    wanted: attributes.Attributes,
    facts: dict[str, Any],
    chosen: Sequence[Strength],
    pictures: dict[str, bytes],
) -> dict[str, Any]:
    arms, row = _arms(name, found, wanted), wanted.rows[name]
    best = {f"{one.row}/{one.arm}" for one in chosen if one.chosen}
    whose = "" if row.population == "inference" else " Main accuracy is that on the victim's own people."
    return {
        "name": name,
        "attribute": _hidden(arms),
        "tradeoff": uri(pictures[f"tradeoff-{name}"]),
        "budgets": [f"{budget:.0%}" for budget in sorted(row.budgets) if budget != max(row.budgets)],
        "auditors": list(wanted.of(row)),
        "about": f"{facts['images']['test']} targets, {len(row.seeds)} training seeds.{whose}",
        "arms": [_arm(one, one.name in best) for one in arms],
    }


def _arm(one: Audited, chosen: bool) -> dict[str, Any]:
    return {
        "name": one.name,
        "undefended": one.undefended,
        "natural": leakage.percent(one.natural),
        "drop": None if one.drop is None else leakage.points(one.drop),
        "chosen": chosen,
        "client": audited.bill(one.client),
        "told": [_told(told) for told in one.told.values()],
    }


def _told(told: Told) -> dict[str, Any]:
    figures = {name: leakage.percent(getattr(told, name)) for name in ("fresh", "most", "auc", "label")}
    return {
        **figures,
        "attribute": told.attribute,
        "hidden": told.hidden,
        "share": WITHHELD if told.share is None else leakage.percent(told.share),
        "budgets": [leakage.percent(figure) for figure in told.budgets.values()],
        "each": [leakage.percent(figure) for figure in told.each.values()],
        "simulated": told.simulated_said if told.simulated is not None else ABSENT,
    }


def _made(wanted: attributes.Attributes, facts: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What was audited, on whose images, by whom."""
    said = {}
    for name, own in facts.items():
        row, images = wanted.rows[name], own["images"]
        who = (
            "other images of the classes that the victim knows, parted image by image"
            if row.population == "inference"
            else "people whom neither defender nor victim knows, parted person by person"
        )
        aware = "knows" if own["private"] else "does not know"
        said[f"Audit: {name}"] = (
            f"victim {row.victim} on {row.data}; main task {own['task'] or 'identity'}; "
            f"{row.attributes[0]} ought to be hidden, which its defence {aware}; images of {who}: "
            f"{images['training']} to learn from, {images['validation']} to choose by, {images['test']} "
            "targets; none was in the defender's training or selection; each sent "
            f"{row.queries} time{'' if row.queries == 1 else 's'}; "
            f"training seeds {', '.join(map(str, row.seeds))}"
        )
        said[f"Auditors: {name}"] = (
            f"{', '.join(wanted.of(row))}: trained from scratch on frozen features in evaluation mode; "
            "the one that is best on its own validation images is judged on the targets; its interval "
            "resamples targets, seeds, and validation images with the choice"
        )
    return said


if __name__ == "__main__":
    raise SystemExit(launch(run, ["audits", "evaluation"], ReportAttributes))
