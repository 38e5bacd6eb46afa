"""No defence: every parameter is trained. Full fine-tuning, the upper end of TL-DMI's curve."""

from dataclasses import dataclass

from mipriv.defenses import Defense


@dataclass(frozen=True)
class None_(Defense):
    """Plain training."""
