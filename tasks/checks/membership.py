"""Parameters of membership inference: what shadow models are trained on."""

from mipriv.models import classifiers
from mipriv.models.pretrained import refuse_unknown
from tasks.checks.parameters import Parameters
from tasks.checks.refusals import at, known
from tasks.engine.params import plugin_knobs


def check(wanted: Parameters) -> None:
    """Refuse the first mistake.

    Raises:
        InputError: one line that names the key, what it was and what is allowed.
    """
    for name, row in wanted.features.rows.items():
        where = f"features.rows.{name}"
        known(f"{where}.data", row.data, wanted.prepare.rows)
        architecture = plugin_knobs("classifier", row.arch, row.knobs, where)
        if row.weights is not None:
            at(f"{where}.weights", refuse_unknown, row.weights)
        at(where, classifiers.build, architecture, wanted.people(row.data), wanted.image_shape(row.data), 0)
