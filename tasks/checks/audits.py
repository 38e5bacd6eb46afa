"""Parameters of audits: models that users bring, held against their data before any work."""

from pathlib import Path

from mipriv import plugin
from mipriv.errors import InputError
from mipriv.models.split import split
from mipriv.plugin import one_of
from tasks.audits.rows import Row, Victim
from tasks.checks.parameters import Parameters
from tasks.checks.refusals import at, known
from tasks.engine import params
from tasks.engine.params import plugin_knobs


def check(wanted: Parameters) -> None:
    """Refuse the first mistake.

    Raises:
        InputError: one line that names the key, what it was and what is allowed.
    """
    block = wanted.audit
    for name, knobs in block.attacks.items():
        plugin_knobs("reconstruction", name, knobs, f"audit.attacks.{name}")
    inversion = block.inversion
    plugin_knobs("inversion", inversion.attack, inversion.knobs, "audit.inversion.knobs")
    plugin_knobs("prior", inversion.prior, inversion.prior_knobs, "audit.inversion.prior_knobs")
    known("audit.inversion.judge", inversion.judge, plugin.names("embedder"))
    if hasattr(plugin.find("inversion", inversion.attack), "study"):
        said = f"{inversion.attack!r} studies its victim first; allowed: an attack that does not"
        raise InputError(f"{params.FILE}: audit.inversion.attack: {said}")
    for name, row in block.rows.items():
        _row(wanted, f"audit.rows.{name}", row)


def _row(wanted: Parameters, where: str, row: Row) -> None:
    for key in ("data", "training"):
        known(f"{where}.{key}", getattr(row, key), wanted.prepare.rows)
    for attack in row.attacks:
        known(f"{where}.attacks", attack, wanted.audit.attacks)
    for key in ("attacks", "layers"):
        given = getattr(row, key)
        if len(set(given)) < len(given):
            raise InputError(f"{params.FILE}: {where}.{key}: {given}; allowed: each once")
    shape, folders = wanted.image_shape(row.data), wanted.names(row.data)
    if wanted.image_shape(row.training) != shape:
        said = f"images {list(wanted.image_shape(row.training))}; allowed: {list(shape)}, as of {row.data}"
        raise InputError(f"{params.FILE}: {where}.training: {said}")
    if len(folders) < 2:
        raise InputError(f"{params.FILE}: {where}.data: {len(folders)} classes; allowed: 2 or more")
    at(where, _victim, row, shape, folders, wanted.names(row.training))


def _victim(row: Row, shape: tuple[int, int, int], folders: list[str], training: list[str]) -> None:
    """The model itself is read: what does not fit is said before anything is computed."""
    with row.brought(Path.cwd()) as weights:
        victim = Victim.load(row, weights, shape, folders)
    victim.outputs(training)
    # By the names that the user knows: the network stands behind a layer of preprocessing here.
    inside = [name.removeprefix("network.") for name, _ in victim.model.named_modules() if "network." in name]
    for layer in row.layers:
        one_of(layer, inside, "layers")
        split(victim.model, f"network.{layer}", shape)
