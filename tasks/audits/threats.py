"""Which attacks apply to a victim, and why the others do not."""

from dataclasses import dataclass

from mipriv.data.dataset import Dataset
from tasks.audits.rows import Audit, Row

NOT_APPLICABLE, NOT_RUN = "not applicable", "not run"
RECONSTRUCTION, MEMBERSHIP, INVERSION, ATTRIBUTES = "reconstruction", "membership", "inversion", "attributes"
REFERENCED = ("lira", "rmia")  # attacks on membership that need shadow models


@dataclass(frozen=True)
class LeftOut:
    """An attack that was not run on the victim `subject`: `state` says whether it could have been, `why` what
    is missing."""

    subject: str
    threat: str
    attack: str
    state: str
    why: str

    @property
    def said(self) -> str:
        """As a cell of the table reads."""
        return f"{self.state}: {self.why}"


def features(row: Row, data: Dataset) -> str | None:
    """Why features cannot be attacked; None: they can."""
    if not row.layers:
        return "no cut: no layers named"
    if not row.attacks:
        return "no attack named"
    if row.knowledge == "public" and len(data.manifest.splits["public/train"]) < 3:
        return "no public images"
    return None


def membership(row: Row) -> str | None:
    """Why membership cannot be told; None: it can."""
    return "no member records" if row.training == row.data else None


def inversion(wanted: Audit, row: Row, data: Dataset) -> tuple[str, str] | None:
    """State and reason why the victim's classes cannot be inverted; None: they can."""
    if not row.people:
        return NOT_APPLICABLE, "classes are no people"
    public = len(data.manifest.splits["public/train"]) + len(data.manifest.splits["public/validation"])
    if not public:
        return NOT_APPLICABLE, "no public folder"
    needed = wanted.inversion.prior_knobs.get("components", 1)
    if public <= needed:
        return NOT_APPLICABLE, f"{public} public images; the prior needs more than {needed}"
    if not len(data.manifest.splits["private/train"]) or not len(data.manifest.splits["private/test"]):
        return NOT_RUN, "needs judges, who know people from data's splits train and test"
    return None


def left_out(wanted: Audit, name: str, row: Row, data: Dataset) -> list[LeftOut]:
    """All that is known before any work."""
    found = []
    if why := features(row, data):
        attacks = ", ".join(row.attacks) or "any"
        found.append(LeftOut(name, RECONSTRUCTION, attacks, NOT_APPLICABLE, why))
    if why := membership(row):
        found.append(LeftOut(name, MEMBERSHIP, "loss", NOT_APPLICABLE, why))
    if row.shadows is None or why:
        reason = why or "no shadow models"
        found += [LeftOut(name, MEMBERSHIP, attack, NOT_APPLICABLE, reason) for attack in REFERENCED]
    if cannot := inversion(wanted, row, data):
        found.append(LeftOut(name, INVERSION, wanted.inversion.attack, *cannot))
    found.append(
        LeftOut(
            name, ATTRIBUTES, "fresh attackers", NOT_APPLICABLE, "the model is not split: no cut to send from"
        )
    )
    return found
