"""Refusals that say where in the parameters a mistake stands."""

from collections.abc import Callable
from typing import Any, TypeVar

from mipriv.errors import InputError
from mipriv.plugin import one_of
from tasks.engine import params

M = TypeVar("M")


def known(where: str, name: object, allowed: Any) -> None:
    """Refuse a reference to what is not there."""
    if name not in allowed:
        one_of(str(name), [str(item) for item in allowed], f"{params.FILE}: {where}")


def distinct(where: str, seeds: list[int]) -> None:
    """Refuse no seed, a negative one, or one given twice."""
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise InputError(f"{params.FILE}: {where}: {seeds}; allowed: one or more integers from 0, each once")


def at(where: str, call: Callable[..., M], *arguments: Any) -> M:
    """Call, and say where in the parameters a refusal comes from."""
    try:
        return call(*arguments)
    except InputError as error:
        raise InputError(f"{params.FILE}: {where}: {error}") from error
