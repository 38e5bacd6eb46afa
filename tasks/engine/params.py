"""The one reader of ``params.yaml``: strict, and one line for every mistake.

YAML is read as DVC reads it (YAML 1.2 through ruamel: ``1e-4`` is a float, ``yes`` a string). Values
then pass through pydantic as strict JSON, so that a list is fine for a tuple and an int for a float, while
``"3"`` is no int and ``true`` is no number.
"""

import json
import math
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from mipriv import plugin
from mipriv.errors import InputError
from tasks.engine import schematext

FILE = "params.yaml"
T = TypeVar("T")


class Block(BaseModel):
    """Base of every typed block: frozen, strict, unknown keys refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Expected(Block):
    """What a stage costs at the scale of this ``params.yaml``: one row of it, in minutes.

    ``threads`` replaces ``cost.threads`` for its cells, where there are too few of them to fill a machine;
    ``workers`` are processes that share its cells where they are many, without Ray.
    """

    minutes: Annotated[float, Field(gt=0)]
    threads: Annotated[int, Field(gt=0)] | None = None
    workers: Annotated[int, Field(gt=0)] = 1


def _share(gpus: float) -> float:
    if gpus > 1 and not gpus.is_integer():
        raise ValueError(f"{gpus:g} GPUs; allowed: a fraction of one, or a whole number")
    return gpus


class Cost(Block):
    """The block ``cost``: where and how fast, which no stage lists under its DVC ``params``.

    ``threads`` is the one number here that may change bytes, hence it is part of a cell's key. ``gpus`` (of
    one cell: a fraction of a GPU or a whole number; 0 keeps none for it) and ``retries`` (of a cell whose
    worker died) are for Ray, and ``ray`` says whether a run starts a head of its own. ``largest`` is, by the
    name of a knob, the largest number that is taken for meant. ``stages`` says what is expected of a stage by
    its name, or of one row by its address, e.g. ``split@faces``, in place of what its stage's name says.
    """

    device: Annotated[
        str,
        Field(
            pattern=r"^(auto|cpu|cuda|cuda:\d+)$", json_schema_extra={"allowed": "auto, cpu, cuda or cuda:N"}
        ),
    ]
    threads: Annotated[int, Field(gt=0)]
    gpus: Annotated[float, Field(ge=0), AfterValidator(_share)]
    retries: Annotated[int, Field(ge=0)]
    ray: Literal["auto", "always", "never"] = "auto"
    largest: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    stages: dict[str, Expected]

    def expected(self, address: str) -> Expected | None:
        """What is said of a stage or one of its rows."""
        return self.stages.get(address, self.stages.get(address.partition("@")[0]))

    def of(self, address: str) -> Self:
        """The costs of a stage or one of its rows: `threads` are those of its cells."""
        expected = self.expected(address)
        own = None if expected is None else expected.threads
        return self if own is None else self.model_copy(update={"threads": own})

    @model_validator(mode="after")
    def _ray_chooses(self) -> Self:
        if self.gpus and self.device.startswith("cuda:"):
            raise ValueError(
                f"device {self.device!r} with gpus {self.gpus:g}; allowed: auto or cuda, Ray chooses which"
            )
        return self


def load(path: Path | str = FILE) -> dict[str, Any]:
    """Read a YAML 1.2 file whose top is a mapping of blocks.

    Raises:
        InputError: no such file, not YAML (with the line), a key given twice, or no mapping at the top.
    """
    try:
        loaded = YAML(typ="safe").load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    except MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise InputError(
            f"{path}{line}: {_one_line(error.problem)}; allowed: YAML 1.2, each key once"
        ) from error
    except YAMLError as error:
        raise InputError(f"{path}: {_one_line(error)}; allowed: YAML 1.2") from error
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: holds {schematext.short(loaded)}; allowed: a mapping of blocks")
    return loaded


def validate(model: type[T], value: object, where: str, file: str = FILE) -> T:
    """An instance of `model` (a pydantic model or a dataclass) from plain YAML or JSON values.

    Args:
        where: dotted place of `value` in its file, e.g. ``invert.rows.ppa-none``.
        file: which that is, for the message.

    Raises:
        InputError: one line that names the dotted key, what stands there and what is allowed.
    """
    instance, mistakes = _check(model, value, where)
    _refuse(mistakes, file)
    return typing.cast(T, instance)


def plugin_knobs(family: str, name: str, mapping: object, where: str, **parts: Any) -> Any:
    """The plug-in `name` of `family`, its knobs checked against the types of its dataclass fields.

    `parts` are what it is composed of, handed to it as they are.

    Raises:
        InputError: an unknown plug-in or knob, a knob of another type, or a value that the plug-in itself
            refuses.
    """
    hints = typing.get_type_hints(_located(where, plugin.find, family, name), include_extras=True)
    if not isinstance(mapping, Mapping):
        raise InputError(f"{FILE}: {where}: {schematext.short(mapping)} is not a mapping of knobs")
    knobs: dict[str, Any] = {}
    mistakes: dict[str, str] = {}
    for knob, value in mapping.items():
        allowed = plugin.knobs(family, name).keys() - parts.keys()
        _located(where, plugin.one_of, str(knob), allowed, f"{family} {name}, knob")
        knobs[knob], found = _check(hints[knob], value, f"{where}.{knob}")
        mistakes |= found
    _refuse(mistakes, FILE)
    return _located(where, plugin.load, family, name, **knobs, **parts)


def _located(where: str, call: typing.Callable[..., T], *args: Any, **kwargs: Any) -> T:
    try:
        return call(*args, **kwargs)
    except ValueError as error:  # InputError is one; a plug-in's __post_init__ may raise either
        raise InputError(f"{FILE}: {where}: {_one_line(error)}") from error


def _refuse(mistakes: dict[str, str], file: str) -> None:
    if mistakes:
        more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
        raise InputError(f"{file}: {next(iter(mistakes.values()))}{more}")


def _check(annotation: Any, value: object, where: str) -> tuple[Any, dict[str, str]]:
    """The validated instance, and one message for each wrong key (of a union's branches: the first)."""
    if foreign := dict(_foreign(value, where)):
        return None, foreign
    adapter = TypeAdapter(annotation)
    try:
        return adapter.validate_json(json.dumps(value), strict=True, extra="forbid"), {}
    except ValidationError as error:
        schema = adapter.json_schema()
        mistakes: dict[str, str] = {}
        for detail in error.errors(include_url=False):
            key, message = _message(detail, value, schema, where)
            mistakes.setdefault(key, message)
        return None, mistakes


def _foreign(value: object, where: str) -> typing.Iterator[tuple[str, str]]:
    """What YAML can say and JSON cannot: dates, keys that are no strings, infinities."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"{where}.{key}", f"{where}: key {key!r} is not a string (allowed: a quoted key)"
            yield from _foreign(item, f"{where}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _foreign(item, f"{where}.{index}")
    elif isinstance(value, float) and not math.isfinite(value):
        yield where, f"{where}: {value} is not a finite number"
    elif not isinstance(value, str | int | float | None):
        yield (
            where,
            f"{where}: {value} was read as a {type(value).__name__} (allowed: quotes around a string)",
        )


def _message(detail: ErrorDetails, value: object, schema: dict[str, Any], where: str) -> tuple[str, str]:
    path, found, in_union = schematext.locate(detail["loc"], value)
    key = ".".join([where, *map(str, path)])
    if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return key, _unknown(key, schematext.at(schema, path[:-1]))
    if detail["type"] in ("missing", "missing_argument"):
        key = f"{key}.{detail['loc'][-1]}"
        return key, f"{key}: is missing{_allowed(schematext.at(schema, [*path, detail['loc'][-1]]))}"
    if detail["type"] in ("value_error", "assertion_error"):
        return key, f"{key}: {_one_line(detail['ctx']['error'])}"
    is_not = detail["msg"].removeprefix("Input should be ")
    text = f"is not {is_not}" if is_not != detail["msg"] and not in_union else "is not allowed here"
    return key, f"{key}: {schematext.short(found)} {text}{_allowed(schematext.at(schema, path))}"


def _unknown(key: str, schema: dict[str, Any]) -> str:
    where, _, name = key.rpartition(".")
    try:
        plugin.one_of(name, schematext.keys(schema), where)
    except InputError as error:
        return str(error)
    raise AssertionError(f"{key} was refused, yet its schema allows it")


def _allowed(schema: dict[str, Any]) -> str:
    text = schematext.describe(schema)
    return f" (allowed: {text})" if text else ""


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
