"""What membership inference comes to in words, chosen by the intervals."""

from collections.abc import Sequence

from mipriv.analysis.power_law import PAPER
from mipriv.analysis.shift_law import THEORY
from mipriv.metrics.membership import EXPECTED
from mipriv.stats import Figure
from tasks.leakage import percent, sign
from tasks.memberships import grids, laws
from tasks.memberships.grids import Size
from tasks.page.grid import LOSS, Grid, above

NOTHING = "Nothing was run: membership.rows is empty at this scale, and this page has no figures."
EPSILON = max(laws.EPSILONS)


def said(found: Sequence[Grid]) -> list[str]:
    """Findings over every grid, each sentence naming its own; where there is no grid, that nothing was run."""
    if not found:
        return [NOTHING]
    sentences = []
    for grid in found:
        own = [_most(grid), *_ends(grid), *_slopes(grid), *_least(grid)]
        own += [*_loss(grid), *_not_shown(grid), *_gradient(grid), *_refused(grid), *_unconverged(grid)]
        sentences += [f"{grid.name}: {sentence}" for sentence in own]
    return sentences


def figure(value: Figure, digits: int = 3) -> str:
    """A figure with its interval: `-0.463 [-0.550, -0.398]`."""
    point, low, high = (f"{end + 0.0:.{digits}f}" for end in (value.point, value.low, value.high))
    return f"{point} [{low}, {high}]"


def number(value: float) -> str:
    """Of examples: whole ones, without an end past a million million."""
    return f"{value:,.0f}" if value < 1e12 else "no limit"


def examples(value: Figure) -> str:
    """Least examples with their interval."""
    return f"{number(value.point)} [{number(value.low)}, {number(value.high)}]"


