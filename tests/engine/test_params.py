"""Parameters: read as YAML 1.2, checked strictly, every mistake in one line."""

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, model_validator

from mipriv import plugin
from mipriv.errors import InputError
from tasks.engine import params
from tasks.engine.params import Block, Cost

COUNT, NUMBER, STEP = "(allowed: integer > 0)", "(allowed: number)", "(allowed: cosine, step)"
MORE = "(and 1 more)"
RECIPE = "(allowed: mapping of epochs, lr, schedule)"
CROP = "(allowed: integer or list of integer or null)"
SCAL = "toy noise, knob: 'scal' does not exist (did you mean 'scale'?); allowed: scale, schema, size"


class Recipe(Block):
    epochs: Annotated[int, Field(gt=0)]
    lr: Annotated[float, Field(gt=0, le=1)]
    schedule: Literal["cosine", "step"] = "cosine"


@dataclasses.dataclass(frozen=True)
class Transform:
    size: tuple[int, int]
    crop: int | list[int] | None = None


class Finetune(Block):
    recipe: Recipe
    seeds: Annotated[list[int], Field(min_length=1)]
    transform: Transform
    rows: dict[str, Recipe] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _distinct(self) -> "Finetune":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds are not distinct")
        return self


COST = {"device": "cpu", "threads": 1, "gpus": 0, "retries": 0, "stages": {"a": {"minutes": 0.5}}}
GOOD: dict[str, Any] = {"recipe": {"epochs": 3, "lr": 1}, "seeds": [0, 1], "transform": {"size": [64, 32]}}


def changed(path: str, value: object) -> dict[str, Any]:
    *parents, last = path.split(".")
    copy = inner = dict(GOOD)
    for name in parents:
        inner[name] = dict(inner.get(name, {}))
        inner = inner[name]
    inner[last] = value
    return copy


