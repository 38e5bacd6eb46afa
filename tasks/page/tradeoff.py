"""What privacy costs and what attacks reach, as PNG bytes: curves over strengths, and attacks side by side.

Colours are Okabe and Ito's; shapes say the same again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from mipriv.stats import Figure
from tasks.page.pictures import GREY, marked, saved, style

HOLLOW = "undefended"
WIDTH = 30  # letters that go beside one panel


@dataclass(frozen=True)
class Point:
    """A victim under an attack: natural accuracy, and the accuracy of the attack."""

    natural: Figure
    attack: Figure


@dataclass(frozen=True)
class Panel:
    """One attack in one setting, as one judge sees it.

    Attributes:
        setting: the attack, and what all its victims share.
        judge: who judged.
        undefended: where every curve begins.
        curves: a defence's strengths, in any order.
        chance: accuracy of a guess.
        ceiling: of real images.
    """

    setting: str
    judge: str
    undefended: Point
    curves: Mapping[str, Sequence[Point]]
    chance: float
    ceiling: float


@dataclass(frozen=True)
class Reached:
    """An attack by one judge: what it made, and where it began."""

    made: Figure
    begun: Figure


def tradeoff(panels: Sequence[Panel]) -> bytes:
    """Natural accuracy against attack accuracy in percent: a row of panels a setting, a column a judge."""
    settings = list(dict.fromkeys(panel.setting for panel in panels))
    judges = list(dict.fromkeys(panel.judge for panel in panels))
    marks = marked(list(dict.fromkeys(name for panel in panels for name in panel.curves)))
    lowest = 100 * min(point.natural.point for panel in panels for point in _points(panel))
    with style():
        size = (3.7 * len(judges) + 0.5, 2.3 * len(settings) + 0.8)
        figure = Canvas(figsize=size, dpi=150, layout="constrained")
        grid = figure.subplots(len(settings), len(judges), sharex=True, sharey=True, squeeze=False)
        for panel in panels:
            axes = grid[settings.index(panel.setting)][judges.index(panel.judge)]
            axes.set(xlim=(max(-2, lowest - 4), 102), ylim=(-3, 104))
            _panel(axes, panel, marks)
        for judge, axes in zip(judges, grid[0], strict=True):
            axes.set_title(f"judge {judge}")
        for setting, axes in zip(settings, grid[:, 0], strict=True):
            axes.set_ylabel(f"{fill(setting, WIDTH)}\nattack accuracy, top 1, %", fontsize=8)
        figure.supxlabel("natural accuracy of the victim, %", fontsize=9)
        figure.legend(handles=_key(marks), loc="outside upper center", ncols=5, frameon=False, fontsize=8)
        return saved(figure)


def _points(panel: Panel) -> list[Point]:
    return [panel.undefended, *(point for curve in panel.curves.values() for point in curve)]


def _panel(axes: Axes, panel: Panel, marks: Mapping[str, tuple[str, str]]) -> None:
    axes.axhline(100 * panel.chance, color=GREY, linestyle=":", linewidth=1)
    axes.axhline(100 * panel.ceiling, color=GREY, linestyle="--", linewidth=1)
    for defense, curve in panel.curves.items():
        color, shape = marks[defense]
        ordered = sorted([panel.undefended, *curve], key=lambda point: point.natural.point)
        places = [(100 * point.natural.point, 100 * point.attack.point) for point in ordered]
        axes.plot(*zip(*places, strict=True), color=color, alpha=0.5, linewidth=1.5)
        for point in curve:
            _mark(axes, point, color, shape, color)
    _mark(axes, panel.undefended, "black", "o", "white")


def _mark(axes: Axes, point: Point, color: str, shape: str, fill: str) -> None:
    axes.errorbar(
        100 * point.natural.point,
        100 * point.attack.point,
        xerr=reach(point.natural),
        yerr=reach(point.attack),
        fmt=shape,
        color=color,
        markerfacecolor=fill,
        markersize=6,
        elinewidth=0.6,
        alpha=0.9,
        zorder=3,
    )


def _key(marks: Mapping[str, tuple[str, str]]) -> list[Line2D]:
    """What shapes and lines mean."""
    shapes = [Line2D([], [], color=c, marker=m, label=name) for name, (c, m) in marks.items()]
    hollow = Line2D([], [], color="black", marker="o", linestyle="", markerfacecolor="white", label=HOLLOW)
    guess = Line2D([], [], color=GREY, linestyle=":", label="guessing")
    real = Line2D([], [], color=GREY, linestyle="--", label="real test images")
    return [hollow, *shapes, guess, real]


def attacks(rows: Mapping[str, Mapping[str, Reached]], chance: float) -> bytes:
    """Accuracy of each row by each judge in percent with its interval; hollow: where it began."""
    judges = list(dict.fromkeys(judge for seen in rows.values() for judge in seen))
    marks = marked(judges)
    with style():
        figure = Canvas(figsize=(9, 0.42 * len(rows) + 1.2), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(100 * chance, color=GREY, linestyle=":", linewidth=1)
        for height, seen in enumerate(rows.values()):
            for place, (judge, found) in enumerate(seen.items()):
                y = height + 0.22 * (place - (len(seen) - 1) / 2)
                color, shape = marks[judge]
                axes.plot(
                    100 * found.begun.point, y, shape, color=color, markerfacecolor="white", markersize=5
                )
                axes.errorbar(
                    100 * found.made.point,
                    y,
                    xerr=reach(found.made),
                    fmt=shape,
                    color=color,
                    markersize=5,
                    elinewidth=1,
                )
        axes.set_yticks(range(len(rows)), list(rows))
        axes.invert_yaxis()
        axes.set(xlim=(-1, 101), xlabel="attack accuracy, top 1, %")
        axes.grid(axis="y", linewidth=0.3)
        shapes = [Line2D([], [], color=c, marker=m, linestyle="", label=j) for j, (c, m) in marks.items()]
        hollow = Line2D(
            [], [], color=GREY, marker="o", linestyle="", markerfacecolor="white", label="its own start"
        )
        guess = Line2D([], [], color=GREY, linestyle=":", label="guessing")
        figure.legend(handles=[*shapes, hollow, guess], loc="outside upper center", ncols=6, frameon=False)
        return saved(figure)


def reach(figure: Figure) -> NDArray[np.float64]:
    """Lengths of both whiskers in percent: [2, 1]."""
    ends = [[figure.point - figure.low], [figure.high - figure.point]]
    return 100 * np.array(ends).clip(0)  # a point at the end of its interval may round past it
