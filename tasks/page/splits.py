"""Split inference as people read it: a line an arm, and what CEM and its bound come to in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mipriv.stats import Figure
from tasks.auditing.simulated import Simulated
from tasks.leakage import (
    FACTOR,
    IDENTITY,
    INFORMATION,
    MSE,
    NATURAL,
    PASSES,
    PSNR,
    RESIDUAL,
    SSIM,
    Table,
    percent,
    sign,
)
from tasks.reconstruct import Reconstruct
from tasks.split import Splits
from tasks.splits.certificates import BEST, GEOMETRIC, LEAST, POPULATION
from tasks.splits.gains import HOSTS, NOISE

NO_BOUND = "no bound"
VACUOUS = (
    "On natural images nobody knows h(x), and what is known of it makes the bound on the error some 20 "
    "to 500 times smaller than any attack's error. There only the information and the factor exp(-2 I / d) "
    "are shown, as ways to compare defences: the absolute bound is vacuous, and no certificate."
)


@dataclass(frozen=True)
class Attacked:
    """An attack on an arm, spelt: errors, and what its arm gains over the plain one and over plain noise.

    Attributes:
        residual: of the features, relative; small beside a large error, the image is not unique.
        named: share of images that the embedding takes for the right person; empty where none is asked.
        how: the solver, and passes over the network an image; empty where the attack does not say.
    """

    name: str
    knowledge: str
    mse: str
    psnr: str
    ssim: str
    residual: str
    named: str
    how: str
    gain: str
    noise: str


@dataclass(frozen=True)
class Arm:
    """An arm of a split victim, spelt, with every attack on it."""

    name: str
    data: str
    network: str
    defense: str
    cem: bool
    natural: str
    client: str
    information: str
    factor: str
    bound: str
    best: str
    attacked: tuple[Attacked, ...]


def arms(table: Table, victims: Splits, attacks: Reconstruct, solvers: Mapping[str, str]) -> list[Arm]:
    """Every arm of every row of `split`.

    Args:
        solvers: of attacks that say which they used, by row and arm.
    """
    return [
        _arm(table, victims, attacks, row, arm, solvers)
        for row, own in victims.rows.items()
        for arm in own.arms
    ]


def whole(table: Table, attacks: Reconstruct, solvers: Mapping[str, str]) -> dict[str, list[Attacked]]:
    """Attacks on victims that are not split, by victim and layer."""
    found: dict[str, list[Attacked]] = {}
    for name, row in attacks.rows.items():
        for layer in row.layers or []:
            found.setdefault(f"{row.victim} at {layer}", []).append(
                _attacked(table, attacks, name, layer, solvers)
            )
    return found


def _arm(
    table: Table, victims: Splits, attacks: Reconstruct, row: str, arm: str, solvers: Mapping[str, str]
) -> Arm:
    own, name = victims.rows[row], f"{row}/{arm}"
    parameters, macs, sent = (
        table.value(name, "client", figure, "", own.data).point for figure in ("parameters", "macs", "bytes")
    )
    nats = find(table, name, "bound", INFORMATION)
    factor, bound = find(table, name, "bound", FACTOR), find(table, name, "bound", MSE)
    best = find(table, name, "certificate", BEST)
    bill = f"{parameters:,.0f} parameters, {macs / 1e6:.3g} M multiply-accumulates, {sent:,.0f} bytes sent"
    return Arm(
        name=name,
        data=own.data,
        network=own.network,
        defense=own.defense,
        cem=own.arms[arm].cem is not None,
        natural=percent(table.value(name, "split victim", NATURAL, "", own.data)),
        client=bill,
        information=NO_BOUND if nats is None else f"{nats.point:.1f}, at most {nats.high:.1f}",
        factor=NO_BOUND if factor is None else f"{factor.point:.3g}, at least {factor.low:.3g}",
        bound="" if bound is None else spelt(bound.low),
        best="" if best is None else error(best),
        attacked=tuple(
            _attacked(table, attacks, attack, arm, solvers)
            for attack, wanted in attacks.rows.items()
            if wanted.of == "split" and wanted.victim == row and (wanted.arms is None or arm in wanted.arms)
        ),
    )


def _attacked(
    table: Table, attacks: Reconstruct, attack: str, arm: str, solvers: Mapping[str, str]
) -> Attacked:
    name, wanted = f"{attack}/{arm}", attacks.rows[attack]
    against = f"{wanted.victim}/{arm}"
    median, tenth = (
        table.value(name, "reconstruction", f"{PSNR}, {which}", "", against).point
        for which in ("median", "10th percentile")
    )
    ssim = table.value(name, "reconstruction", SSIM, "", against)
    residual = table.value(name, "reconstruction", f"{RESIDUAL}, median", "", against)
    named = find(table, name, "reconstruction", IDENTITY)
    passes = find(table, name, "cost", PASSES)
    how = [solvers.get(name, ""), "" if passes is None else f"{passes.point:,.0f} passes"]
    return Attacked(
        name=attack,
        knowledge=wanted.knowledge,
        mse=error(table.value(name, "reconstruction", MSE, "", against)),
        psnr=f"{median:.1f}, {tenth:.1f}",
        ssim=f"{ssim.point:.2f} [{ssim.low:.2f}, {ssim.high:.2f}]",
        residual=f"{residual.point:.2g}",
        named="" if named is None else percent(named),
        how=", ".join(part for part in how if part),
        gain=relative(find(table, name, "gain", MSE, f"{attack}/plain")),
        noise=relative(find(table, name, "gain", MSE, NOISE)),
    )


def find(table: Table, subject: str, kind: str, figure: str, against: str | None = None) -> Figure | None:
    """A figure that need not be there."""
    return next(
        (
            line.value
            for line in table.lines
            if (line.subject, line.kind, line.figure) == (subject, kind, figure)
            and against in (None, line.against)
        ),
        None,
    )


def spelt(value: float) -> str:
    """A squared error with three digits."""
    return f"{value:.3g}"


def error(figure: Figure) -> str:
    """A squared error with its interval."""
    return f"{spelt(figure.point)} [{spelt(figure.low)}, {spelt(figure.high)}]"


def relative(figure: Figure | None) -> str:
    """A relative change in percent with its interval; nothing where there is none."""
    if figure is None:
        return ""
    return f"{100 * figure.point:+.0f} [{100 * figure.low:+.0f}, {100 * figure.high:+.0f}]"


def floors(table: Table) -> list[tuple[str, str, str]]:
    """What needs no feature: its name, where, and its squared error."""
    return [
        (line.subject, line.against, error(line.value))
        for line in table.lines
        if (line.kind, line.figure) == ("reconstruction floor", MSE)
    ]


def inside(table: Table, found: Sequence[Simulated]) -> list[tuple[str, str, str, str]]:
    """Of victims that were trained against a decoder: the attack, what that decoder reaches on the features
    that the attack is given, over training seeds, and what the attack does; squared errors, and how many
    targets."""
    rows = []
    for one in found:
        fresh = next(
            line.value
            for line in table.lines
            if (line.subject, line.kind, line.figure) == (one.subject, "reconstruction", MSE)
        )
        ends = "" if one.seeds == 1 else f" ({spelt(one.least)} to {spelt(one.most)})"
        rows.append((one.subject, spelt(one.mean) + ends, error(fresh), f"{one.n}, {one.seeds}"))
    return rows


def named(table: Table) -> list[tuple[str, str, str]]:
    """Whom the embedding names without a feature, and on the targets themselves: name, where, share."""
    return [
        (line.subject, line.against, percent(line.value))
        for line in table.lines
        if line.kind in ("reconstruction floor", "reconstruction ceiling") and line.figure == IDENTITY
    ]


def certificates(table: Table) -> list[dict[str, str]]:
    """Affine clients on images of a known law: the bound, what is possible, what was reached."""
    found = []
    for name in dict.fromkeys(line.subject for line in table.lines if line.figure == LEAST):
        population, geometric, least = (
            find(table, name, "certificate", figure) for figure in (POPULATION, GEOMETRIC, LEAST)
        )
        best, bound = find(table, name, "certificate", BEST), find(table, name, "bound", MSE)
        if population is None or geometric is None or least is None or best is None or bound is None:
            continue
        found.append(
            {
                "name": name,
                "bound": spelt(bound.low),
                "population": spelt(population.point),
                "geometric": spelt(geometric.point),
                "least": spelt(least.point),
                "best": error(best),
                "ratio": f"{best.point / least.point:.3f}",
                "gap": f"{least.point / population.point:.3f}",
            }
        )
    return found


def said(table: Table) -> list[str]:
    """What CEM gains, over its hosts and over plain noise, chosen by the intervals."""
    sentences = []
    for line in table.lines:
        if (line.kind, line.against) == ("gain", HOSTS):
            value = line.value
            over = "only host, 95% interval from" if value.n == 1 else f"mean over {value.n} hosts, from"
            sentences.append(
                f"{line.subject}: with CEM the error of what is recovered changes by "
                f"{100 * value.point:+.0f}% on the {over} {100 * value.low:+.0f}% to "
                f"{100 * value.high:+.0f}%."
            )
    against = [line for line in table.lines if (line.kind, line.against) == ("gain", NOISE)]
    for verdict, rows in (
        ("more than plain noise at equal accuracy", [one for one in against if sign(one.value) > 0]),
        ("less than plain noise at equal accuracy", [one for one in against if sign(one.value) < 0]),
        (
            "no more and no less than plain noise, as far as this shows",
            [one for one in against if not sign(one.value)],
        ),
    ):
        if rows:
            sentences.append(f"Protect {verdict}: {', '.join(one.subject for one in rows)}.")
    return sentences
