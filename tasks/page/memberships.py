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
    """Findings over every grid, named where there are several; where there is none, that nothing was run."""
    if not found:
        return [NOTHING]
    sentences = []
    for grid in found:
        own = [_most(grid), *_ends(grid), *_slopes(grid), *_least(grid)]
        own += [*_loss(grid), *_not_shown(grid), *_gradient(grid), *_refused(grid), *_unconverged(grid)]
        sentences += own if len(found) == 1 else [f"{grid.name}: {sentence}" for sentence in own]
    return sentences


def figure(value: Figure, digits: int = 3) -> str:
    """A figure with its interval: `-0.463 [-0.550, -0.398]`."""
    point, low, high = (f"{end + 0.0:.{digits}f}" for end in (value.point, value.low, value.high))
    return f"{point} [{low}, {high}]"


def number(value: float) -> str:
    """Of examples: whole ones, without an end past a million million."""
    return f"{value:,.0f}" if value < 1e12 else "no limit"


def interval(value: Figure) -> str:
    """Of least examples: `[60, 293]`."""
    return f"[{number(value.low)}, {number(value.high)}]"


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
        return f"No rate of false positives is resolved in any cell; by AUC, {best} tells most."
    rate, sizes = next(iter(told.items()))
    if not others:
        return f"One attack was run: {best}."
    ahead = 0
    for size in sizes:
        own = grid.tpr(best, size, rate)
        rest = [grid.tpr(name, size, rate) for name in others]
        ahead += own is not None and all(one is not None and own.low > one.high for one in rest)
    return (
        f"Of {len(grid.attacks)} attacks {best} tells most: at an FPR of {rate:g} it has the highest mean "
        f"TPR over {len(sizes)} cells, and in {ahead} of them its interval lies above all others."
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
            parts.append(f"{_share(told)} of the members with {size.examples} examples a class{doubt}")
            anew.append(_share(again))
    return [
        f"At an FPR of {rate:g}, with {classes} classes, {grid.best} finds {' and '.join(parts)}. Halves of "
        f"a fixed pool flatter it: as on examples drawn anew, {' and '.join(anew)}."
    ]


def _slopes(grid: Grid) -> list[str]:
    """The law of the best attack, beside the published slope and that of theory; then its exact form."""
    sentences = []
    for rate in grid.told:
        b_s, b_c = (grid.law(grid.best, rate, slope) for slope in laws.SLOPES[:2])
        if b_s is None or b_c is None:
            sentences.append(
                f"At an FPR of {rate:g} there is no law: too few cells of different sizes tell more than "
                "guessing."
            )
            continue
        falls = (
            f"At an FPR of {rate:g} what {grid.best} tells, TPR less FPR, goes with the examples a class to "
            f"the power {figure(b_s)}"
        )
        if sign(b_s) == 0:
            falls += ", which shows no fall"
        beside = [f"{_holds(b_s, THEORY)} theory's {THEORY:g}, its limit for many examples"]
        if rate in PAPER:
            beside.insert(0, f"{_holds(b_s, PAPER[rate].b_s)} the published {PAPER[rate].b_s:g}")
        more = "" if sign(b_c) else ", which shows no effect"
        sentences.append(
            f"{falls}; the interval {' and '.join(beside)}. It goes with the number of classes to the power "
            f"{figure(b_c)}{more}."
        )
    fit = grid.exact(grid.best, laws.R2)
    if fit is not None:
        sentences.append(
            "One exact form for all rates, with theory's slope and all records alike, has an R2 of "
            f"{figure(fit, 2)}."
        )
    return sentences


def _share(value: Figure) -> str:
    """`41.4% [40.4, 42.5]`."""
    return percent(value).replace(" ", "% ", 1)


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
            parts.append(f"{number(least.point)} {interval(least)} at an FPR of {rate:g}{beside}")
            most = max(most, least.point)
    if not parts:
        return []
    beyond = "; what is beyond is extrapolated" if most > max(grid.examples) else ""
    return [
        f"By its law {grid.best} tells no more than epsilon {EPSILON:g} and delta 0.00001 allow from so "
        f"many examples of each of {laws.CLASSES} classes: {', '.join(parts)}. At most {max(grid.examples)} "
        f"were trained on{beyond}. It is of the mean over records and of one attack: no guarantee."
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
        ends = dict.fromkeys(f"{end:.2f}" for end in (min(aucs), max(aucs)))
        by_auc = f"its AUC is {' to '.join(ends)}"
        if parts:
            sentences.append(
                f"The loss alone ({name}), by one threshold for all records and no shadow, is shown to tell "
                f"members {', '.join(parts)}; {by_auc}."
            )
        else:
            sentences.append(f"The loss alone ({name}): {by_auc}.")
    return sentences


def _not_shown(grid: Grid) -> list[str]:
    """Where attacks with shadows are not shown to be better than guessing."""
    parts = []
    for name in (name for name, attack in grid.attacks.items() if attack != LOSS):
        for rate, sizes in grid.told.items():
            few = len(sizes) - _signs(grid, name, rate, sizes).count(1)
            if few:
                parts.append(f"{name} at an FPR of {rate:g} in {few} of {len(sizes)} cells")
    return [f"Not shown to be more than guessing: {', '.join(parts)}."] if parts else []


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
    how = (
        "grows with"
        if shown == len(found)
        else "is shown to grow with"
        if shown
        else "is not shown to grow with"
    )
    return [
        f"How far training on a record moves its own log odds {how} the norm of its gradient in models that "
        f"lack it: Spearman's rho is {' to '.join(spelt)}, its interval above zero in {shown} of "
        f"{len(found)} cells."
    ]


def _refused(grid: Grid) -> list[str]:
    """Rates that rest on too few records."""
    counts = [
        one.n
        for rate, sizes in grid.told.items()
        for size in sizes
        if (one := grid.tpr(grid.best, size, rate)) is not None
    ]
    ends = [f"{end:,}" for end in dict.fromkeys((min(counts), max(counts)))] if counts else ["fewer"]
    sentences = []
    for rate in grid.rates:
        refused = len(grid.sizes) - len(grid.told.get(rate, []))
        if refused:
            sentences.append(
                f"An FPR of {rate:g} is refused in {refused} of {len(grid.sizes)} cells: it takes "
                f"{EXPECTED / rate:,.0f} distinct records, and there are {' to '.join(ends)}."
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
        f"In {len(short)} of {len(found)} cells not all heads have converged; the fewest, "
        f"{100 * short[worst]:.1f}%, in {worst}."
    ]
