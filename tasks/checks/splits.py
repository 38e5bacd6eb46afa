"""Parameters of split inference: victims in two parties, attacks on their features, their evaluation."""

import copy
import typing
from functools import partial

import torch

from mipriv import plugin
from mipriv.attacks.reconstruction import Access
from mipriv.errors import InputError
from mipriv.models import classifiers, split_classifier
from mipriv.models.split import split
from mipriv.models.split_classifier import SplitClassifier
from mipriv.plugin import one_of
from tasks import design, prototypes, reconstruct
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
    for name, compared in wanted.prototypes.rows.items():
        _prototypes(wanted, f"prototypes.rows.{name}", compared)
    for name, studied in wanted.design.rows.items():
        _design(wanted, f"design.rows.{name}", studied)
    for name, embedder in wanted.evaluate_split.embeddings.items():
        known(f"evaluate_split.embeddings.{name}", name, wanted.prepare.rows)
        known(f"evaluate_split.embeddings.{name}", embedder, plugin.names("embedder"))
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
    if row.task is not None:
        known(f"{where}.task", row.task, wanted.attribute_names(row.data))
    for arm, own in row.arms.items():
        plan = defended(row.defense, {**row.knobs, **own.knobs}, own.cem, f"{where}.arms.{arm}")
        if plan.private is not None:
            _hides(wanted, f"{where}.arms.{arm}", row.data, plan.private, plan.classes)
        with torch.device("cpu"):  # a cut is seen to be right by running the network
            at(f"{where}.arms.{arm}", plan.prepare, _model(wanted, row), wanted.image_shape(row.data))


def _hides(wanted: Parameters, where: str, data: str, private: str, classes: int) -> None:
    """Whether images have the attribute that a defence hides, of no more classes than it is told."""
    known(f"{where}, private", private, wanted.attribute_names(data))
    if classes < (there := wanted.classes(data, private)):
        said = f"{classes}; allowed: {there} or more, as {private!r} has"
        raise InputError(f"{params.FILE}: {where}, classes: {said}")


def _model(wanted: Parameters, row: Row) -> SplitClassifier:
    network = wanted.split.networks[row.network]
    where = f"split.networks.{row.network}"

    def build() -> SplitClassifier:
        architecture = plugin_knobs("classifier", network.arch, network.knobs, f"{where}.knobs")
        classes, shape = wanted.classes(row.data, row.task), wanted.image_shape(row.data)
        built = split_classifier.build
        return at(where, built, architecture, classes, shape, network.cut, network.bottleneck, 0)

    # A copy for each arm, whose defence changes it: to build and cut one takes longer.
    return copy.deepcopy(wanted.once(("split", row.network, row.data, row.task), build))


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
    if row.layers is not None:
        raise InputError(
            f"{params.FILE}: {where}.layers: {row.layers}; allowed: null, a split victim is cut already"
        )


def _of_whole(wanted: Parameters, where: str, row: reconstruct.Row) -> None:
    known(f"{where}.victim", row.victim, wanted.finetune.rows)
    known(f"{where}.data", row.data, [FACES])
    for seed in row.seeds:
        known(f"{where}.seeds", seed, wanted.finetune.rows[row.victim].seeds)
    if row.arms is not None:
        raise InputError(f"{params.FILE}: {where}.arms: {row.arms}; allowed: null, a whole victim has none")
    if not row.layers or len(set(row.layers)) < len(row.layers):
        raise InputError(
            f"{params.FILE}: {where}.layers: {row.layers}; allowed: modules of the victim, each once"
        )
    model, shape = victim(wanted, row.victim), wanted.image_shape(FACES)
    backbone = wanted.finetune.rows[row.victim].backbone
    for layer in row.layers:
        cut = partial(at, f"{where}.layers", split, model, layer, shape)
        wanted.once(("cut", backbone, layer), cut)


def _prototypes(wanted: Parameters, where: str, row: prototypes.Row) -> None:
    whole = [name for name, own in wanted.reconstruct.rows.items() if own.of == "finetune"]
    known(f"{where}.reconstruction", row.reconstruction, whole)
    attacked = wanted.reconstruct.rows[row.reconstruction]
    same = [name for name, own in wanted.invert.rows.items() if own.victim == attacked.victim]
    for name in row.inversions:
        known(f"{where}.inversions", name, same)
        known(f"{where}.inversions, seed of {name}", attacked.seeds[0], wanted.invert.rows[name].seeds)
    if wanted.invert.identities is not None:
        said = "null: every person on a target needs one"
        raise InputError(f"{params.FILE}: invert.identities: {wanted.invert.identities}; allowed: {said}")


def _design(wanted: Parameters, where: str, row: design.Row) -> None:
    known(f"{where}.data", row.data, wanted.prepare.rows)
    known(f"{where}.recipe", row.recipe, wanted.split.recipes)
    plugin_knobs("reconstruction", "peel", row.peel, f"{where}.peel")
    shape, people = wanted.image_shape(row.data), wanted.people(row.data)
    for name, variant in row.variants.items():
        knobs = {**row.knobs, **variant.knobs}
        architecture = plugin_knobs("classifier", row.arch, knobs, f"{where}.variants.{name}")
        model = at(f"{where}.variants.{name}", classifiers.build, architecture, people, shape, 0)
        for cut in row.cuts:
            at(f"{where}.cuts", split, model, cut, shape)
