"""Pictures of the report as PNG bytes: faces, the trade-off, trainable and frozen layers.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; shapes and hatches say the same again.
"""

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import cycle

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import isotonic_regression
from torch import Tensor
from torch.nn import functional as F

from mipriv.stats import Figure

Pixels = NDArray[np.uint8]
MARKS = tuple(zip(("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"), "os^DvP", strict=True))
FROZEN, TRAINABLE, GREY = "#56B4E9", "#E69F00", "#666666"
TILE, NEAR, FAR = 96, 2, 10  # pixels: widest face, gap between faces of one person, gap between people


@dataclass(frozen=True)
class Point:
    """An attack in the trade-off.

    Attributes:
        name: its row.
        setting: what it shares with its undefended twin; one shape and colour each.
        defended: filled if so, else hollow.
        natural: accuracy of the victim.
        attack: accuracy of the attack.
        twin: row of the undefended twin, which a line leads to.
    """

    name: str
    setting: str
    defended: bool
    natural: Figure
    attack: Figure
    twin: str | None


@dataclass(frozen=True)
class Panel:
    """What one judge sees: `points`, the accuracy of a guess, and that of real images."""

    judge: str
    points: tuple[Point, ...]
    chance: float
    ceiling: float


@dataclass(frozen=True)
class Part:
    """A block of layers with its trainable and frozen parameters."""

    name: str
    trainable: int
    frozen: int


def strip(images: Tensor, width: int) -> Pixels:
    """People side by side: [h, w, 3].

    Args:
        images: [p, k, C, H, W] in [0, 1]; C = 1 or 3.
        width: images that a person has room for, at least k; what is missing stays white.
    """
    people, k, _, *size = images.shape
    size = [round(side * min(1.0, TILE / max(size))) for side in size]
    small = F.interpolate(images.flatten(0, 1), size, mode="area").clamp(0, 1)
    tiles = (small * 255).round().byte().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    tiles = tiles.reshape(people, k, *size, 3)
    person = (size[1] + NEAR) * width - NEAR
    sheet = np.full((size[0], (person + FAR) * people - FAR, 3), 255, np.uint8)
    for p in range(people):
        for i in range(k):
            left = p * (person + FAR) + i * (size[1] + NEAR)
            sheet[:, left : left + size[1]] = tiles[p, i]
    return sheet


def png(pixels: Pixels) -> bytes:
    """Pixels [h, w, 3] as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


def wall(strips: Mapping[str, Pixels], people: Sequence[str]) -> bytes:
    """Strips of one width under each other, each with its name, people named on top."""
    gap = np.full((NEAR * 3, next(iter(strips.values())).shape[1], 3), 255, np.uint8)
    sheet = np.concatenate([part for pixels in strips.values() for part in (pixels, gap)])
    height, width = sheet.shape[:2]
    with _style():
        figure = Canvas(figsize=(11, 9 * height / width + 0.3), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(sheet)
        step = (width + FAR) / len(people)
        axes.set_xticks([(i + 0.5) * step - FAR / 2 for i in range(len(people))], people)
        tall = next(iter(strips.values())).shape[0]
        axes.set_yticks([i * (tall + len(gap)) + tall / 2 for i in range(len(strips))], list(strips))
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        axes.spines[:].set_visible(False)
        return _saved(figure)


def tradeoff(panels: Sequence[Panel]) -> bytes:
    """Natural accuracy against attack accuracy in percent with intervals on both, a panel a judge."""
    settings = dict.fromkeys(point.setting for panel in panels for point in panel.points)
    marks = dict(zip(settings, cycle(MARKS)))  # settings beyond them share marks
    lowest = 100 * min(point.natural.low for panel in panels for point in panel.points)
    with _style():
        figure = Canvas(figsize=(5.5 * len(panels), 5), dpi=150, layout="constrained")
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, panel in zip(grid, panels, strict=True):
            axes.set(xlim=(max(-2, lowest - 2), 101), ylim=(-2, 104), title=f"judge {panel.judge}")
            axes.set(xlabel="natural accuracy of the victim, %")
            _panel(axes, panel, marks)
        grid[0].set_ylabel("attack accuracy, top 1, %")
        figure.legend(handles=_key(marks), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
        return _saved(figure)


def _panel(axes: Axes, panel: Panel, marks: Mapping[str, tuple[str, str]]) -> None:
    axes.axhline(100 * panel.chance, color=GREY, linestyle=":", linewidth=1)
    axes.axhline(100 * panel.ceiling, color=GREY, linestyle="--", linewidth=1)
    places = {point.name: (100 * point.natural.point, 100 * point.attack.point) for point in panel.points}
    for point in panel.points:
        color, shape = marks[point.setting]
        x, y = places[point.name]
        if point.twin is not None:
            axes.plot(*zip(places[point.twin], (x, y), strict=True), color=color, alpha=0.35, linewidth=3)
        axes.errorbar(
            x,
            y,
            xerr=_reach(point.natural),
            yerr=_reach(point.attack),
            fmt=shape,
            color=color,
            markerfacecolor=color if point.defended else "white",
            markersize=7,
            elinewidth=0.8,
            capsize=2,
            zorder=3,
        )
    _label(axes, panel.points, places, marks)


def _label(
    axes: Axes,
    points: Sequence[Point],
    places: Mapping[str, tuple[float, float]],
    marks: Mapping[str, tuple[str, str]],
) -> None:
    """Names in a column at the right, as near to their points' heights as their own height lets them be."""
    order = sorted(points, key=lambda point: places[point.name][1])
    gap = min(4.5, 100 / len(order))
    stairs = gap * np.arange(len(order))
    wanted = np.array([places[point.name][1] for point in order])
    heights = isotonic_regression(wanted - stairs).x.clip(0, 102 - stairs[-1]) + stairs
    for point, height in zip(order, heights, strict=True):
        color, _ = marks[point.setting]
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.6, "alpha": 0.7, "shrinkB": 5}
        axes.annotate(
            point.name,
            places[point.name],
            (1.03, height),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=8,
            arrowprops=line,
            annotation_clip=False,
        )


