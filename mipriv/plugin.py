"""Plug-ins found by the name of their module: adding one is adding a file.

A *family* is a package; each public module in it holds one plug-in, a dataclass whose name is
the module's, compared without case and underscores (``tl_dmi`` holds ``TLDMI``). Its
fields are its knobs, its field defaults the published constants. Only the module that is asked
for is imported, so that what a stage depends on is what it names.
"""

import dataclasses
import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any

from mipriv.errors import InputError

FAMILIES = {
    "source": "mipriv.data.sources",
    "classifier": "mipriv.models.classifiers",
    "embedder": "mipriv.models.embedders",
    "prior": "mipriv.models.generators",
    "defense": "mipriv.defenses",
    "inversion": "mipriv.attacks.inversion",
    "reconstruction": "mipriv.attacks.reconstruction",
    "membership": "mipriv.attacks.membership",
    "attributes": "mipriv.attacks.attributes",
}


def one_of(name: str, allowed: Iterable[str], what: str) -> None:
    """Refuse `name` unless it is among `allowed`.

    Raises:
        InputError: naming what was given, the closest allowed name, and all allowed names.
    """
    allowed = sorted(allowed)
    if name in allowed:
        return
    close = difflib.get_close_matches(str(name), allowed, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise InputError(f"{what}: {name!r} does not exist{hint}; allowed: {', '.join(allowed) or 'none'}")


def names(family: str) -> list[str]:
    """Names of every plug-in of a family, sorted, without importing any of them."""
    one_of(family, FAMILIES, "plug-in family")
    package = importlib.import_module(FAMILIES[family])
    found = pkgutil.iter_modules(package.__path__)
    return sorted(m.name for m in found if not m.name.startswith("_"))


def find(family: str, name: str) -> type:
    """The plug-in class behind a name.

    Raises:
        InputError: the family holds no module of that name, or the module no class of its name.
    """
    one_of(name, names(family), family)
    module = importlib.import_module(f"{FAMILIES[family]}.{name}")
    for attribute, value in vars(module).items():
        if (
            isinstance(value, type)
            and _bare(attribute) == _bare(name)
            and value.__module__ == module.__name__
        ):
            return value
    raise InputError(f"{module.__name__} holds no class named after it (any case of {_bare(name)!r})")


def knobs(family: str, name: str) -> dict[str, Any]:
    """Knobs of a plug-in: field name to annotation, in the order of the dataclass."""
    cls: Any = find(family, name)
    return {field.name: field.type for field in dataclasses.fields(cls) if field.init}


def load(family: str, name: str, /, **knobs_given: Any) -> Any:
    """Build the plug-in `name` of `family`.

    Raises:
        InputError: no such plug-in, a knob it does not have, a required knob that is missing,
            or a value that the plug-in itself refuses.
    """
    cls: Any = find(family, name)
    for knob in knobs_given:
        one_of(knob, knobs(family, name), f"{family} {name}, knob")
    required = [f.name for f in dataclasses.fields(cls) if f.init and _has_no_default(f)]
    missing = [knob for knob in required if knob not in knobs_given]
    if missing:
        raise InputError(f"{family} {name}: missing {', '.join(missing)}")
    return cls(**knobs_given)


def _bare(name: str) -> str:
    return name.replace("_", "").lower()


def _has_no_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
