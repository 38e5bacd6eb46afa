"""Parameters of model inversion: victims, priors, judges, attacks and what is read of them."""

import copy
import typing

from mipriv.attacks.inversion import Access, offer
from mipriv.attacks.search.identity import LOSSES
from mipriv.defenses import Defense
from mipriv.errors import InputError
from mipriv.models import classifiers
from mipriv.models.classifiers import Classifier
from mipriv.models.pretrained import refuse_unknown
from mipriv.plugin import one_of
from tasks import judge, pretrain
from tasks.checks.parameters import Parameters
from tasks.checks.refusals import at, distinct, known
from tasks.engine import params
from tasks.engine.params import plugin_knobs
from tasks.prepare import FACES


def check(wanted: Parameters) -> None:
    """Refuse the first mistake.

    Raises:
        InputError: one line that names the key, what it was and what is allowed.
    """
    _backbones(wanted)
    _victims(wanted)
    _priors(wanted)
    _judges(wanted)
    _attacks(wanted)
    _analyses(wanted)


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
        at(f"{where}.knobs", defense.prepare, copy.deepcopy(victim(wanted, name)), wanted.image_shape(FACES))


def victim(wanted: Parameters, name: str) -> Classifier:
    """The untrained network of a row of `finetune`, before its defence has changed it; not to be changed."""
    backbone = wanted.finetune.rows[name].backbone
    row = wanted.pretrain.rows[backbone]

    def build() -> Classifier:
        architecture = plugin_knobs("classifier", row.arch, row.knobs, f"pretrain.rows.{backbone}.knobs")
        return classifiers.build(architecture, wanted.people(FACES), wanted.image_shape(FACES), seed=0)

    return wanted.once(("victim", backbone), build)


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
            handed = offer(victim(wanted, row.victim), attacker.access)
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