def _key(marks: Mapping[str, tuple[str, str]]) -> list[Line2D]:
    """What shapes, fillings and lines mean."""
    shapes = [Line2D([], [], color=c, marker=m, linestyle="", label=name) for name, (c, m) in marks.items()]
    fills = [
        Line2D([], [], color="black", marker="o", linestyle="", markerfacecolor=fill, label=label)
        for label, fill in (("hollow: undefended", "white"), ("filled: defended", "black"))
    ]
    guess = Line2D([], [], color=GREY, linestyle=":", label="guessing")
    real = Line2D([], [], color=GREY, linestyle="--", label="real test images")
    return [*shapes, *fills, guess, real]


def _reach(figure: Figure) -> NDArray[np.float64]:
    """Lengths of both whiskers in percent: [2, 1]."""
    ends = [[figure.point - figure.low], [figure.high - figure.point]]
    return 100 * np.array(ends).clip(0)  # a point at the end of its interval may round past it


def account(victims: Mapping[str, Sequence[Part]]) -> bytes:
    """A bar a victim: its blocks in the order of execution, as wide as their share of the parameters."""
    with _style():
        figure = Canvas(figsize=(11, 0.55 * len(victims) + 1.1), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        for height, parts in enumerate(victims.values()):
            _bar(axes, height, parts)
        axes.set_yticks(range(len(victims)), list(victims))
        axes.invert_yaxis()
        axes.set(xlim=(0, 100), xlabel="share of the parameters, %, from image (left) to classes (right)")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        key = [Patch(facecolor=FROZEN, hatch="////", edgecolor="white", label="frozen")]
        key.append(Patch(facecolor=TRAINABLE, label="trainable"))
        figure.legend(handles=key, loc="outside upper right", ncols=2, frameon=False)
        return _saved(figure)


def _bar(axes: Axes, height: int, parts: Sequence[Part]) -> None:
    total, left = sum(part.trainable + part.frozen for part in parts), 0.0
    for part in parts:
        begun = left
        for count, color, hatch in ((part.frozen, FROZEN, "////"), (part.trainable, TRAINABLE, "")):
            share = 100 * count / total
            axes.barh(height, share, 0.6, left, color=color, hatch=hatch, edgecolor="white", linewidth=0.6)
            left += share
        if left - begun > 0.9 * len(part.name):  # about the width of its name
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
            axes.text((begun + left) / 2, height, part.name, ha="center", va="center", fontsize=7, bbox=box)


def _style() -> AbstractContextManager[None]:
    return matplotlib.rc_context(
        {
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "text.parse_math": False,  # names of rows are the user's
        }
    )


def _saved(figure: Canvas) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
