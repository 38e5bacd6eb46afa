"""Parameters of the audits of attributes: victims, whose images, and what is asked of them."""

from mipriv import plugin
from mipriv.errors import InputError
from tasks.attributes import Row
from tasks.auditing.parts import IDENTITY
from tasks.checks.parameters import Parameters
from tasks.checks.refusals import distinct, known
from tasks.engine import params
from tasks.engine.params import plugin_knobs


def check(wanted: Parameters) -> None:
    """Refuse the first mistake.

    Raises:
        InputError: one line that names the key, what it was and what is allowed.
    """
    for name, knobs in wanted.attributes.auditors.items():
        known(f"attributes.auditors.{name}", name, plugin.names("attributes"))
        plugin_knobs("attributes", name, knobs, f"attributes.auditors.{name}")
    for name, row in wanted.attributes.rows.items():
        _row(wanted, f"attributes.rows.{name}", row)


def _row(wanted: Parameters, where: str, row: Row) -> None:
    known(f"{where}.victim", row.victim, wanted.split.rows)
    victim = wanted.split.rows[row.victim]
    known(f"{where}.data", row.data, [victim.data])
    distinct(f"{where}.seeds", row.seeds)
    for seed in row.seeds:
        known(f"{where}.seeds", seed, victim.seeds)
    for arm in row.arms or []:
        known(f"{where}.arms", arm, victim.arms)
    for auditor in row.auditors or []:
        known(f"{where}.auditors", auditor, wanted.attributes.auditors)
    if row.population == "public" and not wanted.prepare.rows[row.data].split.public:
        said = f"'public', but {row.data!r} has no public people; allowed: inference"
        raise InputError(f"{params.FILE}: {where}.population: {said}")
    people = [IDENTITY] if row.population == "inference" else []
    for attribute in row.attributes:
        known(f"{where}.attributes", attribute, [*wanted.attribute_names(row.data), *people])
    for what in ("attributes", "budgets", "auditors", "arms"):
        given = getattr(row, what)
        if given is not None and (not given or len(set(given)) < len(given)):
            raise InputError(f"{params.FILE}: {where}.{what}: {given}; allowed: one or more, each once")
    _ceiling(wanted, f"{where}.undefended", row)


def _ceiling(wanted: Parameters, where: str, row: Row) -> None:
    """The undefended arm is audited on the same images, for the same attributes, over as many seeds."""
    rows = wanted.attributes.rows
    arms = {
        f"{name}/{arm}": other
        for name, other in rows.items()
        if other.victim in wanted.split.rows
        for arm in other.arms or wanted.split.rows[other.victim].arms
    }
    known(where, row.undefended, arms)
    other = arms[row.undefended]
    for what in ("data", "population", "targets", "seeds"):
        if getattr(other, what) != getattr(row, what):
            said = f"{row.undefended!r} has the {what} {getattr(other, what)}; allowed: {getattr(row, what)}"
            raise InputError(f"{params.FILE}: {where}: {said}")
    missing = set(row.attributes) - set(other.attributes)
    if missing:
        said = f"{row.undefended!r} is not audited for {min(missing)!r}; allowed: an arm that is"
        raise InputError(f"{params.FILE}: {where}: {said}")
