"""Published claims as data: what a study says, where that was read, and how its direction is tested here.

A folder holds one JSON file a study, and `rows.json`, the one place that says which rows of `params.yaml` the
tests mean.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mipriv.errors import InputError
from mipriv.plugin import one_of
from tasks.engine.params import Block, validate

ROWS = "rows.json"
UNDEFENDED = "undefended"  # the victim of that name in `rows.json`
Leaks = Literal["accuracy@1", "accuracy@5", "knn"]  # figures of the leakage table that a test may read
Text = Annotated[str, Field(pattern=r"\S", json_schema_extra={"allowed": "text that is not empty"})]
# An attack and a victim, by their names in `rows.json`.
Target = Annotated[
    str,
    Field(pattern=r"^[^/]+/[^/]+$", json_schema_extra={"allowed": "ATTACK/VICTIM, as rows.json names them"}),
]


class Published(Block):
    """One figure as it was printed: of which `setting`, which `figure`, its `value` or range, and `unit`."""

    setting: Text
    figure: Text
    value: float | tuple[float, float]
    unit: Literal["%", "points", "distance", "R²", "count"]

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if isinstance(self.value, tuple) and self.value[0] > self.value[1]:
            raise ValueError(f"value: {list(self.value)}; allowed: a number, or [low, high]")
        return self

    @property
    def spelt(self) -> str:
        """`57.89%`, `84 to 88%`, `0.893`, `+3 points`."""
        ends = self.value if isinstance(self.value, tuple) else (self.value,)
        sign = "+" if self.unit == "points" else ""
        said = " to ".join(f"{end:{sign}g}" for end in ends)
        return said + {"%": "%", "points": " points"}.get(self.unit, "")


class Difference(Block):
    """`row` minus `against`, paired and stored by `evaluate`: `expected` is its sign."""

    targets: ClassVar = ("row", "against")
    kind: Literal["difference"]
    figure: Leaks
    row: Target
    against: Target
    expected: Literal[-1, 1]


class Order(Block):
    """A figure of the row `above` is larger than that of the row `below`."""

    targets: ClassVar = ("above", "below")
    kind: Literal["order"]
    figure: Leaks
    above: Target
    below: Target


class Natural(Block):
    """The victim `above` has the higher natural accuracy."""

    victims: ClassVar = ("above", "below")
    kind: Literal["natural"]
    above: Text
    below: Text


class Fisher(Block):
    """Which third of a victim's convolution and linear layers has more information a parameter.

    `task` is the loss; `information` says whether labels are given (`empirical`) or sampled (`true`).
    """

    victims: ClassVar = ("victim",)
    kind: Literal["fisher"]
    victim: Text
    task: Literal["classification", "inversion"]
    information: Literal["true", "empirical"]
    dominates: Literal["first third", "last third"]


Test = Difference | Order | Natural | Fisher
KINDS: Mapping[str, type[Test]] = {
    "difference": Difference,
    "order": Order,
    "natural": Natural,
    "fisher": Fisher,
}


class Claim(Block):
    """What a study says, and how it is tested here, or why it is not.

    Attributes:
        id: its own among all files.
        says: one sentence in our words.
        published: figures; none where only words were found.
        source: where they were read, in words.
        reliability: `paper`, read in a paper's text; `third party`, in what others say of one; `unverified`,
            from memory.
        test: how the direction is read here.
        not_run: why it is not.
    """

    id: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9_+]+(-[a-z0-9_+]+)*$",
            json_schema_extra={"allowed": "words of a-z, 0-9, _ or + with hyphens between"},
        ),
    ]
    says: Text
    published: tuple[Published, ...]
    source: Text
    reliability: Literal["paper", "third party", "unverified"]
    test: Annotated[Test, Field(discriminator="kind")] | None
    not_run: Text | None

    @model_validator(mode="after")
    def _tested_or_not(self) -> Self:
        if (self.test is None) == (self.not_run is None):
            raise ValueError("test and not_run are both given or both null; allowed: one of them")
        return self


class Study(Block):
    """A `study` by its short name, the `paper`, and what it claims or others claim of it."""

    study: Text
    paper: Text
    claims: tuple[Claim, ...]


class Rows(Block):
    """Names that tests use, and what stands for them in the rows `ATTACK-VICTIM` of `params.yaml`."""

    attacks: dict[str, Text]
    victims: dict[str, Text]

    @model_validator(mode="after")
    def _one_is_undefended(self) -> Self:
        if UNDEFENDED not in self.victims:
            raise ValueError(
                f"victims: {', '.join(self.victims) or 'none'}; allowed: {UNDEFENDED!r} among them"
            )
        return self

    def row(self, target: str) -> str:
        """The row of `invert` that a target means."""
        attack, victim = target.split("/")
        return f"{self.attacks[attack]}-{self.victims[victim]}"


@dataclass(frozen=True)
class Claims:
    """All studies of a folder, in the order of their files' names."""

    rows: Rows
    studies: tuple[Study, ...]


def read(folder: Path) -> Claims:
    """Every study of a folder, checked.

    Raises:
        InputError: one line that names the file, the claim and what is allowed: not JSON, a key or value that
            is not allowed, an attack or victim that `rows.json` does not name, or an id used before.
    """
    rows = validate(Rows, _loaded(folder / ROWS), "names", str(folder / ROWS))
    seen: dict[str, Path] = {}
    paths = sorted(path for path in folder.glob("*.json") if path.name != ROWS)
    return Claims(rows, tuple(_study(path, rows, seen) for path in paths))


def _study(path: Path, rows: Rows, seen: dict[str, Path]) -> Study:
    raw = _loaded(path)
    parts = raw.get("claims") if isinstance(raw, dict) else None
    for place, part in enumerate(parts if isinstance(parts, list) else ()):
        name = part.get("id", place) if isinstance(part, dict) else place
        claim = _claim(part, f"claims.{name}", path)
        if claim.test is not None:
            _refuse_unknown(claim.test, rows, f"{path}: claims.{name}.test")
        if claim.id in seen:
            raise InputError(f"{path}: claims.{name}.id: used in {seen[claim.id]}; allowed: each id once")
        seen[claim.id] = path
    return validate(Study, raw, "study", str(path))


def _claim(raw: object, where: str, path: Path) -> Claim:
    test = raw.get("test") if isinstance(raw, dict) else None
    if test is not None:  # checked as its own kind first: the line then names what that kind allows
        kind = str(test.get("kind") if isinstance(test, dict) else test)
        one_of(kind, KINDS, f"{path}: {where}.test.kind")
        validate(KINDS[kind], test, f"{where}.test", str(path))
    return validate(Claim, raw, where, str(path))


def _refuse_unknown(test: Test, rows: Rows, where: str) -> None:
    for field in getattr(test, "targets", ()):
        attack, victim = getattr(test, field).split("/")
        one_of(attack, rows.attacks, f"{where}.{field}: attack")
        one_of(victim, rows.victims, f"{where}.{field}: victim")
    for field in getattr(test, "victims", ()):
        one_of(getattr(test, field), rows.victims, f"{where}.{field}: victim")


def _loaded(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: no claims ({' '.join(str(error).split())}); allowed: a JSON object"
        ) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"key {twice!r} is given twice")
    return found
