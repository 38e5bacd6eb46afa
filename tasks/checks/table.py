"""Parameters of inversions of split victims, and of the table that joins all threats."""

from urllib.parse import urlsplit

from mipriv import plugin
from mipriv.errors import InputError
from tasks.checks.parameters import Parameters
from tasks.checks.refusals import distinct, known
from tasks.engine import events, params
from tasks.engine.params import plugin_knobs
from tasks.prepare import FACES


def check(wanted: Parameters) -> None:
    """Refuse the first mistake.

    Raises:
        InputError: one line that names the key, what it was and what is allowed.
    """
    for name in wanted.invert_split.rows:
        _inversion(wanted, name)
    for name in wanted.table.rows:
        _line(wanted, name)
    if urlsplit(wanted.book.mlflow).scheme not in ("http", "https"):
        said = f"{wanted.book.mlflow!r}; allowed: an address that begins with http:// or https://"
        raise InputError(f"{params.FILE}: book.mlflow: {said}")


def _inversion(wanted: Parameters, name: str) -> None:
    row, where = wanted.invert_split.rows[name], f"invert_split.rows.{name}"
    if name in wanted.invert.rows:
        raise InputError(f"{params.FILE}: {where}: a row of invert has this name; allowed: another one")
    known(f"{where}.attack", row.attack, wanted.invert.attacks)
    known(f"{where}.victim", row.victim, wanted.split.rows)
    victim = wanted.split.rows[row.victim]
    known(f"{where}.arm", row.arm, victim.arms)
    known(f"{where}.prior", row.prior, wanted.prior.rows)
    if victim.data != FACES:
        said = f"{row.victim!r} is trained on {victim.data!r}; allowed: victims on {FACES!r}, as judges are"
        raise InputError(f"{params.FILE}: {where}.victim: {said}")
    plugin_knobs("inversion", row.attack, wanted.invert.knobs(row.like_whole()), f"{where}.knobs")
    if hasattr(plugin.find("inversion", row.attack), "study"):
        without = [a for a in wanted.invert.attacks if not hasattr(plugin.find("inversion", a), "study")]
        said = f"{row.attack!r} studies its victim's layers; allowed: {', '.join(sorted(without))}"
        raise InputError(f"{params.FILE}: {where}.attack: {said}")
    distinct(f"{where}.seeds", row.seeds)
    for seed in row.seeds:
        known(f"{where}.seeds", seed, victim.seeds)


def _line(wanted: Parameters, name: str) -> None:
    row, where = wanted.table.rows[name], f"table.rows.{name}"
    if not events.NAME.fullmatch(name):
        raise InputError(f"{params.FILE}: {where}: no name; allowed: letters, digits and _ . - : / or space")
    known(f"{where}.data", row.data, wanted.prepare.rows)
    if row.of == "finetune":
        known(f"{where}.victim", row.victim, wanted.finetune.rows)
        known(f"{where}.data", row.data, [FACES])
        if row.arm is not None:
            said = f"{row.arm!r}; allowed: null, a whole victim has none"
            raise InputError(f"{params.FILE}: {where}.arm: {said}")
        return
    known(f"{where}.victim", row.victim, wanted.split.rows)
    known(f"{where}.data", row.data, [wanted.split.rows[row.victim].data])
    if row.layer is not None:
        said = f"{row.layer!r}; allowed: null, a split victim is cut already"
        raise InputError(f"{params.FILE}: {where}.layer: {said}")
    known(f"{where}.arm", row.arm or "", wanted.split.rows[row.victim].arms)
