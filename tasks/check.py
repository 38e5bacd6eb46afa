"""Stage `check`: every parameter against everything else, before any work.

DVC removes a stage's outputs before it runs the stage, so a mistake that a stage finds by itself has
already cost its last result. Every stage depends on this one, whose output never changes: it fails
first, and nothing else is touched.
"""

import argparse
import sys
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mipriv.attacks.inversion import Access, offer
from mipriv.attacks.search.identity import LOSSES
from mipriv.defenses import Defense
from mipriv.errors import InputError
from mipriv.models import classifiers
from mipriv.models.classifiers import Classifier
from mipriv.models.pretrained import refuse_unknown
from mipriv.plugin import one_of
from tasks import evaluate, finetune, fisher, invert, judge, pretrain, prior
from tasks import prepare as preparation
from tasks import report as reporting
from tasks.engine import params
from tasks.engine.params import plugin_knobs
from tasks.prepare import FACES

M = TypeVar("M")
Shape = tuple[int, int, int]


class Parameters:
    """The typed blocks of `params.yaml`, checked one by one and then against each other."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        blocks = {
            "prepare": preparation.Prepare,
            "pretrain": pretrain.Pretrain,
            "finetune": finetune.Finetune,
            "prior": prior.Priors,
            "judge": judge.Judges,
            "invert": invert.Invert,
            "fisher": fisher.Analysis,
            "evaluate": evaluate.Evaluate,
            "report": reporting.Report,
            "cost": params.Cost,
        }
        for name in values:
            one_of(name, blocks, f"{params.FILE}: block")
        for name in blocks:
            one_of(name, values, f"{params.FILE}: block")
        self.prepare = params.validate(preparation.Prepare, values["prepare"], "prepare")
        self.pretrain = params.validate(pretrain.Pretrain, values["pretrain"], "pretrain")
        self.finetune = params.validate(finetune.Finetune, values["finetune"], "finetune")
        self.prior = params.validate(prior.Priors, values["prior"], "prior")
        self.judge = params.validate(judge.Judges, values["judge"], "judge")
        self.invert = params.validate(invert.Invert, values["invert"], "invert")
        self.fisher = params.validate(fisher.Analysis, values["fisher"], "fisher")
        self.evaluate = params.validate(evaluate.Evaluate, values["evaluate"], "evaluate")
        self.report = params.validate(reporting.Report, values["report"], "report")
        self.cost = params.validate(params.Cost, values["cost"], "cost")

        self._people: dict[str, int] = {}

    def image_shape(self, row: str) -> Shape:
        """(C, H, W) of the images of a row of `prepare`."""
        return self.prepare.rows[row].image_shape

    def people(self, row: str) -> int:
        """Private people of a row of `prepare`, whose source is asked once.

        Raises:
            InputError: a source that is not there, or has fewer images or people than are asked for.
        """
        if row not in self._people:
            wanted = self.prepare.of(row)
            records = wanted.records(Path.cwd())
            private = wanted.splits(records)["private/train"]
            self._people[row] = len({records[i].label for i in private})
        return self._people[row]


def check(values: Mapping[str, Any]) -> None:
    """Refuse the first mistake in the parameters.

    Raises:
        InputError: one line that names the key, what it was and what is allowed.
    """
    wanted = Parameters(values)
    _data(wanted)
    _backbones(wanted)
    _victims(wanted)
    _priors(wanted)
    _judges(wanted)
    _attacks(wanted)
    _analyses(wanted)


def _data(wanted: Parameters) -> None:
    """The row that other stages read is there, and every row has the people and images that it asks for."""
    stages = ("pretrain", "finetune", "prior", "judge", "invert", "fisher")
    readers = [f"{stage}.rows.{row}" for stage in stages for row in getattr(wanted, stage).rows]
    if readers and FACES not in wanted.prepare.rows:
        where = f"{params.FILE}: prepare.rows.{FACES}"
        raise InputError(f"{where}: is missing; allowed: a row of this name, {readers[0]} reads it")
    for row in wanted.prepare.rows:
        wanted.people(row)


def _backbones(wanted: Parameters) -> None:
    for name, row in wanted.pretrain.rows.items():
        where = f"pretrain.rows.{name}"
        plugin_knobs("classifier", row.arch, row.knobs, f"{where}.knobs")
        if row.weights is not None:
            at(f"{where}.weights", refuse_unknown, row.weights)


def _victims(wanted: Parameters) -> None:
    for name, row in wanted.finetune.rows.items():
        where = f"finetune.rows.{name}"
        known(f"{where}.backbone", row.backbone, wanted.pretrain.rows)
        known(f"{where}.recipe", row.recipe, wanted.finetune.recipes)
        distinct(f"{where}.seeds", row.seeds)
        defense: Defense = plugin_knobs("defense", row.defense, row.knobs, f"{where}.knobs")
        at(f"{where}.knobs", defense.prepare, _victim(wanted, name), wanted.image_shape(FACES))


def _victim(wanted: Parameters, name: str) -> Classifier:
    """The untrained network of a row of `finetune`, before its defence has changed it."""
    backbone = wanted.finetune.rows[name].backbone
    row = wanted.pretrain.rows[backbone]
    architecture = plugin_knobs("classifier", row.arch, row.knobs, f"pretrain.rows.{backbone}.knobs")
    return classifiers.build(architecture, wanted.people(FACES), wanted.image_shape(FACES), seed=0)


def _priors(wanted: Parameters) -> None:
    for name, row in wanted.prior.rows.items():
        generator = plugin_knobs("prior", row.generator, row.knobs, f"prior.rows.{name}.knobs")
        at(f"prior.rows.{name}", generator.build, wanted.image_shape(FACES))


def _judges(wanted: Parameters) -> None:
    attacked = {
        wanted.finetune.rows[row.victim].backbone
        for row in wanted.invert.rows.values()
        if row.victim in wanted.finetune.rows
    }
    taken = {_network(wanted.pretrain.rows[backbone]) for backbone in attacked}
    for name, row in wanted.judge.rows.items():
        plugin_knobs("classifier", row.arch, row.knobs, f"judge.rows.{name}.knobs")
        if (network := _network(row)) in taken:
            where, victims = f"judge.rows.{name}.arch", ", ".join(sorted(taken))
            raise InputError(
                f"{params.FILE}: {where}: {network!r} is a victim's; allowed: other than {victims}"
            )


def _network(row: pretrain.Row | judge.Row) -> str:
    """What a row's architecture is called; one plug-in holds all networks of torchvision."""
    return f"{row.arch}:{row.knobs['name']}" if row.arch == "torchvision" else row.arch