def test_yaml_is_read_as_dvc_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("a: 1e-4\nb: yes\nc: 1E5\nd: 010\ne: &x {f: 1}\ng: *x\n")
    loaded = params.load(file)
    assert loaded == {"a": 0.0001, "b": "yes", "c": 1e5, "d": 10, "e": {"f": 1}, "g": {"f": 1}}
    from dvc.utils.serialize import load_yaml

    assert load_yaml(str(file)) == loaded


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"a: 1\nb: 2\na: 3\n", "line 3: found duplicate key"),
        (b"a:\n  b: [1\nc: 2\n", "line 3: "),  # ruamel with and without its C parser words it differently
        (b"\ta: 1\n", "line 1: found character"),
        (b"a: !!python/object/apply:os.getcwd []\n", "line 1: could not determine a constructor"),
        (b"- 1\n", "holds [1]; allowed: a mapping of blocks"),
        (b"", "holds None; allowed: a mapping of blocks"),
        (b"a: \xff\n", "cannot be read as UTF-8"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused_in_one_line(tmp_path: Path, text: bytes, says: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_bytes(text)
    with pytest.raises(InputError) as refused:
        params.load(file)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.yaml: cannot be read"):
        params.load(tmp_path / "absent.yaml")


def test_good_values_come_back_typed() -> None:
    block = params.validate(Finetune, GOOD, "finetune")
    assert block.recipe.lr == 1.0
    assert isinstance(block.recipe.lr, float)
    assert block.transform == Transform((64, 32))
    assert block.recipe.schedule == "cosine"


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("recipe.epochs", "ten", f"recipe.epochs: 'ten' is not a valid integer {COUNT}"),
        ("recipe.epochs", True, f"recipe.epochs: True is not a valid integer {COUNT}"),
        ("recipe.epochs", 2.0, f"recipe.epochs: 2.0 is not a valid integer {COUNT}"),
        ("recipe.epochs", 0, f"recipe.epochs: 0 is not greater than 0 {COUNT}"),
        ("recipe.lr", True, "recipe.lr: True is not a valid number (allowed: number > 0 <= 1)"),
        ("recipe.lr", float("nan"), "recipe.lr: nan is not a finite number"),
        ("recipe.schedule", "sine", f"recipe.schedule: 'sine' is not 'cosine' or 'step' {STEP}"),
        ("recipe.lrr", 1, "recipe: 'lrr' does not exist (did you mean 'lr'?); allowed: epochs, lr, schedule"),
        ("transform.sise", 1, "transform: 'sise' does not exist (did you mean 'size'?); allowed: crop, size"),
        ("recipe", {"lr": 1}, f"recipe.epochs: is missing {COUNT}"),
        ("recipe", 3, f"recipe: 3 is not an object {RECIPE}"),
        ("recipe", None, f"recipe: None is not an object {RECIPE}"),
        ("rows.a.epochs", "x", f"rows.a.epochs: 'x' is not a valid integer {COUNT} (and 1 more)"),
        ("transform.size", [1, "b"], "transform.size.1: 'b' is not a valid integer (allowed: integer)"),
        ("transform.crop", "x", f"transform.crop: 'x' is not allowed here {CROP}"),
        ("transform.crop", ["x"], f"transform.crop: ['x'] is not allowed here {CROP} (and 1 more)"),
        ("seeds", [], "seeds: [] is not allowed here (allowed: list of 1 or more integer)"),
        ("seeds", [1, 1], "finetune: seeds are not distinct"),
        ("seeds", {1: 2}, "seeds: key 1 is not a string (allowed: a quoted key)"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_place_value_and_what_is_allowed(
    path: str, value: object, line: str
) -> None:
    with pytest.raises(InputError) as refused:
        params.validate(Finetune, changed(path, value), "finetune")
    expected = line if line.startswith("finetune:") else f"finetune.{line}"
    assert str(refused.value) == f"params.yaml: {expected}"


@dataclasses.dataclass
class Stateful:
    size: int
    _state: list[str] = dataclasses.field(init=False, default_factory=list)


@pytest.mark.parametrize("key", ["sise", "_state"])
def test_keys_of_a_mapping_that_may_be_absent_are_named_and_its_own_state_is_none(key: str) -> None:
    with pytest.raises(InputError, match=f"knobs: '{key}' does not exist.*; allowed: size$"):
        params.validate(Stateful | None, {"size": 1, key: 2}, "knobs")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"\(allowed: mapping of size or null\)"):
        params.validate(Stateful | None, 3, "knobs")  # type: ignore[arg-type]


def test_several_mistakes_are_counted_by_key() -> None:
    value = {
        "recipe": {"epochs": "a", "lr": "b", "x": 1},
        "seeds": [0],
        "transform": {"size": [1, 2], "crop": "x"},
    }
    with pytest.raises(InputError, match=r"^params.yaml: finetune.recipe.epochs: .*\(and 3 more\)$"):
        params.validate(Finetune, value, "finetune")


def test_a_date_of_yaml_is_refused() -> None:
    import datetime

    with pytest.raises(InputError, match=r"f\.when: 2020-01-01 was read as a date \(allowed: quotes"):
        params.validate(dict, {"when": datetime.date(2020, 1, 1)}, "f")


def test_a_block_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        params.validate(Finetune, GOOD, "finetune").seeds = [3]


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:3"])
def test_cost_takes_devices(device: str) -> None:
    cost = params.validate(Cost, {**COST, "device": device}, "cost")
    assert (cost.device, cost.stages["a"].minutes) == (device, 0.5)


def test_cost_refuses_other_devices() -> None:
    with pytest.raises(InputError) as refused:
        params.validate(Cost, {**COST, "device": "gpu"}, "cost")
    line = "params.yaml: cost.device: 'gpu' is not allowed here (allowed: auto, cpu, cuda or cuda:N)"
    assert str(refused.value) == line


@pytest.mark.parametrize("gpus", [0, 0.25, 1, 2])
def test_cost_takes_a_fraction_of_a_gpu_or_whole_ones(gpus: float) -> None:
    assert params.validate(Cost, {**COST, "gpus": gpus}, "cost").gpus == gpus


@pytest.mark.parametrize(
    ("gpus", "says"),
    [(1.5, "1.5 GPUs; allowed: a fraction of one, or a whole number"), (-1, "-1 is not greater than")],
)
def test_cost_refuses_what_ray_cannot_give(gpus: float, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"params.yaml: cost.gpus: {says}")):
        params.validate(Cost, {**COST, "gpus": gpus}, "cost")


def test_cost_refuses_to_choose_a_gpu_where_ray_does() -> None:
    says = "params.yaml: cost: device 'cuda:1' with gpus 0.5; allowed: auto or cuda, Ray chooses which"
    with pytest.raises(InputError, match=re.escape(says)):
        params.validate(Cost, {**COST, "device": "cuda:1", "gpus": 0.5}, "cost")


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A family of one real plug-in module."""
    (tmp_path / "toyfamily").mkdir()
    (tmp_path / "toyfamily" / "__init__.py").write_text("")
    (tmp_path / "toyfamily" / "noise.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True)\n"
        "class Noise:\n"
        "    scale: float\n"
        "    size: tuple[int, int] = (1, 2)\n"
        "    schema: str = 'x'\n"
        "    def __post_init__(self):\n"
        "        if self.scale < 0:\n"
        "            raise ValueError('scale must be\\n>= 0')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(plugin.FAMILIES, "toy", "toyfamily")
    return "toy"


def test_a_plugin_is_built_from_yaml_values(family: str) -> None:
    noise = params.plugin_knobs(family, "noise", {"scale": 1, "size": [3, 4]}, "defense.noise")
    assert (noise.scale, noise.size, noise.schema) == (1.0, (3, 4), "x")


@pytest.mark.parametrize(
    ("name", "knobs", "says"),
    [
        ("noise", {"scale": "1"}, f"defense.noise.scale: '1' is not a valid number {NUMBER}"),
        ("noise", {"scale": "", "size": 1}, f"defense.noise.scale: '' is not a valid number {NUMBER} {MORE}"),
        ("noise", {"scal": 1}, f"defense.noise: {SCAL}"),
        ("noise", {}, "defense.noise: toy noise: missing scale"),
        ("noise", {"scale": -1.0}, "defense.noise: scale must be >= 0"),
        ("noise", None, "defense.noise: None is not a mapping of knobs"),
        ("noisy", {}, "defense.noise: toy: 'noisy' does not exist (did you mean 'noise'?); allowed: noise"),
    ],
)  # fmt: skip
def test_a_plugins_mistakes_are_located(family: str, name: str, knobs: object, says: str) -> None:
    with pytest.raises(InputError) as refused:
        params.plugin_knobs(family, name, knobs, "defense.noise")
    assert str(refused.value) == f"params.yaml: {says}"


def test_what_a_row_is_expected_to_cost_comes_before_what_its_stage_is() -> None:
    stages = {"split": {"minutes": 1, "threads": 2}, "split@faces": {"minutes": 3, "workers": 2}}
    block = {"device": "cpu", "threads": 1, "gpus": 0, "retries": 0, "stages": stages}
    cost = params.validate(params.Cost, block, "cost")
    assert [cost.of(name).threads for name in ("split", "split@digits", "split@faces", "judge")] == [
        2,
        2,
        1,
        1,
    ]
    faces, judge = cost.expected("split@faces"), cost.expected("judge@a")
    assert faces is not None and (faces.minutes, faces.workers) == (3, 2) and judge is None
