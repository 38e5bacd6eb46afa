"""Parameters of split inference: victims in two parties, attacks on their features, their evaluation."""

import typing

import torch

from mipriv.attacks.reconstruction import Access
from mipriv.errors import InputError
from mipriv.models import split_classifier
from mipriv.models.split import split
from mipriv.models.split_classifier import SplitClassifier
from mipriv.plugin import one_of
from tasks import reconstruct
from tasks.checks.inversion import victim
from tasks.checks.parameters import Parameters
from tasks.checks.refusals import at, distinct, known
from tasks.engine import params
from tasks.engine.params import plugin_knobs
from tasks.party import defended
from tasks.prepare import FACES
from tasks.split import Row


def check(wanted: Parameters) -> None:
    """Refuse the first mistake.

    Raises:
        InputError: one line that names the key, what it was and what is allowed.
    """
    for name, row in wanted.split.rows.items():
        _row(wanted, f"split.rows.{name}", row)
    for name, knobs in wanted.reconstruct.attacks.items():
        attack = plugin_knobs("reconstruction", name, knobs, f"reconstruct.attacks.{name}")
        one_of(
            str(getattr(attack, "access", None)), typing.get_args(Access), f"reconstruction {name}, access"
        )
    for name, attacked in wanted.reconstruct.rows.items():
        _attack(wanted, f"reconstruct.rows.{name}", attacked)
    for name in wanted.evaluate_split.noise:
        known("evaluate_split.noise", name, wanted.split.rows)
        if wanted.split.rows[name].defense != "noise":
            defense = wanted.split.rows[name].defense
            said = f"{name!r} has the defense {defense!r}; allowed: rows of the defense noise"
            raise InputError(f"{params.FILE}: evaluate_split.noise: {said}")


def _row(wanted: Parameters, where: str, row: Row) -> None:
    known(f"{where}.data", row.data, wanted.prepare.rows)
    known(f"{where}.network", row.network, wanted.split.networks)
    known(f"{where}.recipe", row.recipe, wanted.split.recipes)
    distinct(f"{where}.seeds", row.seeds)
    if not row.arms:
        raise InputError(f"{params.FILE}: {where}.arms: none; allowed: one or more")
    for arm, own in row.arms.items():
        plan = defended(row.defense, {**row.knobs, **own.knobs}, own.cem, f"{where}.arms.{arm}")
        with torch.device("cpu"):  # a cut is seen to be right by running the network
            at(f"{where}.arms.{arm}", plan.prepare, _model(wanted, row), wanted.image_shape(row.data))


def _model(wanted: Parameters, row: Row) -> SplitClassifier:
    network = wanted.split.networks[row.network]
    where = f"split.networks.{row.network}"
    architecture = plugin_knobs("classifier", network.arch, network.knobs, f"{where}.knobs")
    people, shape = wanted.people(row.data), wanted.image_shape(row.data)
    return at(where, split_classifier.build, architecture, people, shape, network.cut, network.bottleneck, 0)


def _attack(wanted: Parameters, where: str, row: reconstruct.Row) -> None:
    known(f"{where}.attack", row.attack, wanted.reconstruct.attacks)
    plugin_knobs("reconstruction", row.attack, wanted.reconstruct.knobs(row), f"{where}.knobs")
    known(f"{where}.data", row.data, wanted.prepare.rows)
    distinct(f"{where}.seeds", row.seeds)
    if row.knowledge == "public" and not wanted.prepare.rows[row.data].split.public:
        said = f"'public', but {row.data!r} has no public people; allowed: training, inference"
        raise InputError(f"{params.FILE}: {where}.knowledge: {said}")
    if row.of == "split":
        _of_split(wanted, where, row)
    else:
        _of_whole(wanted, where, row)


def _of_split(wanted: Parameters, where: str, row: reconstruct.Row) -> None:
    known(f"{where}.victim", row.victim, wanted.split.rows)
    attacked = wanted.split.rows[row.victim]
    known(f"{where}.data", row.data, [attacked.data])
    for seed in row.seeds:
        known(f"{where}.seeds", seed, attacked.seeds)
    for arm in row.arms or []:
        known(f"{where}.arms", arm, attacked.arms)
    if row.layer is not None:
        raise InputError(
            f"{params.FILE}: {where}.layer: {row.layer!r}; allowed: null, a split victim is cut already"
        )


def _of_whole(wanted: Parameters, where: str, row: reconstruct.Row) -> None:
    known(f"{where}.victim", row.victim, wanted.finetune.rows)
    known(f"{where}.data", row.data, [FACES])
    for seed in row.seeds:
        known(f"{where}.seeds", seed, wanted.finetune.rows[row.victim].seeds)
    if row.arms is not None:
        raise InputError(f"{params.FILE}: {where}.arms: {row.arms}; allowed: null, a whole victim has none")
    if row.layer is None:
        raise InputError(f"{params.FILE}: {where}.layer: null; allowed: a module of the victim")
    at(f"{where}.layer", split, victim(wanted, row.victim), row.layer, wanted.image_shape(FACES))
