"""Parameters that were typed with a digit too many, and names that climb."""

import copy
from pathlib import Path
from typing import Any

import pytest

from flows import scale
from mipriv.errors import InputError
from tasks.checks import plausible
from tasks.engine import params
from tests.presets import NAMES, ROOT, overrides

SCALES = sorted(path.stem for path in (ROOT / "scales").glob("*.yaml"))


@pytest.fixture(scope="module")
def desk() -> dict[str, Any]:
    return params.load(ROOT / "params.yaml")


def changed(desk: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    values = copy.deepcopy(desk)
    scale.override(values, {key: value}, "test")
    return values


def check(values: dict[str, Any]) -> None:
    plausible.check(values, params.validate(params.Cost, values["cost"], "cost").largest)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("finetune.recipes.all.epochs", 2000),
        ("judge.recipe.epochs", 5000),
        ("invert.attacks.ppa.candidates", 4000),
        ("prior.rows.gan.knobs.steps", 3_000_000),
        ("membership.resamples", 1_000_000),
        ("reconstruct.attacks.peel.levels", [{"smoothness": 1e-4, "outer": 4, "inner": 15_000}]),
        ("shadows.rows.digits.models", 1_280_000),
        ("split.networks.digits.knobs.widths", [8, 16, 32_000]),
    ],
)
def test_a_slip_of_the_finger_is_one_line_that_says_how_it_would_be_meant(
    desk: dict[str, Any], key: str, value: object
) -> None:
    with pytest.raises(InputError) as error:
        check(changed(desk, key, value))
    said = str(error.value)
    assert "\n" not in said and said.startswith(f"params.yaml: {key}")
    knob = said.rpartition("cost.largest.")[2].partition(" ")[0]
    check(changed(changed(desk, key, value), f"cost.largest.{knob}", 10**9))


def test_it_is_refused_before_any_stage_is_looked_at(
    desk: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.check import check as whole

    monkeypatch.setattr("tasks.prepare.Preparation.records", lambda *_: pytest.fail("data was looked for"))
    with pytest.raises(InputError, match=r"finetune\.recipes\.all\.epochs: 2000; allowed: at most 1000"):
        whole(changed(desk, "finetune.recipes.all.epochs", 2000))


@pytest.mark.parametrize(
    "name", ["../up", "a/b", "..", "a..b", ".hidden", "-rf", "a b", "a\nb", "\u202ea", "a'b", ""]
)
def test_rows_are_named_as_folders_may_be(desk: dict[str, Any], name: str) -> None:
    values = copy.deepcopy(desk)
    values["judge"]["rows"][name] = values["judge"]["rows"]["slim_vgg"]
    with pytest.raises(InputError, match=r"^params\.yaml: judge\.rows: name ") as error:
        check(values)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("name", [*SCALES, *(f"papers/{name}" for name in NAMES)])
def test_every_scale_is_within_what_is_allowed(desk: dict[str, Any], name: str) -> None:
    found: dict[str, Any] = copy.deepcopy(desk)
    if name.startswith("papers/"):
        scale.override(found, overrides(Path(name).name), name)
    else:
        scale.override(found, params.load(ROOT / "scales" / f"{name}.yaml"), name)
    check(found)
