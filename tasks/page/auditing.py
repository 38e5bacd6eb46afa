"""What fresh auditors tell against what it costs, as PNG bytes: utility, and work of the client.

Colours are Okabe and Ito's; shapes and fillings say the same again.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from tasks.page.audited import Audited, Told
from tasks.page.pictures import GREY, marked, saved, style
from tasks.page.tradeoff import reach


def tradeoff(row: str, found: Sequence[Audited], attribute: str) -> bytes:
    """Main accuracy against what a fresh auditor tells of an attribute; hollow, what a simulated one tells.

    Args:
        row: of `attributes`, for the title.
        found: its arms, and its ceiling, all with a main accuracy.
        attribute: which.
    """
    marks = marked([one.name for one in found])
    with style():
        figure = Canvas(figsize=(7.6, 4.0), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        for one in found:
            color, shape = marks[one.name]
            _arm(axes, one, one.told[attribute], color, "o" if one.undefended else shape)
        floor = found[0].told[attribute].label
        axes.axhline(100 * floor.point, color=GREY, linestyle=":", linewidth=1)
        axes.set(ylim=(100 * floor.point - 8, 103))
        axes.set_xlabel("accuracy of the main task, %")
        axes.set_ylabel(f"{attribute} told, balanced accuracy, %")
        axes.set_title(row)
        key = [
            Line2D(
                [],
                [],
                color=marks[one.name][0],
                marker="o" if one.undefended else marks[one.name][1],
                linestyle="",
                label=one.name,
            )
            for one in found
        ]
        key.append(
            Line2D(
                [],
                [],
                color="black",
                marker="o",
                markerfacecolor="white",
                linestyle="",
                label="simulated attacker: no leakage",
            )
        )
        key.append(Line2D([], [], color=GREY, linestyle=":", label="main label alone"))
        figure.legend(handles=key, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
        return saved(figure)


def _arm(axes: Axes, one: Audited, told: Told, color: str, shape: str) -> None:
    x, y = 100 * one.natural.point, 100 * told.fresh.point
    if told.simulated is not None:
        below = 100 * told.simulated.mean
        axes.plot([x, x], [y, below], color=color, linewidth=0.8, alpha=0.6)
        axes.plot(x, below, shape, color=color, markerfacecolor="white", markersize=6, zorder=3)
    axes.errorbar(
        x,
        y,
        xerr=reach(one.natural),
        yerr=reach(told.fresh),
        fmt=shape,
        color=color,
        markersize=6,
        elinewidth=0.7,
        zorder=4,
    )


def work(found: Sequence[Audited], attribute: str) -> bytes:
    """Multiply-accumulates of the client for an image against what is told of an attribute."""
    marks = marked([one.name for one in found])
    with style():
        figure = Canvas(figsize=(7.6, 3.8), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        for one in found:
            told, (color, shape) = one.told[attribute].fresh, marks[one.name]
            axes.errorbar(
                one.client["macs"] / 1e6,
                100 * told.point,
                yerr=reach(told),
                fmt=shape,
                color=color,
                markerfacecolor="white" if one.undefended else color,
                markersize=6,
                elinewidth=0.7,
                label=one.name,
            )
        axes.set_xscale("log")
        axes.set_xlabel("work of the client, million multiply-accumulates an image")
        axes.set_ylabel(f"{attribute} told, balanced accuracy, %")
        figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
        return saved(figure)
