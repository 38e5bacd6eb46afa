"""The loss alone: what needs no reference."""

from dataclasses import dataclass

from torch import Tensor

from mipriv.attacks.membership import Answers
from mipriv.attacks.search.shadows import log_odds


@dataclass(frozen=True)
class Loss:
    """A threshold on the loss (Yeom et al., CSF 2018, adversary 1), the same for every record.

    The score is log(p_y / (1 - p_y)), of which minus the cross-entropy, log p_y, is a rising function: for
    one query both order records alike, but this one does not round to equal scores where p_y is near 1.
    Several queries are averaged.
    """

    def __call__(self, targets: Answers, references: Answers | None = None) -> Tensor:
        """See `Membership`; the references are not looked at."""
        return log_odds(targets.logits, targets.labels).mean(1)
