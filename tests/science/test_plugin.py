"""Plug-ins: found by file name, refused loudly."""

import importlib
import pkgutil

import pytest

from mipriv import plugin
from mipriv.errors import InputError


@pytest.mark.parametrize("family", plugin.FAMILIES)
def test_every_module_of_a_family_holds_the_class_named_after_it(family: str) -> None:
    package = importlib.import_module(plugin.FAMILIES[family])
    modules = {m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")}
    assert modules and set(plugin.names(family)) == modules
    for name in modules:
        assert plugin.find(family, name).__module__.endswith(f".{name}")
        assert plugin.find(family, name).__doc__


def test_unknown_plugin_names_the_closest() -> None:
    with pytest.raises(
        InputError, match=r"'gmj' does not exist \(did you mean 'gmi'\?\); allowed: .*gmi.*ppa"
    ):
        plugin.load("inversion", "gmj")


def test_unknown_knob_is_refused_not_ignored() -> None:
    with pytest.raises(
        InputError, match=r"inversion ppa, knob: 'step' does not exist \(did you mean 'steps'"
    ):
        plugin.load("inversion", "ppa", step=3)


def test_missing_required_knob_is_named() -> None:
    with pytest.raises(InputError, match="source arrays: missing file"):
        plugin.load("source", "arrays")


def test_knobs_reach_the_plugin() -> None:
    assert plugin.load("inversion", "gmi", steps=7).steps == 7
