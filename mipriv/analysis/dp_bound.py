"""What differential privacy allows a membership attack: the largest TPR at an FPR."""

import math

from mipriv.errors import InputError


def tpr_bound(epsilon: float, delta: float, fpr: float) -> float:
    """min(e^eps f + delta, 1 - e^-eps (1 - delta - f)): the most that (eps, delta) allows any attack.

    Kairouz, Oh and Viswanath, "The Composition Theorem for Differential Privacy" (ICML 2015), eq. 3: both
    errors of a test of one record, the second line with the two hypotheses exchanged. It is for records added
    or removed; neighbours that differ by a substitution are two such steps apart.

    Args:
        epsilon: from 0, in nats.
        delta: from 0 to below 1.
        fpr: f, between 0 and 1.

    Returns:
        TPR, at most 1.

    Raises:
        InputError: an argument outside its range.
    """
    if not (0 <= epsilon < math.inf and 0 <= delta < 1 and 0 < fpr < 1):
        raise InputError(
            f"dp bound: epsilon {epsilon}, delta {delta}, fpr {fpr}; allowed: epsilon finite and from 0, "
            "delta from 0 to below 1, fpr between 0 and 1"
        )
    # e^eps overflows where the other line is the lower one by far.
    raised = math.exp(min(epsilon, 700.0)) * fpr + delta
    return min(1.0, raised, 1 - math.exp(-epsilon) * (1 - delta - fpr))


def check_size(what: str, examples: float, classes: float) -> None:
    """Refuse what is no number of examples a class or of classes.

    Raises:
        InputError: fewer than 1 example, or fewer than 2 classes.
    """
    if not (1 <= examples < math.inf and 2 <= classes < math.inf):
        raise InputError(
            f"{what}: {examples} examples a class in {classes} classes; allowed: from 1, and from 2"
        )
