"""What features of split clients give away, in pictures: errors against accuracy, images under the real ones.

Colours are Okabe and Ito's; shapes say the same again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from torch import Tensor

from mipriv.errors import InputError
from mipriv.stats import Figure
from tasks.page.pictures import GREY, Pixels, marked, saved, strip, style
from tasks.page.tradeoff import reach

COLUMNS = 2  # panels side by side
LEAST = 1e-6  # errors below are drawn here: a logarithmic axis has no zero


@dataclass(frozen=True)
class Arm:
    """A client under an attack: natural accuracy, and the mean squared error of what is recovered."""

    natural: Figure
    error: Figure


@dataclass(frozen=True)
class Host:
    """A defence by itself, and with CEM where that was run."""

    plain: Arm
    cem: Arm | None


@dataclass(frozen=True)
class Panel:
    """One attack in one setting.

    Attributes:
        setting: the attack, and what its victims share.
        hosts: by name.
        noise: plain noise, from the weakest.
        floor: error of the mean image, which needs no feature.
    """

    setting: str
    hosts: Mapping[str, Host]
    noise: Sequence[Arm]
    floor: float


def clients(panels: Sequence[Panel]) -> bytes:
    """Natural accuracy in percent against error, logarithmic: a panel a setting.

    An arrow leads from each host alone to the host with CEM, a line through plain noise of several strengths.
    Panels have axes of their own: neither accuracies nor errors of different data compare.

    Raises:
        InputError: no panel.
    """
    if not panels:
        raise InputError("clients: 0 panels; allowed: from 1")
    marks = marked(list(dict.fromkeys(name for panel in panels for name in panel.hosts)))
    wide = min(COLUMNS, len(panels))
    tall = -(-len(panels) // wide)
    with style():
        size = (4.9 * wide + (1.5 if wide == 1 else 0.3), 3.6 * tall + 0.9)
        figure = Canvas(figsize=size, dpi=150, layout="constrained")
        grid = figure.subplots(tall, wide, squeeze=False).ravel()
        for axes, panel in zip(grid, panels, strict=False):
            _panel(axes, panel, marks)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        figure.supxlabel("natural accuracy of the split classifier, %", fontsize=9)
        figure.supylabel("mean squared error of what is recovered", fontsize=9)
        figure.legend(handles=_key(marks), loc="outside upper center", ncols=4, frameon=False, fontsize=8)
        return saved(figure)


def _panel(axes: Axes, panel: Panel, marks: Mapping[str, tuple[str, str]]) -> None:
    axes.set_title(panel.setting, fontsize=9)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", linewidth=0.3)
    axes.axhline(max(LEAST, panel.floor), color=GREY, linestyle="--", linewidth=1)
    if panel.noise:
        axes.plot(*zip(*map(_place, panel.noise), strict=True), color=GREY, linewidth=1.5, alpha=0.6)
    for arm in panel.noise:
        _mark(axes, arm, GREY, ".", GREY)
    for name, host in panel.hosts.items():
        color, shape = marks[name]
        _mark(axes, host.plain, color, shape, "white")
        if host.cem is not None:
            _mark(axes, host.cem, color, shape, color)
            _arrow(axes, host.plain, host.cem, color)
    axes.margins(0.08)


def _place(arm: Arm) -> tuple[float, float]:
    return 100 * arm.natural.point, max(LEAST, arm.error.point)


def _mark(axes: Axes, arm: Arm, color: str, shape: str, fill: str) -> None:
    x, y = _place(arm)
    whiskers = np.array([[y - max(LEAST, arm.error.low)], [arm.error.high - y]]).clip(0)
    axes.errorbar(
        x,
        y,
        xerr=reach(arm.natural),
        yerr=whiskers,
        fmt=shape,
        color=color,
        markerfacecolor=fill,
        markersize=6,
        elinewidth=0.6,
        zorder=3,
    )


def _arrow(axes: Axes, begin: Arm, end: Arm, color: str) -> None:
    look = {"arrowstyle": "-|>", "color": color, "linewidth": 1.3, "shrinkA": 4, "shrinkB": 4}
    axes.annotate("", _place(end), _place(begin), arrowprops=look, zorder=4)


def _key(marks: Mapping[str, tuple[str, str]]) -> list[Line2D]:
    """What shapes and lines mean."""
    shapes = [Line2D([], [], color=c, marker=m, linestyle="", label=name) for name, (c, m) in marks.items()]
    hollow = Line2D(
        [], [], color="black", marker="o", linestyle="", markerfacecolor="white", label="host alone"
    )
    filled = Line2D([], [], color="black", marker="o", linestyle="", label="with CEM")
    noise = Line2D([], [], color=GREY, marker=".", label="plain noise")
    mean = Line2D([], [], color=GREY, linestyle="--", label="mean image")
    return [*shapes, hollow, filled, noise, mean]


def strips(real: Tensor, recovered: Mapping[str, Tensor]) -> dict[str, Pixels]:
    """Real images, and under each what was recovered from its features: rows for `pictures.wall`.

    A target is a column. Pixels beyond [0, 1] are shown on the range of the real images, all rows alike.

    Args:
        real: [n, C, H, W].
        recovered: [n, C, H, W] each, by host and arm.

    Raises:
        InputError: images that do not belong to the real ones.
    """
    for name, images in recovered.items():
        if images.shape != real.shape:
            raise InputError(f"{name}: images {list(images.shape)}; allowed: {list(real.shape)}")
    low, high = min(0.0, float(real.min())), max(1.0, float(real.max()))
    rows = {"real, sent": real, **recovered}
    return {name: strip((images[:, None] - low) / (high - low), 1) for name, images in rows.items()}