def published(epsilon: float, rate: float) -> str:
    """Least examples by the published law, rounded up to two digits as published; empty without a law."""
    if rate not in PAPER:
        return ""
    exact = PAPER[rate].least_examples(epsilon, laws.DELTA, laws.CLASSES)
    unit = 10.0 ** max(0, len(f"{exact:.0f}") - 2)
    return number(-(-exact // unit) * unit)


def _most(grid: Grid) -> str:
    """Which attack tells most, and how surely."""
    best, told = grid.best, grid.told
    others = [name for name in grid.attacks if name != best]
    if not told:
        return f"no rate of false positives is resolved in any cell; by AUC {best} tells most."
    rate, sizes = next(iter(told.items()))
    if not others:
        return f"{best} is the only attack that was run."
    ahead = 0
    for size in sizes:
        own = grid.tpr(best, size, rate)
        rest = [grid.tpr(name, size, rate) for name in others]
        ahead += own is not None and all(one is not None and own.low > one.high for one in rest)
    return (
        f"{best} tells most: of {len(grid.attacks)} attacks it has the highest mean TPR at an FPR of {rate:g} over "
        f"{len(sizes)} cells, and in {ahead} of them its interval lies above all others."
    )


def _ends(grid: Grid) -> list[str]:
    """TPR of the smallest and the largest training sets, at the most classes that resolve both."""
    if not grid.told:
        return []
    rate, sizes = next(iter(grid.told.items()))
    classes = max(size.classes for size in sizes)
    own = sorted(size.examples for size in sizes if size.classes == classes)
    ends = [Size(end, classes) for end in dict.fromkeys((own[0], own[-1]))]
    parts, anew = [], []
    for size in ends:
        told, again = (grid.tpr(grid.best, size, rate, fresh) for fresh in (False, True))
        if told is not None and again is not None:
            doubt = "" if above(told, rate) > 0 else ", not shown to be more than guessing"
            parts.append(f"{percent(told)}% with {size.examples} examples a class{doubt}")
            anew.append(percent(again))
    return [
        f"at an FPR of {rate:g} and with {classes} classes {grid.best} finds {' and '.join(parts)}. Halves of a fixed "
        f"pool flatter it: as on examples drawn anew, {' and '.join(f'{one}%' for one in anew)}."
    ]


def _slopes(grid: Grid) -> list[str]:
    """The law of the best attack, beside the published slope and that of theory."""
    sentences = []
    for rate in grid.told:
        b_s, b_c = (grid.law(grid.best, rate, slope) for slope in laws.SLOPES[:2])
        if b_s is None or b_c is None:
            sentences.append(
                f"at an FPR of {rate:g} too few cells tell more than guessing for a law in their sizes."
            )
            continue
        falls = (
            f"at an FPR of {rate:g} the TPR of {grid.best} less the FPR goes with the examples a class to the "
            f"power {figure(b_s)}"
        )
        if sign(b_s) == 0:
            falls += ", by which no fall is shown"
        beside = [f"{_holds(b_s, THEORY)} theory's {THEORY:g} for large training sets"]
        if rate in PAPER:
            beside.insert(0, f"{_holds(b_s, PAPER[rate].b_s)} the published {PAPER[rate].b_s:g}")
        more = "" if sign(b_c) else ", by which no effect of their number is shown"
        sentences.append(
            f"{falls}; the interval {' and '.join(beside)}. With the classes it goes to the power "
            f"{figure(b_c)}{more}."
        )
    return sentences


def _holds(value: Figure, other: float) -> str:
    return "holds" if value.low <= other <= value.high else "does not hold"


def _least(grid: Grid) -> list[str]:
    """What more examples buy."""
    parts, most = [], 0.0
    for rate in grid.told:
        least = grid.least(grid.best, rate, EPSILON)
        if least is not None:
            paper = published(EPSILON, rate)
            beside = f" (published: {paper})" if paper else ""
            parts.append(f"{examples(least)} at an FPR of {rate:g}{beside}")
            most = max(most, least.point)
    if not parts:
        return []
    beyond = "; what is beyond is extrapolated" if most > max(grid.examples) else ""
    return [
        f"by its law, {grid.best} shows no more than epsilon {EPSILON:g} (delta {laws.DELTA:g}) allows from so many "
        f"examples of each of {laws.CLASSES} classes: {', '.join(parts)}. At most {max(grid.examples)} were trained "
        f"on{beyond}. That is of the mean over records and of this attack: no guarantee."
    ]


def _loss(grid: Grid) -> list[str]:
    """Whether a model's loss tells anything without any shadow."""
    sentences = []
    for name in (name for name, attack in grid.attacks.items() if attack == LOSS):
        parts = []
        for rate, sizes in grid.told.items():
            signs = _signs(grid, name, rate, sizes)
            shown = f"{signs.count(1)} of {len(sizes)} cells" if 1 in signs else f"none of {len(sizes)} cells"
            parts.append(f"at an FPR of {rate:g} in {shown}")
        aucs = [one.point for size in grid.sizes if (one := grid.figure(name, size, grids.AUC)) is not None]
        by_auc = f"its AUC is {min(aucs):.2f} to {max(aucs):.2f}"
        if parts:
            sentences.append(
                f"the loss alone ({name}), one threshold for all records and no shadow, is shown to tell members "
                f"{', '.join(parts)}; {by_auc}."
            )
        else:
            sentences.append(f"the loss alone ({name}): {by_auc}.")
    return sentences


def _not_shown(grid: Grid) -> list[str]:
    """Where attacks with shadows are not shown to be better than guessing."""
    parts = []
    for name in (name for name, attack in grid.attacks.items() if attack != LOSS):
        for rate, sizes in grid.told.items():
            few = len(sizes) - _signs(grid, name, rate, sizes).count(1)
            if few:
                parts.append(f"{name} at an FPR of {rate:g} in {few} of {len(sizes)} cells")
    return [f"not shown to be more than guessing: {', '.join(parts)}."] if parts else []


def _signs(grid: Grid, attack: str, rate: float, sizes: Sequence[Size]) -> list[int]:
    found = (grid.tpr(attack, size, rate) for size in sizes)
    return [above(one, rate) for one in found if one is not None]


def _gradient(grid: Grid) -> list[str]:
    """Whether a record's gradient tells its vulnerability."""
    found = {size: one for size in grid.sizes if (one := grid.heads(size, grids.GRADIENT)) is not None}
    if not found:
        return []
    ends = [order(found, key=lambda size: found[size].point) for order in (min, max)]
    spelt = [f"{found[size].point:.2f} ({size})" for size in dict.fromkeys(ends)]
    shown = sum(sign(one) > 0 for one in found.values())
    how = "grows with" if shown == len(found) else "is shown to grow with" if shown else "is not shown to grow with"
    return [
        f"how far training on a record moves its own log odds {how} the norm of its gradient in models that lack it: "
        f"Spearman's rho is {' to '.join(spelt)}, its interval above zero in {shown} of {len(found)} cells."
    ]


def _refused(grid: Grid) -> list[str]:
    """Rates that rest on too few records."""
    counts = [
        one.n
        for rate, sizes in grid.told.items()
        for size in sizes
        if (one := grid.tpr(grid.best, size, rate)) is not None
    ]
    there = f"there are {min(counts):,} to {max(counts):,}" if counts else "there are fewer"
    sentences = []
    for rate in grid.rates:
        refused = len(grid.sizes) - len(grid.told.get(rate, []))
        if refused:
            sentences.append(
                f"an FPR of {rate:g} is refused in {refused} of {len(grid.sizes)} cells: it takes "
                f"{EXPECTED / rate:,.0f} distinct records, and {there}."
            )
    return sentences


def _unconverged(grid: Grid) -> list[str]:
    """Heads that stopped short of their minimum leak less than they would."""
    found = {size: one for size in grid.sizes if (one := grid.heads(size, grids.CONVERGED)) is not None}
    short = {size: one.point for size, one in found.items() if one.point < 1}
    if not short:
        return []
    worst = min(short, key=lambda size: short[size])
    return [
        f"in {len(short)} of {len(found)} cells not all heads have converged, of {worst} {100 * short[worst]:.1f}%."
    ]
