"""Which rows of `invert` belong together: one attack in one setting, one defence over its strengths."""

from collections.abc import Mapping

from tasks import finetune, invert
from tasks.leakage import UNDEFENDED


def setting(row: invert.Row, victim: finetune.Row) -> str:
    """What an attacked defence shares with its undefended end."""
    knobs = ", ".join(f"{knob} {value}" for knob, value in row.knobs.items())
    return f"{row.attack}{f' ({knobs})' if knobs else ''} with {row.prior}, backbone {victim.backbone}"


def family(victim: finetune.Row) -> str:
    """Name of a defence whose strengths make one curve; a frozen front beside a loss is another defence."""
    frozen = " + tl_dmi" if victim.knobs.get("freeze") else ""
    return f"{victim.defense}{frozen}"


def curves(wanted: invert.Invert, victims: Mapping[str, finetune.Row]) -> dict[tuple[str, str], list[str]]:
    """Rows of `invert` that make one curve, by (setting, defence); the undefended end is in each."""
    found: dict[tuple[str, str], list[str]] = {}
    plain: dict[str, str] = {}
    for name, row in wanted.rows.items():
        victim = victims[row.victim]
        where = setting(row, victim)
        if victim.defense == UNDEFENDED:
            plain[where] = name
        else:
            found.setdefault((where, family(victim)), []).append(name)
    return {key: [plain[key[0]], *rows] for key, rows in found.items() if key[0] in plain}
