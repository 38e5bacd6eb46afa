"""Presets named after papers, as tests read them: parameters, and networks and defences of published size."""

import functools
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from flows import scale
from mipriv.defenses import Defense
from mipriv.models import classifiers
from mipriv.models.classifiers import Classifier
from tasks.checks.parameters import Parameters
from tasks.engine.params import plugin_knobs
from tasks.prepare import FACES, Row

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "scales" / "papers").glob("*.yaml"))


def overrides(name: str) -> dict[str, Any]:
    """What a preset's file holds."""
    path = ROOT / "scales" / "papers" / f"{name}.yaml"
    found: dict[str, Any] = YAML(typ="safe").load(path.read_text())
    return found


def rows(stage: str) -> list[tuple[str, str]]:
    """Rows of a stage in all presets, the larger images last."""
    held = {name: overrides(name) for name in NAMES}
    order = sorted(NAMES, key=lambda name: (held[name][f"prepare.rows.{FACES}"]["transform"]["size"], name))
    return [(name, row) for name in order for row in held[name][f"{stage}.rows"]]


@functools.cache
def values(name: str) -> dict[str, Any]:
    """`params.yaml` with a preset's overrides; not to be changed."""
    found: dict[str, Any] = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    scale.override(found, overrides(name), name)
    return found


@functools.cache
def wanted(name: str) -> Parameters:
    """The typed blocks of a preset."""
    return Parameters(values(name))


def faces(preset: Parameters) -> Row:
    """The row of `prepare` whose people are attacked."""
    return preset.prepare.rows[FACES]


def of(family: str, name: str, knobs: dict[str, Any]) -> Any:
    """A plug-in, its knobs checked as a stage checks them."""
    return plugin_knobs(family, name, knobs, "preset")


def network(preset: Parameters, backbone: str, classes: int | None = None) -> Classifier:
    """The untrained network behind a row of `pretrain`, for the people of the preset."""
    row = preset.pretrain.rows[backbone]
    people = classes or faces(preset).split.private
    assert people is not None
    return classifiers.build(of("classifier", row.arch, row.knobs), people, preset.image_shape(FACES), seed=0)


def defended(name: str, row: str) -> Defense:
    """The defence of a row of `finetune`."""
    it = wanted(name).finetune.rows[row]
    made: Defense = of("defense", it.defense, it.knobs)
    return made
