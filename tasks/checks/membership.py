"""Parameters of membership inference: what shadow models are trained on."""

import numpy as np
import torch

from mipriv.errors import InputError
from mipriv.models import classifiers
from mipriv.models.pretrained import refuse_unknown
from mipriv.shadows.design import enough
from tasks import shadows
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
    _features(wanted)
    _shadows(wanted)
    _victims(wanted)
    for name, row in wanted.membership.rows.items():
        where = f"membership.rows.{name}"
        known(f"{where}.of", row.of, wanted.shadows.rows)
        plugin_knobs("membership", row.attack, row.knobs, where)
        for size in wanted.report_membership.roc:
            drawn = wanted.shadows.rows[row.of].sizes
            if size not in drawn:
                allowed = ", ".join(f"[{s}, {c}]" for s, c in drawn)
                raise InputError(
                    f"params.yaml: report_membership.roc: {list(size)}; allowed: {allowed}, of {row.of}"
                )


def _victims(wanted: Parameters) -> None:
    """Every victim is there, and its people have images beside those that it was trained on."""
    for name, row in wanted.shadow_victims.rows.items():
        where = f"shadow_victims.rows.{name}"
        known(f"{where}.data", row.data, wanted.prepare.rows)
        if row.of == "finetune":
            known(f"{where}.victim", row.victim, wanted.finetune.rows)
            known(f"{where}.data", row.data, [FACES])
            known(f"{where}.arm", row.arm, [None])
        else:
            known(f"{where}.victim", row.victim, wanted.split.rows)
            known(f"{where}.data", row.data, [wanted.split.rows[row.victim].data])
            known(f"{where}.arm", row.arm, wanted.split.rows[row.victim].arms)
        plan = wanted.prepare.rows[row.data].split
        if plan.test >= 0 and plan.validation + plan.test < plan.train:
            held = f"{plan.train} for training, {plan.validation + plan.test} beside"
            said = f"{row.data!r} has {held} a person; allowed: as many beside, or more"
            raise InputError(f"{params.FILE}: {where}.data: {said}")
    judged = wanted.evaluate_membership.victims
    for name, plan_of in judged.attacks.items():
        plugin_knobs(
            "membership", plan_of.attack, plan_of.knobs, f"evaluate_membership.victims.attacks.{name}"
        )
    if judged.undefended is not None and wanted.shadow_victims.rows:
        known("evaluate_membership.victims.undefended", judged.undefended, wanted.shadow_victims.rows)


def _features(wanted: Parameters) -> None:
    for name, row in wanted.features.rows.items():
        where = f"features.rows.{name}"
        known(f"{where}.data", row.data, wanted.prepare.rows)
        architecture = plugin_knobs("classifier", row.arch, row.knobs, where)
        if row.weights is not None:
            at(f"{where}.weights", refuse_unknown, row.weights)
        at(where, classifiers.build, architecture, wanted.people(row.data), wanted.image_shape(row.data), 0)


def _shadows(wanted: Parameters) -> None:
    """Every cell of a grid has its recipe, and records enough."""
    for name, recipe in wanted.shadows.recipes.items():
        shadows.recipe_of(recipe, f"shadows.recipes.{name}.knobs")
    for name, row in wanted.shadows.rows.items():
        where = f"shadows.rows.{name}"
        known(f"{where}.features", row.features, wanted.features.rows)
        known(f"{where}.recipe", row.recipe, wanted.shadows.recipes)
        distinct(f"{where}.seeds", row.seeds)
        labels = wanted.labels(wanted.features.rows[row.features].data)
        numbers = torch.from_numpy(np.unique(labels, return_inverse=True)[1])
        for examples, classes in row.sizes:
            at(where, enough, numbers, classes, examples, row.distinct, row.seeds[0])