def _attacks(wanted: Parameters) -> None:
    for name, knobs in wanted.invert.attacks.items():
        attack = plugin_knobs("inversion", name, knobs, f"invert.attacks.{name}")
        one_of(str(getattr(attack, "access", None)), typing.get_args(Access), f"inversion {name}, access")
    for name, row in wanted.invert.rows.items():
        where = f"invert.rows.{name}"
        known(f"{where}.attack", row.attack, wanted.invert.attacks)
        known(f"{where}.victim", row.victim, wanted.finetune.rows)
        known(f"{where}.prior", row.prior, wanted.prior.rows)
        attacker = plugin_knobs("inversion", row.attack, wanted.invert.knobs(row), f"{where}.knobs")
        if hasattr(attacker, "blank"):
            maker = wanted.prior.rows[row.prior]
            prior = plugin_knobs("prior", maker.generator, maker.knobs, f"prior.rows.{row.prior}.knobs")
            handed = offer(_victim(wanted, row.victim), attacker.access)
            shape = wanted.image_shape(FACES)
            at(where, attacker.blank, handed, prior.build(shape), wanted.people(FACES), shape)
        distinct(f"{where}.seeds", row.seeds)
        for seed in row.seeds:
            known(f"{where}.seeds", seed, wanted.finetune.rows[row.victim].seeds)
    people = wanted.people(FACES) if wanted.invert.rows else None
    if people is not None and (wanted.invert.identities or 0) > people:
        asked = f"invert.identities: {wanted.invert.identities}"
        raise InputError(f"{params.FILE}: {asked}; allowed: at most {people}, or null")


def _analyses(wanted: Parameters) -> None:
    one_of(wanted.fisher.loss, LOSSES, f"{params.FILE}: fisher.loss")
    for name, row in wanted.fisher.rows.items():
        where = f"fisher.rows.{name}"
        known(f"{where}.victim", row.victim, wanted.finetune.rows)
        known(f"{where}.seed", row.seed, wanted.finetune.rows[row.victim].seeds)
        its = {attack: other for attack, other in wanted.invert.rows.items() if other.victim == row.victim}
        known(f"{where}.attack", row.attack, its)
        known(f"{where}.seed", row.seed, its[row.attack].seeds)


def known(where: str, name: object, allowed: Any) -> None:
    """Refuse a reference to what is not there."""
    if name not in allowed:
        one_of(str(name), [str(item) for item in allowed], f"{params.FILE}: {where}")


def distinct(where: str, seeds: list[int]) -> None:
    """Refuse no seed, a negative one, or one given twice."""
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise InputError(f"{params.FILE}: {where}: {seeds}; allowed: one or more integers from 0, each once")


def at(where: str, call: Callable[..., M], *arguments: Any) -> M:
    """Call, and say where in the parameters a refusal comes from."""
    try:
        return call(*arguments)
    except InputError as error:
        raise InputError(f"{params.FILE}: {where}: {error}") from error


def main() -> int:
    """Check `params.yaml`; leave a file that says so."""
    parser = argparse.ArgumentParser(prog="python -m tasks.check", allow_abbrev=False)
    parser.add_argument("--out", required=True, type=Path)
    out: Path = parser.parse_args().out
    try:
        check(params.load())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text('{"parameters": "consistent"}\n', encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
